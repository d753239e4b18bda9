"""The audit: silent about any history, and able to make whole what was damaged, while traffic goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.money.audit import DEADLINE_S, Audit
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import AMOUNTS, Admitted, LedgerAnswer, Retention, Scope
from gateway.store.client import CommandQueue, StoreClient
from tests.conftest import Valkey
from tests.support.ledgers import DAY, SECOND, Clock, Store, is_soak, make_id, make_opening, scripts

pytestmark = pytest.mark.quiet_store

TASK, CALL, KEY = make_id("task", 1), make_id("call", 1), make_id("key", 1)
WORKER = make_id("worker", 1)
TEAMS = ("", "design", "art: and more")


@pytest.fixture
async def audit(valkey: Valkey, redis: StoreClient, clock: Clock) -> AsyncIterator[Audit]:
    command_queue = CommandQueue(valkey.url, deadline_s=DEADLINE_S)
    yield Audit(redis, command_queue, scripts=scripts(), now=clock)
    await command_queue.aclose()


async def live(ledger: Ledger, clock: Clock, chance: random.Random, tasks: int = 25) -> None:
    """Tasks of three teams over several days, in every state; some folded, some of the journal trimmed."""
    for number in range(tasks):
        clock.now += chance.choice([1, SECOND, DAY // 3])
        task, call = make_id("task", number), make_id("call", number)
        key = chance.randrange(3)
        worker = make_id("worker", chance.randrange(1, 3))
        opening = make_opening(number, images=3, key=make_id("key", key), team=TEAMS[key], worker=worker)
        assert isinstance(await ledger.open(opening), Admitted)
        steps: list[Callable[[], Awaitable[object]]] = [
            lambda: ledger.mark_sent(task, call, [0, 2], 10, 1),  # noqa: B023 - run before the next turn
            lambda: ledger.nack(task, call),  # noqa: B023
            lambda: ledger.presume(task, call, 1),  # noqa: B023
            lambda: ledger.post(task, call, 9, 1),  # noqa: B023
            lambda: ledger.close(task, 1),  # noqa: B023
            lambda: ledger.adjust(make_id("change", number), Scope(team="design"), -3, "agreed"),  # noqa: B023
        ]
        for step in sorted(chance.sample(range(6), 4)):
            await steps[step]()
        if chance.random() < 0.2:
            await ledger.fold(Retention(DAY // SECOND, 2 * DAY // SECOND, DAY // SECOND))
    await ledger.close(make_id("task", 999), 1)


@pytest.mark.parametrize("seed", range(20 if is_soak() else 2))
async def test_any_history_is_right(seed: int, audit: Audit, ledger: Ledger, clock: Clock, store: Store) -> None:
    """Whatever was done, nothing is found, and looking changes nothing."""
    await live(ledger, clock, random.Random(seed))
    before = store.read()
    for repairs in (False, True):
        report = await audit.run(repairs=repairs)
        assert (report.differences, report.tasks > 0, report.entries > 0) == ((), True, True)
    assert store.read() == before


@pytest.mark.parametrize("seed", range(100 if is_soak() else 6))
async def test_damaged_sum_is_restored(seed: int, audit: Audit, ledger: Ledger, clock: Clock, store: Store) -> None:
    """One wrong number in one bucket, total or base, is found and becomes what it was."""
    chance = random.Random(seed)
    await live(ledger, clock, chance)
    before = {name: row for name, row in store.read().items() if ":window:" in name}
    place = chance.choice(sorted(before))
    name = chance.choice(AMOUNTS)
    field = chance.choice(["", "folded:", "trimmed:"]) + name
    store.command("HSET", place, field, chance.choice(["999", "-5", "8", "abc", "1.5", "9" * 30]))
    found = (await audit.run()).differences
    bucket = place.removeprefix("{igw}:window:").rpartition(":")
    assert [(each.place, each.name) for each in found] == [(f"{bucket[0]} {bucket[2]}", name)]
    assert found[0].found == (store.command("HGET", place, name) or "0")
    assert (await audit.run(repairs=True)).differences == found
    assert (await audit.run()).differences == ()
    now = store.read()
    totals = {place: [int(now[place].get(each, 0)) for each in AMOUNTS] for place in before}
    assert totals == {place: [int(before[place].get(each, 0)) for each in AMOUNTS] for place in before}
    repairs = [entry for entry in now["{igw}:journal"] if entry["kind"] == "repair"]
    assert [f"{entry['scope']} {entry['window']}" for entry in repairs] == [found[0].place]


async def break_bucket(store: Store, chance: random.Random) -> None:
    store.command(
        "DEL", chance.choice([name for name in store.read() if ":window:" in name and name.endswith("total")])
    )


async def break_task(store: Store, chance: random.Random) -> None:
    store.command("DEL", chance.choice([name for name in store.read() if ":hold:" in name]))


async def break_journal(store: Store, chance: random.Random) -> None:
    rows = store.command("XRANGE", "{igw}:journal", "-", "+")
    store.command("XDEL", "{igw}:journal", chance.choice(rows)[0])


async def break_running(store: Store, chance: random.Random) -> None:
    store.command("HINCRBY", "{igw}:running:everyone", chance.choice([WORKER, make_id("worker", 9)]), "3")


async def break_index(store: Store, chance: random.Random) -> None:
    rows = [name for name in store.read() if name in {"{igw}:open", "{igw}:ended", "{igw}:doubtful"}]
    store.command("DEL", chance.choice(rows))
    store.command("ZADD", "{igw}:doubtful", "1", make_id("task", 500), "1", make_id("task", 999))


@pytest.mark.parametrize("seed", range(20 if is_soak() else 1))
@pytest.mark.parametrize("damage", [break_bucket, break_task, break_journal, break_running, break_index])
async def test_damage_is_repaired(
    damage: Callable[[Store, random.Random], Awaitable[None]],
    seed: int,
    audit: Audit,
    ledger: Ledger,
    clock: Clock,
    store: Store,
) -> None:
    """Whatever is lost is found, and afterwards totals, tasks, journal and indexes agree; also after a fold."""
    chance = random.Random(seed)
    await live(ledger, clock, chance)
    await damage(store, chance)
    found = (await audit.run()).differences
    assert found
    assert (await audit.run(repairs=True)).differences == found
    assert (await audit.run()).differences == ()
    clock.now += 3 * DAY
    await ledger.fold(Retention(DAY // SECOND, 2 * DAY // SECOND, DAY // SECOND))
    assert (await audit.run()).differences == ()


async def test_all_damage_at_once_is_repaired(audit: Audit, ledger: Ledger, clock: Clock, store: Store) -> None:
    """Many wrongs at once end in one repair, and the ledger works on."""
    chance = random.Random(5)
    await live(ledger, clock, chance)
    for damage in (break_bucket, break_task, break_journal, break_running, break_index) * 3:
        await damage(store, chance)
    assert (await audit.run(repairs=True)).differences
    assert (await audit.run()).differences == ()
    assert isinstance(await ledger.open(make_opening(700)), Admitted)
    assert (await audit.run()).differences == ()


async def test_lost_spending_counts_as_more(audit: Audit, ledger: Ledger, store: Store) -> None:
    """Where total, tasks and journal say three things, the larger that can be accounted for is charged."""
    await ledger.open(make_opening(1))
    await ledger.mark_sent(TASK, CALL, [0], 10, 1)
    await ledger.post(TASK, CALL, 10, 1)
    store.command("HSET", "{igw}:window:everyone:total", "usd_posted", "3", "folded:usd_posted", "4")
    await audit.run(repairs=True)
    assert store.window("everyone", "total")["usd_posted"] == 14


async def test_traffic_is_no_difference(valkey: Valkey, redis: StoreClient, ledger: Ledger, clock: Clock) -> None:
    """While tasks open, settle and fold, an audit finds nothing, and repairs nothing that is right."""
    command_queue = CommandQueue(valkey.url, deadline_s=DEADLINE_S)
    audit = Audit(redis, command_queue, scripts=scripts(), now=clock)
    chance = random.Random(3)
    done = asyncio.Event()

    async def look() -> int:
        turns = 0
        while not done.is_set() or turns < 3:
            assert (await audit.run(repairs=True)).differences == ()
            turns += 1
        return turns

    looking = asyncio.create_task(look())
    await live(ledger, clock, chance, tasks=150)
    done.set()
    assert await looking >= 3
    await command_queue.aclose()


async def test_fold_passes_missing_task(ledger: Ledger, clock: Clock, store: Store) -> None:
    """A task that an index names and nobody knows does not stop the fold."""
    await ledger.open(make_opening(1))
    assert await ledger.close(TASK, 1) is LedgerAnswer.CLOSED
    store.command("ZADD", "{igw}:ended", "1", make_id("task", 5))
    clock.now += 2 * DAY
    assert await ledger.fold(Retention()) == (2, 0)


async def test_repair_tells_what_was_there(audit: Audit, ledger: Ledger, store: Store) -> None:
    """A repair's entry in the journal has the amount before and after it; an unreadable one was nothing."""
    await ledger.open(make_opening(1))
    store.command("HSET", "{igw}:window:everyone:total", "usd_held", "abc")
    await audit.run(repairs=True)
    (entry,) = [entry for entry in store.read()["{igw}:journal"] if entry["kind"] == "repair"]
    assert (entry["was:usd_held"], entry["is:usd_held"]) == ("0", "10")
