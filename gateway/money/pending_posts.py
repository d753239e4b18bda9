"""Evidence about paid calls on its way to the ledger: nothing is lost while this process lives.

A step that Redis cannot take now waits, in order, until Redis is back. Nothing new begins meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count

from gateway.store.outbox import Outbox

PAUSE_S = 0.5
"""Seconds between two attempts."""

Step = Callable[[], Awaitable[object]]


class PendingPosts:
    """One process's steps. Each must be idempotent by the ids in it."""

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        # One at a time, so that a call's steps keep their order; without a bound, since no evidence may be lost.
        self.outbox: Outbox[Step] = Outbox("pending posts", lambda step: step(), at_once=1, pause_s=pause_s)
        self._numbers = count(1)

    @property
    def is_behind(self) -> bool:
        """True when a step waits for Redis: nothing new may begin."""
        return bool(self.outbox.waiting)

    async def book(self, what: str, step: Step) -> None:
        """Take the step now, or behind those that wait already. Raise nothing."""
        await self.outbox.write(f"{what} ({next(self._numbers)})", step)

    async def wait(self) -> None:
        """Return once no step waits."""
        await self.outbox.wait()
