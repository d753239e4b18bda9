"""Broken promises of upstreams are counted by all workers together, and never hold a request up."""

import asyncio
import itertools

import pytest
from structlog.testing import capture_logs

from gateway.health.drift import KEPT_S, Drift, DriftBook
from gateway.jobs.parameter_table import PARAMETERS, PICTURE_NAMES
from gateway.store import names
from gateway.store.client import StoreClient, connect
from tests.conftest import Valkey

pytestmark = pytest.mark.quiet_store


async def test_workers_count_together(redis: StoreClient) -> None:
    """Each broken promise has one count, the time of the last and its newest example, by upstream and parameter."""
    clock = itertools.count(1).__next__
    one, other = (DriftBook(redis, now=clock) for _ in range(2))
    one.note("apiany", "made", "size", "1024x1024 became 512x512")
    await one.outbox.aclose()
    other.note("apiany", "made", "size", "2048x2048 became 1024x1024")
    other.note("anyfast", "refused", "quality")
    await other.outbox.aclose()
    assert await one.read() == [
        Drift("anyfast", "refused", "quality", 1, 3),
        Drift("apiany", "made", "size", 2, 2, "2048x2048 became 1024x1024"),
    ]
    assert 0 < await redis.ttl(names.DRIFT()) <= KEPT_S


async def test_vendors_words_do_not_fill_the_store(redis: StoreClient) -> None:
    """A parameter that nobody knows, or none, counts as one other, and its log line has no empty fact."""
    book = DriftBook(redis)
    for number in range(100):
        book.note("openai", "refused", f"field-{number}")
    with capture_logs() as lines:
        book.note("openai", "refused", None)
    assert [(line["what"], "example" in line) for line in lines] == [("other", False)]
    await book.outbox.aclose()
    assert [(one.what, one.count) for one in await book.read()] == [("other", 101)]


async def test_every_parameter_is_counted_by_its_name(redis: StoreClient) -> None:
    """Whatever the table has, also as another name of a picture, is known: a vendor may name what it was sent."""
    known = sorted({*PARAMETERS, *PICTURE_NAMES})
    book = DriftBook(redis)
    for name in known:
        book.note("apiany", "refused", name)
    await book.outbox.aclose()
    assert [one.what for one in await book.read()] == known


async def test_counts_wait_for_an_absent_store(valkey: Valkey) -> None:
    """While the store is away nothing is lost and nobody waits; what comes meanwhile is counted too."""
    redis = connect(valkey.url, deadline_s=0.1)
    book = DriftBook(redis, pause_s=0.01)
    before = sum(one.count for one in await book.read())
    with valkey.paused():
        book.note("anyfast", "refused", "model")
        assert await book.outbox.flush(0.3) == 1
        book.note("anyfast", "refused", "model")
        assert await book.outbox.flush(0.05)
    assert await book.outbox.flush(5) == 0
    # A reply that is lost may count twice.
    assert sum(one.count for one in await book.read()) - before >= 2
    await redis.aclose()


async def test_cleared_upstream_begins_anew(redis: StoreClient) -> None:
    """An operator who put the catalogue right forgets what was counted of that upstream alone."""
    book = DriftBook(redis)
    book.note("one", "made", "size", "1024x1024 became 512x512")
    book.note("other", "made", "size")
    await book.outbox.aclose()
    await asyncio.gather(book.clear("one"), book.clear("nobody"))
    assert [drift.upstream for drift in await book.read()] == ["other"]


async def test_newer_kinds_are_passed_over(redis: StoreClient) -> None:
    """What a newer version counts does not trouble an older one."""
    book = DriftBook(redis)
    await redis.hset(names.DRIFT(), '["one","melted","size","count"]', "3")
    assert await book.read() == []
