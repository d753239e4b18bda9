"""What Redis could not take when it happened: kept in order, and booked when Redis is back.

Used by `quota` for evidence about paid calls, which must not be lost while this process lives. Never answers anybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import ResponseError

from gateway.store.client import StoreUnavailable

PAUSE_S = 0.5
"""Seconds between two tries."""

Step = Callable[[], Awaitable[object]]

_log = structlog.get_logger(__name__)


class PendingPosts:
    """One process's steps that wait. Each must be idempotent by the ids in it."""

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        self._pause_s = pause_s
        self._steps: deque[tuple[str, Step]] = deque()
        self._catching_up: asyncio.Task[None] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether Redis was away when it was last asked: then nothing new should be begun."""
        return bool(self._steps)

    async def book(self, what: str, step: Step) -> None:
        """Take the step now, or behind those that wait already. Raises nothing."""
        if not self._steps:
            try:
                await _take(what, step)
            except StoreUnavailable:
                pass
            else:
                return
        self._steps.append((what, step))
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._catch_up(), name="pending posts")

    async def wait(self) -> None:
        """Return once nothing waits."""
        if self._catching_up is not None:
            # Not awaited by itself: whoever stops waiting must not stop the booking.
            await asyncio.wait({self._catching_up})

    async def _catch_up(self) -> None:
        while self._steps:
            what, step = self._steps[0]
            try:
                await _take(what, step)
            except StoreUnavailable:
                await asyncio.sleep(self._pause_s)
            else:
                self._steps.popleft()


async def _take(what: str, step: Step) -> None:
    try:
        await step()
    except (ValueError, ResponseError):
        # A fault of ours in one step must not keep back all that wait behind it.
        _log.exception("a step was refused", what=what)
