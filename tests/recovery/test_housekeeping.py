"""The ledger's housekeeping: a lease that lasts, and an adopter for the tasks of a dead worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typing_extensions import override

from gateway.history.record import describe_hold
from gateway.money.ledger import Ledger, StoreEpoch
from gateway.money.ledger_results import Admitted, HeldCall, Hold, LedgerAnswer, Policy, Retention
from gateway.process.periodic import PeriodicStep
from gateway.process.worker_locks import WorkerLocks
from gateway.recovery.housekeeping import Housekeeping, OwnWork, Pace
from tests.conftest import Valkey
from tests.support.ledgers import SECOND, Clock, Store, make_id, make_ledger, make_opening

LEASES = "{igw}:leases"
TASK, CALL = make_id("task", 1), make_id("call", 1)
DEAD, ADOPTER = make_id("worker", 1), make_id("worker", 2)
PACE = Pace(call_timeout_s=10, lease_s=2, grace_s=1, retention=Retention(ended_s=60))

pytestmark = pytest.mark.quiet_store


class Bystander:
    """An adopter that does nothing: every task waits for its time."""

    async def collect(self, hold: Hold) -> Collection[str]:
        return ()

    async def find_timeouts(self, calls: Sequence[str]) -> Mapping[str, float]:
        return {}

    async def give_up(self, hold: Hold, call: HeldCall) -> None: ...

    async def end(self, hold: Hold) -> None: ...

    async def end_closed(self, holds: Sequence[Hold]) -> None: ...


async def leave_task(ledger: Ledger, policy: Policy = "presume") -> None:
    """A worker marks one call of a task of three images, and dies."""
    await ledger.renew(DEAD, PACE.lease_us)
    assert isinstance(await ledger.open(make_opening(1, images=3, worker=DEAD)), Admitted)
    assert await ledger.mark_sent(TASK, CALL, [0], 10, 1, policy) is LedgerAnswer.HELD


async def live(adopter: Housekeeping, clock: Clock, seconds: int) -> None:
    """A step each second."""
    for _ in range(seconds):
        clock.now += SECOND
        await adopter.step()


async def show(ledger: Ledger) -> Hold:
    found = await ledger.show(TASK)
    assert found
    return found


async def test_adopter_frees_what_was_not_sent(ledger: Ledger, clock: Clock) -> None:
    """When the lease has ended, unsent slots are free again, and the sent one waits for its answer."""
    await leave_task(ledger)
    adopter = Housekeeping(ledger, ADOPTER, PACE, Bystander())
    await adopter.step()
    await live(adopter, clock, 1)
    assert (await show(ledger)).worker == DEAD
    await live(adopter, clock, 1)
    found = await show(ledger)
    assert (found.worker, found.state, found.usd_held, found.free) == (ADOPTER, "closed", 10, 0)


async def test_adopter_presumes_after_timeout(ledger: Ledger, clock: Clock, store: Store) -> None:
    """A sent call is presumed paid once its time-out and a lease have passed, not before, and once."""
    await leave_task(ledger)
    adopter = Housekeeping(ledger, ADOPTER, PACE, Bystander())
    await adopter.step()
    await live(adopter, clock, 11)
    assert (await show(ledger)).calls[0].state is LedgerAnswer.HELD
    await live(adopter, clock, 1)
    assert (await show(ledger)).calls[0].state is LedgerAnswer.PRESUMED
    await live(adopter, clock, 2)
    assert store.window("everyone", "total") == {"usd_presumed": 10, "images_presumed": 1}


@pytest.mark.parametrize(("policy", "usd_held", "state"), [("release", 0, "void"), ("hold", 10, "held")])
async def test_adopter_keeps_policy(policy: Policy, usd_held: int, state: str, ledger: Ledger, clock: Clock) -> None:
    """Where an upstream's policy says so, the price is given back, or stays held until an operator decides."""
    await leave_task(ledger, policy)
    adopter = Housekeeping(ledger, ADOPTER, PACE, Bystander())
    await adopter.step()
    await live(adopter, clock, 15)
    found = await show(ledger)
    assert (found.usd_held, found.calls[0].state) == (usd_held, state)


async def test_late_evidence_reaches_adopter(ledger: Ledger, clock: Clock, store: Store) -> None:
    """A bill that comes while the adopter waits is counted, and nothing is presumed any more."""
    await leave_task(ledger)
    adopter = Housekeeping(ledger, ADOPTER, PACE, Bystander())
    await adopter.step()
    await live(adopter, clock, 5)
    await ledger.post(TASK, CALL, 7, 1)
    await live(adopter, clock, 10)
    assert store.window("everyone", "total") == {"usd_posted": 7, "images_posted": 1}
    assert await ledger.holds() == []


async def test_two_adopters_take_once(ledger: Ledger, clock: Clock, store: Store) -> None:
    """Of several workers that find a dead one's task, one becomes its owner."""
    await leave_task(ledger)
    several = [Housekeeping(ledger, make_id("worker", number), PACE, Bystander()) for number in (2, 3, 4)]
    await asyncio.gather(*(adopter.step() for adopter in several))
    clock.now += 2 * SECOND
    await asyncio.gather(*(adopter.step() for adopter in several))
    assert (await show(ledger)).fence == 2
    assert store.window("everyone", "total") == {"usd_held": 10, "images_held": 1}


async def test_any_number_is_adopted(ledger: Ledger, clock: Clock, store: Store) -> None:
    """All that a worker left is taken over in one step, however much that is."""
    await ledger.renew(DEAD, PACE.lease_us)
    await asyncio.gather(*(ledger.open(make_opening(number, worker=DEAD)) for number in range(250)))
    adopter = Housekeeping(ledger, ADOPTER, PACE, Bystander())
    await adopter.step()
    await live(adopter, clock, 2)
    assert await ledger.holds() == []
    assert store.window("everyone", "total") == {}


async def test_living_worker_keeps_its_task(ledger: Ledger, clock: Clock) -> None:
    """A task whose worker renews stays its own, and what the process still works on is not touched."""
    await ledger.open(make_opening(1, worker=ADOPTER))
    assert await ledger.mark_sent(TASK, CALL, [0], 10, 1) is LedgerAnswer.HELD
    keeper = Housekeeping(ledger, ADOPTER, PACE, Bystander(), own=OwnWork(runs=lambda _: True))
    other = Housekeeping(ledger, DEAD, PACE, Bystander())
    await keeper.step()
    await other.step()
    for _ in range(15):
        await live(keeper, clock, 1)
        await other.step()
    found = await show(ledger)
    assert (found.worker, found.state, found.calls[0].state) == (ADOPTER, "open", LedgerAnswer.HELD)


async def test_lease_is_renewed_once_departures_are_recorded(ledger: Ledger, store: Store) -> None:
    """A worker renews its lease once the ledger knows of the callers that disconnected: a retry relies on it."""
    known, asked = asyncio.Event(), asyncio.Event()

    async def record_departures(_: float) -> bool:
        asked.set()
        return await known.wait()

    keeper = Housekeeping(ledger, ADOPTER, PACE, Bystander(), own=OwnWork(record_departures=record_departures))
    stepping = asyncio.create_task(keeper.step())
    await asked.wait()
    # Redis answers in turn: a renewal would be seen.
    assert await ledger.show(TASK) is None
    assert store.command("ZSCORE", LEASES, ADOPTER) is None
    known.set()
    await stepping
    assert store.command("ZSCORE", LEASES, ADOPTER) is not None


async def test_lease_lasts_from_the_last_record_of_departures(ledger: Ledger, store: Store, clock: Clock) -> None:
    """A renewal while callers that disconnected are not recorded yet does not count as a sign that they are."""
    is_recorded = True

    async def record_departures(_: float) -> bool:
        return is_recorded

    work = OwnWork(record_departures=record_departures)
    keeper = Housekeeping(ledger, ADOPTER, PACE, Bystander(), own=work)
    await keeper.step()
    before, is_recorded = store.command("ZSCORE", LEASES, ADOPTER), False
    await keeper.step()
    assert store.command("ZSCORE", LEASES, ADOPTER) == before
    is_recorded = True
    clock.now += SECOND
    await keeper.step()
    assert store.command("ZSCORE", LEASES, ADOPTER) > before


async def test_lock_shows_when_departures_were_recorded(ledger: Ledger, tmp_path: Path) -> None:
    """The time of a worker's lock is when it last began to record departures with success."""
    own, other = (WorkerLocks(tmp_path / "workers", worker) for worker in (ADOPTER, DEAD))
    own.acquire()
    begun: list[int] = []
    asked = asyncio.Event()

    async def record_departures(_: float) -> bool:
        begun.append(time.time_ns())
        if len(begun) > 3:
            asked.set()
            return await asyncio.Event().wait()
        return len(begun) == 2

    keeper = Housekeeping(
        ledger, ADOPTER, PACE, Bystander(), worker_locks=own, own=OwnWork(record_departures=record_departures)
    )
    watching = PeriodicStep("watch", 0, keeper.watch_workers)
    watching.start()
    await asked.wait()
    await watching.stop()
    assert other.find_living(begun[0]) == [ADOPTER]
    assert other.find_living(begun[1]) == []
    own.release()


async def test_forgotten_task_is_closed(ledger: Ledger, clock: Clock) -> None:
    """A task of this process whose end could not be written down releases its money in the end."""
    await ledger.open(make_opening(1, worker=ADOPTER))
    keeper = Housekeeping(ledger, ADOPTER, PACE, Bystander())
    await live(keeper, clock, 11)
    assert (await show(ledger)).is_open
    await live(keeper, clock, 2)
    assert (await show(ledger)).usd_held == 0


async def test_nobody_adopts_after_outage(valkey: Valkey, ledger: Ledger, clock: Clock) -> None:
    """After Redis was away nobody is taken for dead for a lease and the grace: the living could not renew either."""
    adopter = Housekeeping(ledger, ADOPTER, PACE, Bystander())
    await live(adopter, clock, 3)
    await leave_task(ledger)
    valkey.kill()
    await live(adopter, clock, 1)
    valkey.start()
    clock.now += 5 * SECOND
    await adopter.step()
    await live(adopter, clock, 2)
    assert (await show(ledger)).worker == DEAD
    await live(adopter, clock, 1)
    assert (await show(ledger)).worker == ADOPTER


async def test_nobody_adopts_from_accepted_store(valkey: Valkey, ledger: Ledger, clock: Clock) -> None:
    """In a store that was put back and accepted every lease is old: nobody is taken for dead before a lease is over."""
    witnessed, command_queue = make_ledger(valkey.url, clock, StoreEpoch(ADOPTER))
    adopter = Housekeeping(witnessed, ADOPTER, PACE, Bystander())
    await live(adopter, clock, 3)
    await ledger.open(make_opening(1, worker=DEAD))
    clock.now += SECOND
    await ledger.accept(make_id("epoch", 2))
    await live(adopter, clock, 2)
    assert (await show(ledger)).worker == DEAD
    await live(adopter, clock, 1)
    assert (await show(ledger)).worker == ADOPTER
    await command_queue.aclose()


async def test_old_tasks_are_folded(ledger: Ledger, clock: Clock) -> None:
    """What is over is folded after its time."""
    adopter = Housekeeping(ledger, ADOPTER, PACE, Bystander())
    await ledger.open(make_opening(1))
    await ledger.close(TASK, 1)
    await adopter.step()
    clock.now += 59 * SECOND
    await adopter.step()
    assert await ledger.show(TASK)
    clock.now += SECOND
    await adopter.step()
    assert await ledger.show(TASK) is None


async def test_lease_is_kept_until_stop(valkey: Valkey, store: Store) -> None:
    """From the start on there is a lease, prolonged until the stop, over an outage of Redis and without a restart."""
    ledger, command_queue = make_ledger(valkey.url, None)
    adopter = Housekeeping(ledger, ADOPTER, Pace(call_timeout_s=1, lease_s=0.15), Bystander())
    await adopter.start()
    first = store.command("ZSCORE", "{igw}:leases", ADOPTER)
    assert first

    async def prolonged() -> None:
        while store.command("ZSCORE", "{igw}:leases", ADOPTER) <= first:
            await asyncio.sleep(0.01)

    async with asyncio.timeout(5):
        await prolonged()
        valkey.kill()
        await adopter.step()
        valkey.start()
        first = store.command("ZSCORE", "{igw}:leases", ADOPTER)
        await prolonged()
    await adopter.stop()
    await command_queue.aclose()


async def test_lost_store_is_taken_up_again(valkey: Valkey, clock: Clock, store: Store) -> None:
    """A worker whose store was emptied renews again, by itself, when an operator has accepted it."""
    ledger, command_queue = make_ledger(valkey.url, clock, StoreEpoch(ADOPTER))
    adopter = Housekeeping(ledger, ADOPTER, PACE, Bystander())
    await adopter.step()
    store.command("FLUSHALL")
    await live(adopter, clock, 2)
    # Nothing but the mark of the loss.
    assert store.read().keys() == {"{igw}:lost"}
    await ledger.accept(make_id("epoch", 2))
    await live(adopter, clock, 1)
    assert store.command("ZSCORE", "{igw}:leases", ADOPTER)
    assert isinstance(await ledger.open(make_opening(1)), Admitted)
    await command_queue.aclose()


@pytest.mark.parametrize("worker", [DEAD, ADOPTER])
async def test_call_waits_for_its_own_upstream(ledger: Ledger, clock: Clock, worker: str) -> None:
    """Money of a lost answer is held as long as its own upstream may answer, not as long as the slowest may."""
    timeouts = {CALL: 4.0}

    class Knowing(Bystander):
        @override
        async def find_timeouts(self, calls: Sequence[str]) -> Mapping[str, float]:
            return {call: timeouts[call] for call in calls if call in timeouts}

    await ledger.renew(worker, PACE.lease_us)
    await ledger.open(make_opening(1, images=2, worker=worker))
    other = make_id("call", 2)
    assert await ledger.mark_sent(TASK, CALL, [0], 10, 1) is LedgerAnswer.HELD
    assert await ledger.mark_sent(TASK, other, [1], 10, 1) is LedgerAnswer.HELD
    adopter = Housekeeping(ledger, ADOPTER, replace(PACE, quickest_s=4), Knowing())
    await live(adopter, clock, 5)
    assert {call.state for call in (await show(ledger)).calls} == {LedgerAnswer.HELD}
    await live(adopter, clock, 2)
    states = {call.call: call.state for call in (await show(ledger)).calls}
    assert states == {CALL: LedgerAnswer.PRESUMED, other: LedgerAnswer.HELD}
    await live(adopter, clock, 6)
    assert {call.state for call in (await show(ledger)).calls} == {LedgerAnswer.PRESUMED}


async def test_adopter_tells_what_became(ledger: Ledger, clock: Clock) -> None:
    """A dead worker's task is ended when it is adopted, and again when its call is settled."""
    await leave_task(ledger)
    told: list[Hold] = []

    class Listener(Bystander):
        @override
        async def end(self, hold: Hold) -> None:
            told.append(hold)

    adopter = Housekeeping(ledger, ADOPTER, PACE, Listener())
    await adopter.step()
    await live(adopter, clock, 30)
    # Once more in the last step: a settlement may not have been followed by its end.
    states = [[call.state for call in hold.calls] for hold in told]
    assert states == [[LedgerAnswer.HELD], [LedgerAnswer.PRESUMED], [LedgerAnswer.PRESUMED]]
    records = [describe_hold(hold) for hold in told[:2]]
    assert [record.price_settled for record in records] == [0, 10]
    assert records[0].merged(records[1]).is_presumed


async def test_proven_death_needs_no_lease(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    """A worker of the same instance whose lock is free loses its tasks at the first step, and nobody else is."""
    await leave_task(ledger)
    other = make_id("worker", 3)
    await ledger.renew(other, SECOND // 2)
    await ledger.open(make_opening(2, worker=other))
    former, worker_locks = (WorkerLocks(tmp_path, worker) for worker in (DEAD, ADOPTER))
    former.acquire()
    worker_locks.acquire()
    adopter = Housekeeping(ledger, ADOPTER, PACE, Bystander(), worker_locks=worker_locks)
    await live(adopter, clock, 1)
    assert (await show(ledger)).worker == DEAD
    former.release()
    await adopter.step()
    assert (await show(ledger)).worker == ADOPTER
    left = await ledger.show(make_id("task", 2))
    assert left
    assert left.worker == other
    worker_locks.release()
