"""The recorder: no request waits for its record, and an absence of Redis costs none that cost money."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError

from gateway.catalogue.document import Accounting
from gateway.history.history import History, Recorder, RecordFilter
from gateway.history.record import Record
from gateway.store.client import CommandQueue, StoreUnavailable, connect
from tests.conftest import Valkey
from tests.support.histories import NOON, make_call, make_record

pytestmark = pytest.mark.quiet_store


class Slate:
    """Takes records down, once it is there."""

    def __init__(self, *, is_there: bool = True, error: Exception | None = None) -> None:
        self.is_there = asyncio.Event()
        if is_there:
            self.is_there.set()
        self.tries = 0
        self.written: list[Record] = []
        self._error = error

    async def write(self, record: Record) -> None:
        self.tries += 1
        if not self.is_there.is_set():
            raise StoreUnavailable("away")
        if self._error is not None:
            raise self._error
        self.written.append(record)


async def test_records_are_written_soon() -> None:
    """What is noted is written without being asked for, each once."""
    slate = Slate()
    recorder = Recorder(slate.write)
    made = [make_record() for _ in range(120)]
    for record in made:
        recorder.note(record)
    assert await recorder.outbox.flush(5) == 0
    assert slate.written == made
    recorder.note(made[0])
    assert await recorder.outbox.flush(5) == 0
    assert len(slate.written) == 121


async def test_records_wait_for_redis(valkey: Valkey) -> None:
    """Records of a time without Redis are written when it is back, each once."""
    accounting = Accounting()
    command_queue, redis = CommandQueue(valkey.url, deadline_s=0.12, pause_s=0.02), connect(valkey.url)
    history = History(command_queue, redis, accounting, now=lambda: NOON)
    recorder = Recorder(history.write, pause_s=0.02)
    made = [make_record(calls=(make_call(number),)) for number in range(30)]
    with valkey.paused():
        for record in made:
            recorder.note(record)
        assert await recorder.outbox.flush(0.3) == 30
    assert await recorder.outbox.flush(5) == 0
    found = [record async for record in history.stream(RecordFilter(NOON, NOON + 1_000_000))]
    assert sorted(found, key=lambda record: record.id) == sorted(made, key=lambda record: record.id)
    await recorder.outbox.aclose()
    await command_queue.aclose()
    await redis.aclose()


async def test_room_is_bounded() -> None:
    """When too many wait, the refusals go before what cost money, and the loss is counted."""
    slate = Slate(is_there=False)
    recorder = Recorder(slate.write, most=10, pause_s=0.01)
    paid = [make_record(calls=(make_call(number),)) for number in range(8)]
    for record in [*paid, *(make_record() for _ in range(20))]:
        recorder.note(record)
    assert (recorder.outbox.waiting, recorder.outbox.lost) == (10, 18)
    slate.is_there.set()
    assert await recorder.outbox.flush(5) == 0
    assert slate.written[:8] == paid
    for number in range(20):
        recorder.note(make_record(calls=(make_call(number),)))
    assert (recorder.outbox.waiting, recorder.outbox.lost) == (10, 28)
    await recorder.outbox.aclose()


async def test_waiting_record_learns_more() -> None:
    """News of a record that still waits is written with it."""
    slate = Slate(is_there=False)
    recorder = Recorder(slate.write, pause_s=0.01)
    record = make_record(calls=(make_call(state="held", usd=0),))
    later = record.model_copy(update={"request": "", "model": "", "calls": (make_call(usd=7),)})
    recorder.note(record)
    recorder.note(later)
    slate.is_there.set()
    assert await recorder.outbox.flush(5) == 0
    assert slate.written == [record.model_copy(update={"calls": later.calls})]


async def test_nonsense_blocks_nobody() -> None:
    """A record that the store refuses for good is given up, and the writer goes on."""
    slate = Slate(error=ResponseError("INVALID id"))
    recorder = Recorder(slate.write, pause_s=60)
    recorder.note(make_record())
    assert await recorder.outbox.flush(5) == 0
    assert recorder.outbox.lost == 1


async def test_close_ends_in_time() -> None:
    """The end of the process waits for records, but not for ever."""
    slate = Slate(is_there=False)
    recorder = Recorder(slate.write, pause_s=60)
    recorder.note(make_record())
    await asyncio.wait_for(recorder.outbox.aclose(0.05), 2)
    assert (recorder.outbox.waiting, slate.tries) == (1, 1)
    await Recorder(slate.write).outbox.aclose()
