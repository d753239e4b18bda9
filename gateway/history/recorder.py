"""Writes records behind the requests' backs, and keeps them while Redis is away.

Handed each record as its request ends. Never makes a request wait, and never keeps more than `most`: what cost nothing
goes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import ResponseError

from gateway.history.record import Record
from gateway.store.client import StoreUnavailable

MOST = 1000
PAUSE_S = 1.0
_AT_ONCE = 50

_log = structlog.get_logger(__name__)


class Recorder:
    """Records on their way into one history; `write` may be repeated."""

    def __init__(
        self, write: Callable[[Record], Awaitable[None]], *, most: int = MOST, pause_s: float = PAUSE_S
    ) -> None:
        self._write = write
        self._most = most
        self._pause_s = pause_s
        self._waiting: dict[str, Record] = {}
        self._writer: asyncio.Task[None] | None = None
        self.lost = 0
        """Records that there was no room for, or that the store refused."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def note(self, record: Record) -> None:
        """Have a record written soon."""
        known = self._waiting.get(record.id)
        self._waiting[record.id] = known.merged(record) if known else record
        if len(self._waiting) > self._most:
            self._give_up(next((one for one in self._waiting.values() if not one.calls), None))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def flush(self, seconds: float) -> int:
        """Wait until all is written, so long at most; answers how many records still wait."""
        if self._writer is not None and not self._writer.done():
            await asyncio.wait({self._writer}, timeout=seconds)
        return len(self._waiting)

    async def aclose(self, seconds: float = 2.0) -> None:
        """Write what can be written in the time, and tell the log how much could not."""
        if left := await self.flush(seconds):
            _log.error("records of requests are lost: Redis is away", records=left)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write_all(self) -> None:
        while self._waiting:
            batch = list(self._waiting.values())[:_AT_ONCE]
            ends = await asyncio.gather(*(self._write_one(record) for record in batch))
            if not all(ends):
                await asyncio.sleep(self._pause_s)

    async def _write_one(self, record: Record) -> bool:
        """Whether the record needs no further try."""
        try:
            await self._write(record)
        except StoreUnavailable:
            return False
        except (ValueError, ResponseError) as error:
            # It will never be taken; the others behind it must not wait for that.
            self.lost += 1
            _log.error("a record was refused by the store", record=record.id, reason=str(error))
        # It may know more by now.
        if self._waiting.get(record.id) is record:
            del self._waiting[record.id]
        return True

    def _give_up(self, cheapest: Record | None) -> None:
        record = cheapest or next(iter(self._waiting.values()))
        del self._waiting[record.id]
        if not self.lost:
            _log.error("too many records wait for Redis: from now on some are lost", most=self._most)
        self.lost += 1
