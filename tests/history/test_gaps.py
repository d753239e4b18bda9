"""What the ledger counted is explained even when the process that spent it died before it could tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from gateway.history.gaps import GRACE, Gaps
from gateway.history.record import Record, Sums, describe_hold, record_id
from gateway.ids import new_id
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Admitted, Hold
from tests.conftest import Valkey
from tests.support.histories import NOON, Books, make_call, make_record, open_books
from tests.support.ledgers import DAY, MINUTE, SECOND, Clock, make_id, make_ledger, make_opening

pytestmark = pytest.mark.quiet_store

CALL = make_id("call", 1)


@dataclass
class Scene:
    """A ledger, a history and the look from one to the other, with one clock."""

    clock: Clock
    ledger: Ledger
    books: Books
    gaps: Gaps
    told: list[Record]

    async def spend(self) -> str:
        """A task of one image that is paid for and over; its id."""
        task = new_id("task", at=self.clock.now / SECOND)
        opening = replace(make_opening(1, price=10), task=task)
        assert isinstance(await self.ledger.open(opening), Admitted)
        await self.ledger.mark_sent(task, CALL, [0], 10, 1)
        await self.ledger.post(task, CALL, 7, 1)
        await self.ledger.close(task, 1)
        return task


async def describe(hold: Hold) -> Record:
    return describe_hold(hold)


@pytest.fixture
async def scene(valkey: Valkey) -> AsyncIterator[Scene]:
    clock = Clock(NOON)
    ledger, command_queue = make_ledger(valkey.url, clock)
    try:
        await ledger.renew(make_id("worker", 1), MINUTE)
        async with open_books(valkey.url) as books:
            told: list[Record] = []
            gaps = Gaps(books.redis, ledger, books.history, told.append, describe=describe, now=clock)
            yield Scene(clock, ledger, books, gaps, told)
    finally:
        await command_queue.aclose()


async def test_lost_record_is_told(scene: Scene) -> None:
    """A paid task without a record gets one from the ledger, with its price, and the sums move once."""
    task = await scene.spend()
    assert await scene.gaps.fill() == 0
    scene.clock.now += GRACE + SECOND
    assert await scene.gaps.fill() == 1
    (record,) = scene.told
    assert (record.id, record.price_settled, record.n_delivered) == (record_id(task), 7, 1)
    await scene.books.history.write(record)
    scene.clock.now += SECOND
    assert await scene.gaps.fill() == 0
    report = await scene.books.usage.sum(NOON, NOON + 1)
    assert report.total == Sums(requests=1, images=1, errors=1, usd=7)


async def test_told_work_is_left_alone(scene: Scene) -> None:
    """A task that has its record is not told again, and neither is one that cost nothing."""
    task = await scene.spend()
    await scene.books.history.write(make_record(id=record_id(task), task=task, calls=(make_call(usd=7),)))
    await scene.ledger.close(new_id("task", at=NOON / SECOND), 1)
    scene.clock.now += GRACE + SECOND
    assert await scene.gaps.fill() == 0


async def test_older_work_is_left_alone(scene: Scene) -> None:
    """Work of days ago is not told again, for its record may be over."""
    await scene.spend()
    scene.clock.now += DAY + SECOND
    assert await scene.gaps.fill() == 0


async def test_every_task_is_looked_at(scene: Scene) -> None:
    """However many ended, each gap is found, and found once more until it is written."""
    tasks = [await scene.spend() for _ in range(12)]
    scene.clock.now += GRACE + SECOND
    assert await scene.gaps.fill() == 12
    assert {record.task for record in scene.told} == set(tasks)
    assert await scene.gaps.fill() == 12
