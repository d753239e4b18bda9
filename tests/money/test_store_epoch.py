"""A store that forgot: spending closes for every process that knew better, until an operator has looked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gateway.money.audit import Audit
from gateway.money.ledger import Ledger, StoreEpoch
from gateway.money.ledger_results import Admitted, LedgerAnswer, LedgerLost
from gateway.store.client import CommandQueue, StoreUnavailable, connect
from gateway.store.windows import Calendar
from tests.conftest import Valkey
from tests.support.ledgers import DAY, SECOND, ZONE, Clock, Store, make_id, make_opening, scripts

pytestmark = pytest.mark.quiet_store

TASK, CALL, LEASE = make_id("task", 1), make_id("call", 1), 15 * SECOND
WORKER, OTHER_WORKER = make_id("worker", 1), make_id("worker", 2)
LEASES, EPOCH, LOST = "{igw}:leases", "{igw}:epoch", "{igw}:lost"

Open = Callable[..., Ledger]


@pytest.fixture
async def process(valkey: Valkey, clock: Clock) -> AsyncIterator[Open]:
    """Makes the ledger of a process that remembers, with a worker and perhaps a file."""
    batchers: list[CommandQueue] = []

    def made(worker: str = WORKER, path: Path | None = None) -> Ledger:
        batchers.append(CommandQueue(valkey.url, deadline_s=60, pause_s=0.001))
        store_epoch = StoreEpoch(worker, path)
        return Ledger(batchers[-1], Calendar(ZONE), scripts=scripts(), now=clock, store_epoch=store_epoch)

    yield made
    for command_queue in batchers:
        await command_queue.aclose()


async def is_marked(valkey: Valkey) -> bool:
    """Whether an audit finds that the store lost data."""
    redis, command_queue = connect(valkey.url), CommandQueue(valkey.url)
    try:
        return await Audit(redis, command_queue).is_lost()
    finally:
        await command_queue.aclose()
        await redis.aclose()


async def lost(step: Awaitable[object]) -> bool:
    try:
        await step
    except LedgerLost:
        return True
    return False


async def test_first_spending_meets_the_store(process: Open, clock: Clock, store: Store) -> None:
    """A process spends nothing before it has a lease and knows the store's epoch."""
    assert isinstance(await process().open(make_opening(1)), Admitted)
    assert store.command("ZSCORE", LEASES, WORKER) == clock.now + LEASE
    assert store.command("EXISTS", EPOCH)


async def test_processes_share_first_epoch(process: Open, store: Store) -> None:
    """The first start on an empty store begins the epoch, and every other process takes it."""
    for worker in (WORKER, OTHER_WORKER):
        ledger = process(worker)
        await ledger.renew(worker, LEASE)
        assert isinstance(await ledger.open(make_opening(1, worker=worker)), Admitted)
    assert " created " in store.command("GET", EPOCH)


async def test_emptied_store_closes_spending(process: Open, store: Store) -> None:
    """After FLUSHALL nothing is opened, raised, sent or renewed by a process that knew the store."""
    ledger = process()
    await ledger.renew(WORKER, LEASE)
    await ledger.open(make_opening(1))
    store.command("FLUSHALL")
    assert await lost(ledger.open(make_opening(2)))
    assert await lost(ledger.raise_price(TASK, 20, 1))
    assert await lost(ledger.mark_sent(TASK, CALL, [0], 10, 1))
    assert await lost(ledger.check_store())
    assert store.read() == {}, "a refusal writes nothing"
    assert await lost(ledger.renew(WORKER, LEASE))
    assert store.command("KEYS", "*") == [LOST], "the audit must know"


async def test_check_agrees_with_spending(process: Open, clock: Clock, store: Store) -> None:
    """The check passes where a task would be opened, and takes an accepted store as a task does; it writes nothing."""
    ledger = process()
    await ledger.check_store()
    await ledger.renew(WORKER, LEASE)
    before = store.read()
    await ledger.check_store()
    assert store.read() == before
    store.command("DEL", EPOCH)
    assert await lost(ledger.check_store())
    clock.now += SECOND
    await ledger.accept(make_id("epoch", 5))
    await ledger.check_store()
    assert isinstance(await ledger.open(make_opening(1)), Admitted)


async def test_mark_lasts_until_accepted(process: Open, clock: Clock, store: Store, valkey: Valkey) -> None:
    """A process that misses data marks the store for the audit, until an operator accepts it; none marks it later."""
    ledger = process()
    await ledger.renew(WORKER, LEASE)
    assert not await is_marked(valkey)
    store.command("FLUSHALL")
    assert await lost(ledger.renew(WORKER, LEASE))
    assert await is_marked(valkey)
    other = process(OTHER_WORKER)
    await other.renew(OTHER_WORKER, LEASE)
    assert not await is_marked(valkey), "the store of a new process is another one"
    assert await lost(ledger.renew(WORKER, LEASE))
    assert await is_marked(valkey), "the old process still misses its data"
    clock.now += SECOND
    await other.accept(make_id("epoch", 5))
    for each, worker in ((ledger, WORKER), (other, OTHER_WORKER)):
        await each.renew(worker, LEASE)
    assert not await is_marked(valkey)
    assert not store.command("EXISTS", LOST)


async def test_other_store_closes_spending(process: Open, store: Store) -> None:
    """A store that somebody else began anew is not taken for the one that was known."""
    ledger, other = process(), process(OTHER_WORKER)
    await ledger.renew(WORKER, LEASE)
    store.command("FLUSHALL")
    await other.renew(OTHER_WORKER, LEASE)
    assert await lost(ledger.renew(WORKER, LEASE))
    assert await lost(ledger.open(make_opening(1)))


async def test_accepted_store_is_used_again(process: Open, clock: Clock, store: Store) -> None:
    """After an operator has accepted it, running processes go on without a restart."""
    ledger, operator = process(), process(OTHER_WORKER)
    await ledger.renew(WORKER, LEASE)
    store.command("FLUSHALL")
    assert await lost(ledger.open(make_opening(1)))
    clock.now += SECOND
    for _ in range(2):
        await operator.accept(make_id("epoch", 5))
    assert isinstance(await ledger.open(make_opening(1)), Admitted)
    assert store.command("ZSCORE", LEASES, WORKER) == clock.now + LEASE, "or its task would be an orphan"
    await ledger.renew(WORKER, LEASE)


async def test_old_copy_closes_spending(process: Open, clock: Clock, store: Store) -> None:
    """A store that is put back by more than one renewal is noticed by the worker's own lease, and can be accepted."""
    ledger = process()
    ends = []
    for _ in range(3):
        ends.append((await ledger.renew(WORKER, LEASE)).stop)
        clock.now += 5 * SECOND
    store.command("ZADD", LEASES, str(ends[1]), WORKER)
    assert isinstance(await ledger.open(make_opening(1)), Admitted)  # a fail-over lost one renewal
    store.command("ZADD", LEASES, str(ends[0]), WORKER)
    assert await lost(ledger.open(make_opening(2)))
    assert await lost(ledger.renew(WORKER, LEASE))
    assert await ledger.close(TASK, 1) is LedgerAnswer.CLOSED
    await ledger.accept(make_id("epoch", 5))
    await ledger.renew(WORKER, LEASE)
    assert isinstance(await ledger.open(make_opening(2)), Admitted)


async def test_old_acceptance_accepts_nothing(process: Open, clock: Clock, store: Store) -> None:
    """A copy from before the present epoch brings an acceptance along that was meant for another loss."""
    ledger = process()
    await ledger.renew(WORKER, LEASE)
    await ledger.accept(make_id("epoch", 1))
    old = store.command("GET", EPOCH)
    clock.now += SECOND
    assert await lost(ledger.open(make_opening(1)))
    await ledger.accept(make_id("epoch", 2))
    await ledger.renew(WORKER, LEASE)
    store.command("SET", EPOCH, old)
    assert await lost(ledger.renew(WORKER, LEASE))


async def test_slow_clock_loses_nothing(process: Open, clock: Clock) -> None:
    """A fail-over to a server whose clock is behind closes nothing."""
    ledger = process()
    for step in (5, 5, -20, 5, 5):
        await ledger.renew(WORKER, LEASE)
        assert isinstance(await ledger.open(make_opening(1)), Admitted)
        clock.now += step * SECOND


async def test_long_sleep_loses_nothing(process: Open, clock: Clock) -> None:
    """A worker that was asleep for two days, while its lease was forgotten, goes on."""
    ledger, other = process(), process(OTHER_WORKER)
    for _ in range(2):
        await ledger.renew(WORKER, LEASE)
    clock.now += 2 * DAY
    await other.renew(OTHER_WORKER, LEASE)
    assert isinstance(await ledger.open(make_opening(1)), Admitted)
    await ledger.renew(WORKER, LEASE)


async def test_folder_remembers_epoch(process: Open, store: Store, clock: Clock, tmp_path: Path) -> None:
    """A data folder knows its ledger over restarts: an emptied store beside it closes spending until accepted."""
    path = tmp_path / "ledger.id"
    await process(path=path).renew(WORKER, LEASE)
    kept = path.read_text()
    assert kept == store.command("GET", EPOCH)
    assert path.stat().st_mode & 0o777 == 0o600
    await process(path=path).renew(WORKER, LEASE)
    store.command("FLUSHALL")
    restarted = process(OTHER_WORKER, path)
    assert await lost(restarted.renew(OTHER_WORKER, LEASE))
    assert await lost(restarted.open(make_opening(1)))
    assert path.read_text() == kept
    clock.now += SECOND
    await restarted.accept(make_id("epoch", 5))
    await restarted.renew(OTHER_WORKER, LEASE)
    assert path.read_text() == store.command("GET", EPOCH) != kept
    await process(WORKER, path).renew(WORKER, LEASE)


async def test_unreadable_memory_closes_spending(process: Open, tmp_path: Path) -> None:
    """A file that says nothing sensible is not taken for a new folder's; one that cannot be written spends nothing."""
    path = tmp_path / "ledger.id"
    path.write_text("?")
    assert await lost(process(path=path).renew(WORKER, LEASE))
    homeless = process(path=Path("/proc/nowhere/ledger.id"))
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        await homeless.renew(WORKER, LEASE)
    with pytest.raises(StoreUnavailable):
        await homeless.open(make_opening(1))


async def test_check_finds_a_full_store(process: Open, store: Store) -> None:
    """A store that is full fails the check, as it would refuse a task, and passes once it has room."""
    ledger = process()
    await ledger.renew(WORKER, LEASE)
    store.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable):
            await ledger.check_store()
    finally:
        store.command("CONFIG", "SET", "maxmemory", "0")
    await ledger.check_store()
