"""One request's wait for a task, wherever that runs: until its end, its next image, its time or its caller is up.

Made by `pipeline`, ended by `api`: by an answer that was handed over entirely, or by leaving, after which a retry may
claim the task. Never ends the work.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

from gateway import errors
from gateway.money.ledger import Leaving
from gateway.money.ledger_results import Rate
from gateway.services import Services
from gateway.state.task_store import TaskRecord
from gateway.store.client import StoreUnavailable

UNWRITTEN_S = 0.05
"""Seconds between two looks at a task that was opened a moment ago, and whose record is about to be written."""

LOST_AFTER_S = 10.0
"""Seconds after which a task that has no record is given up."""


class CallerDisconnected(Exception):
    """The caller hung up: nobody will read an answer."""


def runs_here(services: Services, task: str) -> bool:
    """Whether this process works on a task."""
    return any(each.get_name() == task for each in services.running)


def _never() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class TaskWait:
    """A wait under the name `waiter`. `gone` ends when the caller hangs up.

    `is_joined`: another request began the task; `is_replay`: it had ended then, under an Idempotency-Key. `rates` are
    those of a request that began one.
    """

    services: Services
    task: str
    waiter: str
    is_joined: bool = False
    is_replay: bool = False
    rates: tuple[Rate, ...] = ()
    gone: asyncio.Future[None] = field(default_factory=_never)
    is_over: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether this process ends before the task does, and leaves it to others."""
        shutdown = self.services.shutdown
        is_left = shutdown.is_over or shutdown.may_leave(self.task) or not runs_here(self.services, self.task)
        return shutdown.is_begun and is_left

    async def end(self, seconds: float) -> TaskRecord | None:
        """The ended task, or None after `seconds` or as this process ends. Raises CallerLeft."""
        async for record in self._looks(seconds):
            if record is not None and record.end is not None:
                return record
        return None

    async def news(self, known: int, seconds: float) -> TaskRecord | None:
        """The task once it has more than `known` images or has ended, or None likewise. Raises CallerLeft."""
        async for record in self._looks(seconds):
            if record is not None and (record.end is not None or len(record.images) > known):
                return record
        return None

    async def leave(self) -> None:
        """The caller goes without its answer, or is told to come back: its retry may claim the task."""
        await self._finish("left")

    async def hand_over(self) -> None:
        """The whole answer is with the caller's socket."""
        await self._finish("handed")

    async def take_back(self) -> None:
        """The caller did not read the answer that was with its socket: its retry may claim the task."""
        await self._book("unread")

    async def _finish(self, how: Leaving) -> None:
        if self.is_over:
            return
        self.is_over = True
        await self._book(how)

    async def _book(self, how: Leaving) -> None:
        ledger = self.services.ledger
        step = lambda: ledger.leave(self.task, self.waiter, how)  # noqa: E731 (a step of the backlog)
        await self.services.pending_posts.book(f"leave {self.task}", step)

    async def _looks(self, seconds: float) -> AsyncIterator[TaskRecord | None]:
        """The task as it stands, now and after each change, for so long."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause = self.services.catalogue.document.join.look_every
        with self.services.task_events.watch(self.task) as changed:
            while True:
                changed.has_news = False
                record = await self._look()
                if self.gone.done():
                    raise CallerDisconnected
                yield record
                left = began + seconds - loop.time()
                if left <= 0 or self.is_cut:
                    return
                if record is None and loop.time() - began > LOST_AFTER_S:
                    raise errors.InternalError("The gateway lost the task.", should_retry=False)
                await changed.wait(min(left, pause if record else UNWRITTEN_S), self.gone)

    async def _look(self) -> TaskRecord | None:
        with suppress(StoreUnavailable):
            return await self.services.task_events.look(self.task)
        return None


@dataclass(slots=True)
class CallerConnection:
    """Whether a request's caller is still there, and for what it waits, once it does.

    `began` is in the loop's time, and so is `patient_until`: after it the caller may give up. `departing` has a future
    for each caller of this process that has hung up; it ends once the ledger knows.
    """

    gone: asyncio.Future[None] = field(default_factory=_never)
    waiting: TaskWait | None = None
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    patient_until: float = math.inf
    departing: set[asyncio.Future[None]] = field(default_factory=set)
    _departure: asyncio.Future[None] = field(default_factory=_never)
    _refusing: asyncio.Task[None] | None = None

    def leave(self) -> None:
        """The caller hung up."""
        if not self.gone.done():
            self.gone.set_result(None)
            self.departing.add(self._departure)

    def refuse(self) -> None:
        """The caller did not read the answer that was handed to its socket."""
        if self.waiting is not None:
            self._refusing = asyncio.create_task(self.waiting.take_back())

    async def finish(self, *, is_whole: bool) -> None:
        """The request is over; `is_whole`: its answer's last byte was handed to the socket."""
        if not is_whole:
            self.leave()
        try:
            if self.waiting is None:
                return
            if self.gone.done():
                await self.waiting.leave()
            else:
                await self.waiting.hand_over()
        finally:
            self.departing.discard(self._departure)
            self._departure.set_result(None)
