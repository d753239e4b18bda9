"""One request's wait for a task, wherever the task runs: until its end, its next image, a time-out or a disconnect.

A wait ends when the whole answer was handed over, or when the request ends without it. In the second case a retry may
claim the task. The end of a wait never ends a paid call.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from gateway import errors
from gateway.money.ledger import Leaving
from gateway.money.ledger_results import Rate
from gateway.money.reservation import PendingPosts
from gateway.services import Services
from gateway.state.task_store import TaskRecord
from gateway.store.client import StoreUnavailable

UNWRITTEN_S = 0.05
"""Seconds between two looks at a new task whose record is about to be written."""

LOST_AFTER_S = 10.0
"""Seconds after which a task without a record counts as lost."""

_TURNS = 8
"""Turns of the event loop after which it knows of each connection that had ended before them."""


Refusal = Literal["unread", "closed"]
"""An answer that the caller did not read, or perhaps did not read: a retry may claim its task."""


class CallerDisconnected(Exception):
    """The caller disconnected: nobody will read an answer."""


def runs_here(services: Services, task: str) -> bool:
    """True when this process works on a task."""
    return task in services.running


async def record_departures(
    departing: Collection[asyncio.Future[None]], pending_posts: PendingPosts, seconds: float
) -> bool:
    """Let the event loop read the sockets, and wait until the ledger knows of each caller that has disconnected.

    Returns False when that takes longer than `seconds`.
    """
    # A timer may be called before the sockets are read. A connection's end takes a few turns more.
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    began = asyncio.get_running_loop().time()
    if departing:
        _, late = await asyncio.wait(tuple(departing), timeout=seconds)
        if late:
            return False
    left = began + seconds - asyncio.get_running_loop().time()
    # While Redis is away a departure waits there.
    return not pending_posts.is_behind or await pending_posts.outbox.flush(max(0.0, left)) == 0


def _make_future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class TaskWait:
    """A wait under the name `waiter`. `gone` is done once the caller has disconnected.

    `is_joined` means that another request opened the task; `is_replay` means that the task, which has the request's
    Idempotency-Key, had ended before. `is_over` means that the end of the wait is booked. `rates` are the limits a
    minute of a request that opened its task. `record` is the task as it was last seen.
    """

    services: Services
    task: str
    waiter: str
    is_joined: bool = False
    is_replay: bool = False
    rates: tuple[Rate, ...] = ()
    gone: asyncio.Future[None] = field(default_factory=_make_future)
    is_over: bool = False
    record: TaskRecord | None = None

    @property
    def is_cut(self) -> bool:
        """True when this process shuts down and will not see the task's end."""
        shutdown = self.services.shutdown
        return shutdown.is_begun and (
            shutdown.is_over or shutdown.may_leave(self.task) or not runs_here(self.services, self.task)
        )

    async def wait_for_end(self, seconds: float) -> TaskRecord | None:
        """Wait for the end of the task, and return its record; None after `seconds`, or when this process ends.

        Raises CallerDisconnected, and InternalError for a task without a record after LOST_AFTER_S.
        """
        async for record in self._looks(seconds):
            if record is not None and record.end is not None:
                return record
        return None

    async def wait_for_images(self, known: int, seconds: float) -> TaskRecord | None:
        """Wait until the task has more than `known` images or has ended, and return its record.

        Returns None after `seconds`, or when this process ends. Raises CallerDisconnected, and InternalError for a task
        without a record after LOST_AFTER_S.
        """
        async for record in self._looks(seconds):
            if record is not None and (record.end is not None or len(record.images) > known):
                return record
        return None

    async def leave(self) -> None:
        """End the wait in the ledger without the answer, so that a retry may claim the task. Has an effect once."""
        await self._finish("left")

    async def note_handed_over(self) -> None:
        """End the wait in the ledger after the whole answer was handed to the caller's socket."""
        await self._finish("handed")

    async def note_refusal(self, how: Refusal) -> None:
        """Record in the ledger that the caller perhaps did not read the answer, so that a retry may claim the task."""
        await self._book(how)

    async def _finish(self, how: Leaving) -> None:
        if self.is_over:
            return
        self.is_over = True
        await self._book(how)

    async def _book(self, how: Leaving) -> None:
        ledger = self.services.ledger
        step = lambda: ledger.leave(self.task, self.waiter, how)  # noqa: E731 (a step of the pending posts)
        await self.services.pending_posts.book(f"leave {self.task}", step)

    async def _looks(self, seconds: float) -> AsyncIterator[TaskRecord | None]:
        """Yield the task's record now and after each change, for `seconds`; None if it is not there.

        A task of another process is looked at from time to time too. Returns early when this process leaves the task.
        Raises CallerDisconnected, InternalError.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause = self.services.catalogue.document.join.look_every
        with self.services.task_events.watch(self.task) as changed:
            while True:
                changed.has_news = False
                record = await self._look()
                self.record = record or self.record
                if self.gone.done():
                    raise CallerDisconnected
                yield record
                left = began + seconds - loop.time()
                if left <= 0 or self.is_cut:
                    return
                if record is None and loop.time() - began > LOST_AFTER_S:
                    raise errors.InternalError("The gateway lost the task.", should_retry=False)
                # This process has all news of a task that runs here.
                if not runs_here(self.services, self.task):
                    left = min(left, pause if record else UNWRITTEN_S)
                await changed.wait(left, self.gone)

    async def _look(self) -> TaskRecord | None:
        with suppress(StoreUnavailable):
            return await self.services.task_events.look(self.task)
        return None


@dataclass(slots=True)
class CallerConnection:
    """A request's connection to its caller, and the wait that the request has, once there is one.

    `began` and `patient_until` are the loop's time; after the latter the caller may give up. `departing` has a future
    for each caller of this process that has disconnected, until the ledger knows of it.
    """

    gone: asyncio.Future[None] = field(default_factory=_make_future)
    waiting: TaskWait | None = None
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    patient_until: float = math.inf
    departing: set[asyncio.Future[None]] = field(default_factory=set)
    _departure: asyncio.Future[None] = field(default_factory=_make_future)

    def leave(self) -> None:
        """Record that the caller has disconnected: `gone` is done, and `departing` has it until `finish` returns."""
        if not self.gone.done():
            self.gone.set_result(None)
            self.departing.add(self._departure)

    def refuse(self, how: Refusal) -> None:
        """Record in the ledger, in the background, that the caller perhaps did not read the answer.

        A retry may then claim the task. A request without a wait records nothing.
        """
        if self.waiting is not None:
            refusing = asyncio.create_task(self.waiting.note_refusal(how))
            self.departing.add(refusing)
            refusing.add_done_callback(self.departing.discard)

    async def finish(self, *, is_whole: bool) -> None:
        """End the request and its wait. `is_whole` means that the last byte of its answer was handed to the socket."""
        if not is_whole:
            self.leave()
        try:
            if self.waiting is None:
                return
            if self.gone.done():
                await self.waiting.leave()
            else:
                await self.waiting.note_handed_over()
        finally:
            self.departing.discard(self._departure)
            self._departure.set_result(None)
