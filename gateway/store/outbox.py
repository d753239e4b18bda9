"""Writes in the background: an outbox keeps them while Redis is unavailable, and makes them when it answers again.

It starts the writes in the order in which it got the items. It loses an item that the store refuses, and any item for
which its owner allows no room, no second try or no more time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from redis.exceptions import ResponseError

from gateway.store.client import StoreUnavailable

PAUSE_S = 1.0
"""Seconds between two tries while Redis is unavailable."""

CLOSE_S = 2.0
"""Seconds that the end of the process waits for writes."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class OutboxBound(Generic[T]):
    """The bound on waiting items. Beyond `most`, the oldest one with `is_cheap` True is lost, else the oldest."""

    most: int
    is_cheap: Callable[[T], bool]


class Outbox(Generic[T]):
    """Items that wait to be written to the store. `write` stores one item, and is repeated after a lost reply.

    `name` names the outbox in the log. `at_once` bounds the writes that run at a time: 1 keeps their order; with None
    any number runs. `merge` joins two items of one key; without it every key must be new. Without a `bound` any number
    of items waits. `pause_s` is the pause between two tries in seconds; with None an item is lost when its first write
    finds Redis unavailable. An item that the store refuses, by ValueError or ResponseError, is logged and lost.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[T], Awaitable[object]],
        *,
        at_once: int | None = None,
        merge: Callable[[T, T], T] | None = None,
        bound: OutboxBound[T] | None = None,
        pause_s: float | None = PAUSE_S,
    ) -> None:
        self._name = name
        self._write = write
        self._at_once = at_once
        self._merge = merge
        self._bound = bound
        self._pause_s = pause_s
        self._waiting: OrderedDict[str, T] = OrderedDict()
        self._writes: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, T] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._is_delayed = False
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.lost = 0
        """The number of lost items: beyond the bound, refused by the store, failed without a pause, left at the end."""

    @property
    def waiting(self) -> int:
        """The number of items that are not written yet, those included whose write is running."""
        return len(self._waiting) + len(self._running)

    def put(self, key: str, item: T) -> None:
        """Queue the item to be written in the background, merged with one of the same key that still waits.

        Beyond the bound an item is lost.
        """
        known = self._waiting.get(key)
        self._waiting[key] = item if known is None or self._merge is None else self._merge(known, item)
        self._idle.clear()
        if self._bound is not None and self.waiting > self._bound.most:
            self._drop_one(self._bound)
        self._start_writes()

    async def write(self, key: str, item: T) -> None:
        """Write the item before this returns; if others wait or Redis is unavailable, queue it behind them.

        An item that the store refuses is logged and lost. Other errors of the write are raised.
        """
        if not self.waiting:
            try:
                await self._write_or_refuse(key, item)
            except StoreUnavailable:
                pass
            except asyncio.CancelledError:
                # The write may not have reached the store; a repetition does no harm.
                self.put(key, item)
                raise
            else:
                return
        self.put(key, item)

    async def wait(self) -> None:
        """Wait until no item waits: each is written or lost."""
        await self._idle.wait()

    async def flush(self, seconds: float) -> int:
        """Wait up to `seconds` until no item waits; return the number of items that still wait."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait()
        return self.waiting

    async def aclose(self, seconds: float = CLOSE_S) -> None:
        """Wait up to `seconds` until no item waits, then drop the rest, log their number, and end all writes."""
        if left := await self.flush(seconds):
            self.lost += left
            _log.error("writes are lost: Redis is away", outbox=self._name, items=left)
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        for write in (writes := set(self._writes.values())):
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)

    def _start_writes(self) -> None:
        """Begin as many writes as may run now."""
        if self._pause is not None or self._is_closed:
            return
        for key in self._waiting:
            if self._at_once is not None and len(self._writes) >= self._at_once:
                return
            if key not in self._writes:
                write = self._writes[key] = asyncio.create_task(self._write_waiting(key), name=f"outbox {self._name}")
                write.add_done_callback(lambda _, key=key: self._end_write(key))

    async def _write_waiting(self, key: str) -> None:
        # The item is taken here and not where the task is made: it may have grown, or been lost, since.
        if key not in self._waiting:
            return
        item = self._running[key] = self._waiting.pop(key)
        try:
            await self._write_or_refuse(key, item)
        except StoreUnavailable as error:
            self._delay_or_lose(key, item, str(error))
        except asyncio.CancelledError:
            self._put_back(key, item)
            raise
        except Exception:  # noqa: BLE001 (a gateway's fault in one write must lose nothing, and end no other write)
            _log.exception("a write failed; it is tried again", outbox=self._name, item=key)
            self._put_back(key, item)
            self._rest()
        else:
            self._note_success()
        finally:
            del self._running[key]

    def _end_write(self, key: str) -> None:
        del self._writes[key]
        self._start_writes()
        if not self.waiting:
            self._idle.set()

    async def _write_or_refuse(self, key: str, item: T) -> None:
        """Write the item. Drop it if the store refuses it: the items behind it must not wait for it."""
        try:
            await self._write(item)
        except (ValueError, ResponseError):
            self.lost += 1
            _log.exception("the store refused a write", outbox=self._name, item=key)

    def _delay_or_lose(self, key: str, item: T, reason: str) -> None:
        if self._pause_s is None:
            self.lost += 1
            _log.warning("a write is lost: Redis is away", outbox=self._name, item=key, reason=reason)
            return
        self._put_back(key, item)
        self._rest()
        if not self._is_delayed:
            self._is_delayed = True
            _log.warning("writes wait: Redis is away", outbox=self._name, reason=reason)

    def _put_back(self, key: str, item: T) -> None:
        newer = self._waiting.get(key)
        self._waiting[key] = item if newer is None or self._merge is None else self._merge(item, newer)
        self._waiting.move_to_end(key, last=False)

    def _rest(self) -> None:
        if self._pause is None and not self._is_closed:
            self._pause = asyncio.get_running_loop().call_later(self._pause_s or PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._start_writes()

    def _note_success(self) -> None:
        if self._is_delayed:
            self._is_delayed = False
            _log.info("writes go on: Redis is back", outbox=self._name, waiting=len(self._waiting))

    def _drop_one(self, bound: OutboxBound[T]) -> None:
        """Drop one waiting item: the oldest cheap one, else the oldest. Items that are being written stay."""
        cheapest = next((key for key, item in self._waiting.items() if bound.is_cheap(item)), None)
        del self._waiting[cheapest or next(iter(self._waiting))]
        if not self.lost:
            _log.error("too many writes wait: from now on some are lost", outbox=self._name, most=bound.most)
        self.lost += 1
