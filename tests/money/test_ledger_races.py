"""Many at once, and answers that never arrive: the same ids make the same ledger."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager

import pytest

from gateway.ids import new_id
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Admitted, LedgerAnswer, Opening, OverLimit, Scope
from tests.conftest import Valkey
from tests.support.ledgers import (
    DAY,
    FINGERPRINT,
    HOUR,
    SECOND,
    Clock,
    Store,
    at,
    is_soak,
    make_id,
    make_ledger,
    make_opening,
)
from tests.support.lossy_proxy import LossyProxy, lossy_proxy

pytestmark = pytest.mark.quiet_store

PROCESSES, TRIES = (8, 500) if is_soak() else (4, 250)
FOR_EVER_S = 3600


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Processes of their own, which share nothing with this one but the server."""
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def race(url: str, number: int, price: int) -> Counter[str]:
    """Try to spend from one process as fast as it can; returns the number of answers of each class."""
    return asyncio.run(_race(url, number, price))


async def _race(url: str, number: int, price: int) -> Counter[str]:
    # The processes wait for one server, as long as that takes: a deadline would bind the race to the machine's speed.
    ledger, command_queue = make_ledger(url, None, deadline_s=FOR_EVER_S)
    key, worker = make_id("key", number), make_id("worker", number)
    answers = await asyncio.gather(
        *(ledger.open(Opening(new_id("task"), key, FINGERPRINT, price, 1, worker, "design")) for _ in range(TRIES))
    )
    await command_queue.aclose()
    return Counter(type(each).__name__ for each in answers)


@pytest.mark.parametrize("seed", range(20 if is_soak() else 1))
async def test_racing_processes_fill_exactly(
    seed: int, ledger: Ledger, valkey: Valkey, processes: ProcessPoolExecutor
) -> None:
    """L7: processes that try hundreds of times each to spend from one limit are let exactly as often as it holds."""
    chance = random.Random(seed)
    price, room = chance.randint(1, 99_999), chance.randint(100, PROCESSES * TRIES - 100)
    ceiling = room * price + chance.randrange(price)
    scope = chance.choice([Scope(), Scope(team="design")])
    await ledger.set_limit(make_id("change", 1), scope, "usd_total", ceiling)
    loop = asyncio.get_running_loop()
    counts = await asyncio.gather(
        *(loop.run_in_executor(processes, race, valkey.url, number, price) for number in range(PROCESSES)),
        # None may go on after a failure of another: it would spend in the next test.
        return_exceptions=True,
    )
    failures = [each for each in counts if isinstance(each, BaseException)]
    if failures:
        raise failures[0]
    assert sum(counts, Counter[str]()) == {"Admitted": room, "OverLimit": PROCESSES * TRIES - room}


async def test_slow_race_joins_nothing(ledger: Ledger, clock: Clock) -> None:
    """Equal requests of one worker are tasks of their own at any speed, though nobody renews the worker's lease."""
    for number in range(1, 5):
        assert isinstance(await ledger.open(make_opening(number, orphans=DAY)), Admitted)
        clock.now += HOUR


async def test_racing_copies_are_one(ledger: Ledger, store: Store) -> None:
    """The same opening many times at once holds its price once."""
    answers = await asyncio.gather(*(ledger.open(make_opening(1)) for _ in range(50)))
    assert all(isinstance(each, Admitted) for each in answers)
    assert store.window("everyone", "total") == {"usd_held": 10, "images_held": 1}


async def test_racing_calls_get_one_slot(ledger: Ledger) -> None:
    """L9: of many calls that want the last slot at once, one is sent."""
    await ledger.open(make_opening(1))
    asked = [ledger.mark_sent(make_id("task", 1), make_id("call", number), [0], 10, 1) for number in range(50)]
    verdicts = await asyncio.gather(*asked)
    assert sorted(verdicts) == [LedgerAnswer.HELD] + [LedgerAnswer.TAKEN] * 49


@asynccontextmanager
async def behind_proxy(valkey: Valkey, clock: Clock, every: int) -> AsyncIterator[tuple[Ledger, LossyProxy]]:
    """A ledger some of whose answers are lost on the way."""
    outside = valkey.folder / "door.sock"
    async with lossy_proxy(valkey.socket, outside, every) as proxy:
        ledger, command_queue = make_ledger(f"unix://{outside}", clock)
        yield ledger, proxy
        await command_queue.aclose()


async def live(ledger: Ledger, clock: Clock, seed: int) -> list[object]:
    """Sixty tasks' whole lives, the same for the same seed."""
    chance = random.Random(seed)
    heard: list[object] = [await ledger.set_limit(make_id("change", 1), Scope(), "usd_total", 900)]
    for number in range(60):
        clock.now += chance.choice([1, SECOND])
        task, call = make_id("task", number), make_id("call", number)
        answer = await ledger.open(make_opening(number, images=2))
        heard.append(answer if isinstance(answer, OverLimit) else None)
        steps: list[Callable[[], Awaitable[object]]] = [
            lambda: ledger.raise_price(task, 15, 1),  # noqa: B023 - run before the next turn
            lambda: ledger.mark_sent(task, call, [0], 10, 1),  # noqa: B023
            lambda: ledger.nack(task, call),  # noqa: B023
            lambda: ledger.post(task, call, 9, 1),  # noqa: B023
            lambda: ledger.presume(task, call, 1),  # noqa: B023
            lambda: ledger.close(task, 1),  # noqa: B023
        ]
        heard += [await steps[step]() for step in sorted(chance.sample(range(6), 4))]
    return heard


async def test_lost_answers_change_nothing(valkey: Valkey, store: Store) -> None:
    """L10: with every third answer lost the same is heard in the end, and the same is stored."""
    found = []
    for every in (0, 3):
        valkey.flush()
        clock = Clock(at("2026-11-04T12:00:00"))
        async with behind_proxy(valkey, clock, every) as (ledger, proxy):
            heard = await live(ledger, clock, seed=7)
        found.append((heard, store.read()))
        assert proxy.lost == (proxy.answers // every if every else 0)
    assert proxy.lost >= 100
    assert found[0] == found[1]
