"""The sums as an operator asks for them: grouped, chosen, and over whole days."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.history.record import Sums
from gateway.history.usage import Only
from tests.conftest import Valkey
from tests.support.histories import MIDNIGHT, NOON, Books, make_call, make_record, open_books
from tests.support.ledgers import DAY, make_id

pytestmark = pytest.mark.quiet_store

ANA, BOT = make_id("key", 1), make_id("key", 2)


@pytest.fixture
async def books(valkey: Valkey) -> AsyncIterator[Books]:
    """Three requests: two of a team's key at two upstreams, one of a key without a team the day before."""
    async with open_books(valkey.url) as made:
        await made.history.write(make_record(NOON, key=ANA, team="design", calls=(make_call(1, usd=10),)))
        await made.history.write(make_record(MIDNIGHT, key=ANA, team="design", calls=(make_call(2, "apiany", usd=20),)))
        await made.history.write(make_record(MIDNIGHT - DAY, key=BOT, model="dall-e-3", status=429))
        yield made


async def test_groups_are_what_was_asked(books: Books) -> None:
    """Rows are grouped by each dimension, or several in the order asked for, and sorted."""
    expected = {
        ("day",): {("2026-11-03",): Sums(1, 0, 1, 0), ("2026-11-04",): Sums(2, 2, 0, 30)},
        ("team", "key"): {("", BOT): Sums(1, 0, 1, 0), ("design", ANA): Sums(2, 2, 0, 30)},
        ("upstream", "day"): {
            ("", "2026-11-03"): Sums(1, 0, 1, 0),
            ("anyfast", "2026-11-04"): Sums(1, 1, 0, 10),
            ("apiany", "2026-11-04"): Sums(1, 1, 0, 20),
        },
        ("model",): {("dall-e-3",): Sums(1, 0, 1, 0), ("gpt-image-2",): Sums(2, 2, 0, 30)},
        (): {(): Sums(3, 2, 1, 30)},
    }
    for by, rows in expected.items():
        report = await books.usage.sum(NOON - 2 * DAY, NOON, by)  # type: ignore[arg-type]
        assert {row.group: row.sums for row in report.rows} == rows
        assert [row.group for row in report.rows] == sorted(rows)
        assert (report.by, report.total) == (by, Sums(3, 2, 1, 30))


async def test_only_what_was_asked(books: Books) -> None:
    """Each filter leaves the lines that have its value; empty text is those that have none."""
    for only, requests in (
        (Only(key=BOT), 1),
        (Only(team="design"), 2),
        (Only(team=""), 1),
        (Only(model="dall-e-3"), 1),
        (Only(upstream="apiany"), 1),
        (Only(upstream=""), 1),
        (Only(team="design", upstream="anyfast"), 1),
        (Only(key=BOT, team="design"), 0),
    ):
        assert (await books.usage.sum(NOON - 2 * DAY, NOON, only=only)).total.requests == requests, only


async def test_days_are_whole(books: Books) -> None:
    """A day that is touched counts whole; the end is not part of the time."""
    for since, until, requests in (
        (NOON - 1, NOON, 2),
        (MIDNIGHT, MIDNIGHT + 1, 2),
        (MIDNIGHT - 1, MIDNIGHT, 1),
        (MIDNIGHT - 1, MIDNIGHT + 1, 3),
        (NOON, NOON, 0),
        (NOON, MIDNIGHT, 0),
    ):
        assert (await books.usage.sum(since, until)).total.requests == requests


async def test_nothing_is_an_empty_report(books: Books) -> None:
    """Days without a request have no row, and the total of nothing is nothing."""
    report = await books.usage.sum(0, MIDNIGHT - 2 * DAY, ("day",))
    assert (report.rows, report.total) == ((), Sums())
