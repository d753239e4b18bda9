"""Ledger steps that wait for Redis, in order: evidence about paid calls, kept while the process lives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import ResponseError

from gateway.store.client import StoreUnavailable

PAUSE_S = 0.5
"""Seconds between two attempts."""

Step = Callable[[], Awaitable[object]]

_log = structlog.get_logger(__name__)


class PendingPosts:
    """The waiting steps of one process. Each step must be idempotent by its ids."""

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        self._pause_s = pause_s
        self._steps: deque[tuple[str, Step]] = deque()
        self._catching_up: asyncio.Task[None] | None = None

    @property
    def is_behind(self) -> bool:
        """True when Redis was unavailable at the last attempt: then start nothing new."""
        return bool(self._steps)

    async def book(self, what: str, step: Step) -> None:
        """Take the step now, or after those that wait already. Never raises."""
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
        """Return once no step waits."""
        if self._catching_up is not None:
            # Shielded: a cancelled waiter must not cancel the steps.
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
        # A fault in one step must not block the steps behind it.
        _log.exception("a ledger step failed", what=what)
