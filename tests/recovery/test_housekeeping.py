"""The ledger's housekeeping: a lease that lasts, and an heir for what a dead worker left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.history.record import describe_hold
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Admitted, Hold, LedgerAnswer, Policy, Retention
from gateway.money.store_epoch import StoreEpoch
from gateway.process.worker_locks import WorkerLocks
from gateway.recovery.housekeeping import Adopter, Housekeeping, Pace
from tests.conftest import Valkey
from tests.support.ledgers import SECOND, Clock, Store, at, make_id, make_ledger, make_opening

TASK, CALL = make_id("task", 1), make_id("call", 1)
DEAD, HEIR = make_id("worker", 1), make_id("worker", 2)
PACE = Pace(call_timeout_s=10, lease_s=2, grace_s=1, retention=Retention(ended_s=60))


@pytest.fixture
def valkey(lone_valkey: Valkey) -> Valkey:
    """A server of this file's own: elsewhere gateways run on and take over what seems left."""
    lone_valkey.flush()
    return lone_valkey


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2026-11-04T12:00:00"))


@pytest.fixture
async def ledger(valkey: Valkey, clock: Clock) -> AsyncIterator[Ledger]:
    made, command_queue = make_ledger(valkey.url, clock)
    yield made
    await command_queue.aclose()


@pytest.fixture
def store(valkey: Valkey) -> Iterator[Store]:
    found = Store(valkey.url)
    yield found
    found.close()


async def bequeath(ledger: Ledger, policy: Policy = "presume") -> None:
    """A worker marks one call of a task of three images, and dies."""
    await ledger.renew(DEAD, PACE.lease_us)
    assert isinstance(await ledger.open(make_opening(1, images=3, worker=DEAD)), Admitted)
    assert await ledger.mark_sent(TASK, CALL, [0], 10, 1, policy) is LedgerAnswer.HELD


async def live(heir: Housekeeping, clock: Clock, seconds: int) -> None:
    """A step each second."""
    for _ in range(seconds):
        clock.now += SECOND
        await heir.step()


async def show(ledger: Ledger) -> Hold:
    found = await ledger.show(TASK)
    assert found
    return found


async def test_heir_frees_what_was_not_sent(ledger: Ledger, clock: Clock) -> None:
    """When the lease has ended, unsent slots are free again, and the sent one waits for its answer."""
    await bequeath(ledger)
    heir = Housekeeping(ledger, HEIR, PACE)
    await heir.step()
    await live(heir, clock, 1)
    assert (await show(ledger)).worker == DEAD
    await live(heir, clock, 1)
    found = await show(ledger)
    assert (found.worker, found.state, found.usd_held, found.free) == (HEIR, "closed", 10, 0)


async def test_heir_presumes_after_timeout(ledger: Ledger, clock: Clock, store: Store) -> None:
    """A sent call is presumed paid once its time-out and a lease have passed, not before, and once."""
    await bequeath(ledger)
    heir = Housekeeping(ledger, HEIR, PACE)
    await heir.step()
    await live(heir, clock, 11)
    assert (await show(ledger)).calls[0].state is LedgerAnswer.HELD
    await live(heir, clock, 1)
    assert (await show(ledger)).calls[0].state is LedgerAnswer.PRESUMED
    await live(heir, clock, 2)
    assert store.window("everyone", "total") == {"usd_presumed": 10, "images_presumed": 1}


@pytest.mark.parametrize(("policy", "usd_held", "state"), [("release", 0, "void"), ("hold", 10, "held")])
async def test_heir_keeps_policy(policy: Policy, usd_held: int, state: str, ledger: Ledger, clock: Clock) -> None:
    """Where an upstream's policy says so, the price is given back, or stays held until an operator decides."""
    await bequeath(ledger, policy)
    heir = Housekeeping(ledger, HEIR, PACE)
    await heir.step()
    await live(heir, clock, 15)
    found = await show(ledger)
    assert (found.usd_held, found.calls[0].state) == (usd_held, state)


async def test_late_evidence_reaches_heir(ledger: Ledger, clock: Clock, store: Store) -> None:
    """A bill that comes while the heir waits is counted, and nothing is presumed any more."""
    await bequeath(ledger)
    heir = Housekeeping(ledger, HEIR, PACE)
    await heir.step()
    await live(heir, clock, 5)
    await ledger.post(TASK, CALL, 7, 1)
    await live(heir, clock, 10)
    assert store.window("everyone", "total") == {"usd_posted": 7, "images_posted": 1}
    assert await ledger.holds() == []


async def test_two_heirs_take_once(ledger: Ledger, clock: Clock, store: Store) -> None:
    """Of several workers that find a dead one's task, one becomes its owner."""
    await bequeath(ledger)
    adopter = [Housekeeping(ledger, make_id("worker", number), PACE) for number in (2, 3, 4)]
    await asyncio.gather(*(heir.step() for heir in adopter))
    clock.now += 2 * SECOND
    await asyncio.gather(*(heir.step() for heir in adopter))
    assert (await show(ledger)).fence == 2
    assert store.window("everyone", "total") == {"usd_held": 10, "images_held": 1}


async def test_any_number_is_inherited(ledger: Ledger, clock: Clock, store: Store) -> None:
    """All that a worker left is taken over in one step, however much that is."""
    await ledger.renew(DEAD, PACE.lease_us)
    await asyncio.gather(*(ledger.open(make_opening(number, worker=DEAD)) for number in range(250)))
    heir = Housekeeping(ledger, HEIR, PACE)
    await heir.step()
    await live(heir, clock, 2)
    assert await ledger.holds() == []
    assert store.window("everyone", "total") == {}


async def test_living_worker_keeps_its_task(ledger: Ledger, clock: Clock) -> None:
    """A task whose worker renews stays its own, and what the process still works on is left alone."""
    await ledger.open(make_opening(1, worker=HEIR))
    assert await ledger.mark_sent(TASK, CALL, [0], 10, 1) is LedgerAnswer.HELD
    keeper, other = Housekeeping(ledger, HEIR, PACE, runs=lambda _: True), Housekeeping(ledger, DEAD, PACE)
    await keeper.step()
    await other.step()
    for _ in range(15):
        await live(keeper, clock, 1)
        await other.step()
    found = await show(ledger)
    assert (found.worker, found.state, found.calls[0].state) == (HEIR, "open", LedgerAnswer.HELD)


async def test_forgotten_task_is_closed(ledger: Ledger, clock: Clock) -> None:
    """A task of this process whose end could not be written down releases its money in the end."""
    await ledger.open(make_opening(1, worker=HEIR))
    keeper = Housekeeping(ledger, HEIR, PACE)
    await live(keeper, clock, 11)
    assert (await show(ledger)).is_open
    await live(keeper, clock, 2)
    assert (await show(ledger)).usd_held == 0


async def test_nobody_adopts_after_outage(valkey: Valkey, ledger: Ledger, clock: Clock) -> None:
    """After Redis was away nobody is taken for dead for a lease and the grace: the living could not renew either."""
    heir = Housekeeping(ledger, HEIR, PACE)
    await live(heir, clock, 3)
    await bequeath(ledger)
    valkey.kill()
    await live(heir, clock, 1)
    valkey.start()
    clock.now += 5 * SECOND
    await heir.step()
    await live(heir, clock, 2)
    assert (await show(ledger)).worker == DEAD
    await live(heir, clock, 1)
    assert (await show(ledger)).worker == HEIR


async def test_nobody_adopts_from_accepted_store(valkey: Valkey, ledger: Ledger, clock: Clock) -> None:
    """In a store that was put back and accepted every lease is old: nobody is taken for dead before a lease is over."""
    witnessed, command_queue = make_ledger(valkey.url, clock, StoreEpoch(HEIR))
    heir = Housekeeping(witnessed, HEIR, PACE)
    await live(heir, clock, 3)
    await ledger.open(make_opening(1, worker=DEAD))
    clock.now += SECOND
    await ledger.accept(make_id("epoch", 2))
    await live(heir, clock, 2)
    assert (await show(ledger)).worker == DEAD
    await live(heir, clock, 1)
    assert (await show(ledger)).worker == HEIR
    await command_queue.aclose()


async def test_old_tasks_are_folded(ledger: Ledger, clock: Clock) -> None:
    """What is over is folded after its time."""
    heir = Housekeeping(ledger, HEIR, PACE)
    await ledger.open(make_opening(1))
    await ledger.close(TASK, 1)
    await heir.step()
    clock.now += 59 * SECOND
    await heir.step()
    assert await ledger.show(TASK)
    clock.now += SECOND
    await heir.step()
    assert await ledger.show(TASK) is None


async def test_lease_is_kept_until_stop(valkey: Valkey, store: Store) -> None:
    """From the start on there is a lease, prolonged until the stop, over an outage of Redis and without a restart."""
    ledger, command_queue = make_ledger(valkey.url, None)
    heir = Housekeeping(ledger, HEIR, Pace(call_timeout_s=1, lease_s=0.15))
    await heir.start()
    first = store.command("ZSCORE", "{igw}:leases", HEIR)
    assert first

    async def prolonged() -> None:
        while store.command("ZSCORE", "{igw}:leases", HEIR) <= first:
            await asyncio.sleep(0.01)

    async with asyncio.timeout(5):
        await prolonged()
        valkey.kill()
        await heir.step()
        valkey.start()
        first = store.command("ZSCORE", "{igw}:leases", HEIR)
        await prolonged()
    await heir.stop()
    await command_queue.aclose()


async def test_lost_store_is_taken_up_again(valkey: Valkey, clock: Clock, store: Store) -> None:
    """A worker whose store was emptied renews again, by itself, when an operator has accepted it."""
    ledger, command_queue = make_ledger(valkey.url, clock, StoreEpoch(HEIR))
    heir = Housekeeping(ledger, HEIR, PACE)
    await heir.step()
    store.command("FLUSHALL")
    await live(heir, clock, 2)
    assert store.read() == {}
    await ledger.accept(make_id("epoch", 2))
    await live(heir, clock, 1)
    assert store.command("ZSCORE", "{igw}:leases", HEIR)
    assert isinstance(await ledger.open(make_opening(1)), Admitted)
    await command_queue.aclose()


async def test_heir_tells_what_became(ledger: Ledger, clock: Clock) -> None:
    """The history hears of a dead worker's task when it is taken over, and again when its call is settled."""
    await bequeath(ledger)
    told: list[Hold] = []

    class Listener(Adopter):
        async def tell(self, hold: Hold) -> None:
            told.append(hold)

    heir = Housekeeping(ledger, HEIR, PACE, adopter=Listener())
    await heir.step()
    await live(heir, clock, 30)
    # Once more when it is let go of: whoever settled it may have been kept from telling.
    states = [[call.state for call in hold.calls] for hold in told]
    assert states == [[LedgerAnswer.HELD], [LedgerAnswer.PRESUMED], [LedgerAnswer.PRESUMED]]
    records = [describe_hold(hold) for hold in told[:2]]
    assert [record.price_settled for record in records] == [0, 10]
    assert records[0].merged(records[1]).is_presumed


async def test_proven_death_needs_no_lease(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    """A worker of the same instance whose lock is free is inherited from at the first step, and nobody else is."""
    await bequeath(ledger)
    other = make_id("worker", 3)
    await ledger.renew(other, SECOND // 2)
    await ledger.open(make_opening(2, worker=other))
    former, worker_locks = (WorkerLocks(tmp_path, worker) for worker in (DEAD, HEIR))
    former.acquire()
    worker_locks.acquire()
    heir = Housekeeping(ledger, HEIR, PACE, worker_locks=worker_locks)
    await live(heir, clock, 1)
    assert (await show(ledger)).worker == DEAD
    former.release()
    await heir.step()
    assert (await show(ledger)).worker == HEIR
    left = await ledger.show(make_id("task", 2))
    assert left
    assert left.worker == other
    worker_locks.release()
