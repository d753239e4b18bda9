"""The shutdown of one process, which then sends no new call, waits for paid calls, and leaves tickets to others.

This module knows the calls in progress. It never ends anything itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

PAUSE_S = 0.05
"""Seconds between two checks for calls in progress."""


class Resting:
    """A context in which a part of a call only waits for its next poll. Several parts may be in it at a time."""

    __slots__ = ("_call", "_parts", "_shutdown")

    def __init__(self, shutdown: Shutdown, parts: dict[str, int], call: str) -> None:
        self._shutdown = shutdown
        self._parts = parts
        self._call = call

    def __enter__(self) -> None:
        self._parts[self._call] += 1
        if self._shutdown.is_begun:
            self._shutdown.on_change()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts[self._call] -= 1


class Shutdown:
    """The state of a shutdown. `on_change` is called when it begins, and when its time is up.

    From its begin on it is also called each time that a part of a call begins to wait: perhaps its task can be left.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.on_change = on_change
        self.is_over = False
        self._since: float | None = None
        # By task, the calls in progress; by call, how many of its parts wait for the next poll.
        self._out: dict[str, dict[str, int]] = {}

    @property
    def is_begun(self) -> bool:
        return self._since is not None

    @property
    def seconds(self) -> float:
        """Seconds since the shutdown began; 0 before."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def is_holding(self) -> bool:
        """True while a call is in progress that only this process can finish."""
        return any(map(self._holds, self._out))

    def begin(self) -> None:
        if self._since is None:
            self._since = time.monotonic()
            self.on_change()

    def give_up(self) -> None:
        """Set `is_over`, and call `on_change`: the time is up, and the calls in progress are to be abandoned."""
        self.is_over = True
        self.on_change()

    def forbids(self, task: str) -> bool:
        """True when the shutdown has begun and no call of a task needs this process: then nothing more may be sent."""
        return self.is_begun and not self._holds(task)

    def may_leave(self, task: str) -> bool:
        """True when a task has calls in progress, and all of them only wait for polls, which any process can make."""
        return task in self._out and not self._holds(task)

    def hold(self, task: str, call: str) -> None:
        """Record that a call of the task is in progress, until `release`. The shutdown waits for it."""
        # Not a Counter, which holds a second dict: thousands of tasks run at once.
        self._out.setdefault(task, {})[call] = 0

    def release(self, task: str, call: str) -> None:
        calls = self._out[task]
        del calls[call]
        if not calls:
            del self._out[task]

    def resting(self, task: str, call: str) -> Resting:
        """Return a context for a call in progress: while each of its parts is in it, the call can be left."""
        return Resting(self, self._out[task], call)

    async def idle(self, after: float) -> None:
        """Wait until the shutdown has lasted `after` seconds and no call needs this process."""
        # Calls begin and end meanwhile.
        while self.seconds < after or self.is_holding:  # noqa: ASYNC110 (their absence at one moment ends it)
            await asyncio.sleep(PAUSE_S)

    def _holds(self, task: str) -> bool:
        return any(not resting for resting in self._out.get(task, {}).values())
