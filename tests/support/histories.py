"""What the tests of the history share: records of any kind, and a history on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from gateway.catalogue.document import Accounting
from gateway.history.history import History
from gateway.history.record import CallFact, Record
from gateway.history.usage import UsageReader
from gateway.ids import first_id, new_id
from gateway.store.client import CommandQueue, StoreClient, connect
from tests.support.ledgers import DAY, SECOND, ZONE, at, make_id

NOON = at("2026-11-04T12:00:00")
MIDNIGHT = at("2026-11-04T00:00:00")
BERLIN = Accounting(time_zone=ZONE)


@dataclass
class Books:
    """A history and its sums, in Berlin at noon."""

    history: History
    usage: UsageReader
    redis: StoreClient


@asynccontextmanager
async def open_books(url: str, accounting: Accounting = BERLIN, now: int = NOON) -> AsyncIterator[Books]:
    command_queue, redis = CommandQueue(url, deadline_s=20, pause_s=0.001), connect(url)
    try:
        yield Books(
            History(command_queue, redis, accounting, now=lambda: now),
            UsageReader(redis, accounting, now=lambda: now),
            redis,
        )
    finally:
        # Hypothesis ends an example by an exception wherever it draws.
        await command_queue.aclose()
        await redis.aclose()


def task_of(record: Record) -> str:
    return f"task{record.id.removeprefix('rec')}"


def make_call(number: int = 1, upstream: str = "anyfast", **more: Any) -> CallFact:
    """A call that brought one image for 40,000 µ$, unless told otherwise."""
    told = {"target": f"{upstream}/main", "outcome": "delivered", "seconds": 1.5, "n": 1, "images": 1, "usd": 40_000}
    return CallFact(id=make_id("call", number), upstream=upstream, **(told | more))


def make_record(when: int = NOON, **more: Any) -> Record:
    """A request of key 1 at an instant, refused unless it is told calls."""
    told = {
        "id": new_id("rec", at=when / SECOND),
        "request": new_id("req", at=when / SECOND),
        "key": make_id("key", 1),
        "key_name": "ana",
        "model": "gpt-image-2",
    }
    return Record(**(told | more))


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)
calls = st.builds(
    make_call,
    number=st.integers(1, 4),
    upstream=st.sampled_from(["anyfast", "anyfast-c", "apiany"]),
    usd=st.one_of(st.none(), st.integers(0, 10**12)),
    images=st.integers(0, 4),
    state=st.sampled_from(["held", "void", "presumed", "posted"]),
    disputed=st.just(0) | st.integers(1, 10**15),
)
# Made of what Hypothesis draws, and not of chance, so that an example can be played again.
ids = st.builds(
    lambda at, number: f"{first_id('rec', at // 1000)[:-14]}{number:014d}",
    st.integers(NOON - 3 * DAY, NOON),
    st.integers(0, 10**14 - 1),
)
records = st.builds(
    make_record,
    id=ids,
    request=st.just("req-1"),
    key=st.sampled_from([make_id("key", 1), make_id("key", 2)]),
    team=st.one_of(st.none(), words),
    model=words,
    is_model_known=st.booleans(),
    end_user=st.one_of(st.none(), words),
    status=st.sampled_from([200, 400, 429, 504]),
    repeats=st.sampled_from([1, 1, 7]),
    calls=st.lists(calls, max_size=3, unique_by=lambda call: call.id).map(tuple),
)
