"""How a process ends: nothing is begun, paid calls are waited for, and what another process can finish is left to it.

One a process, in `Services`; begun by `worker`, told by `dispatch` what is out, asked by whoever waits. Never ends
anything itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE_S = 0.05
"""Seconds between two looks at what is still out."""


class Shutdown:
    """`on_change` is called when the end begins, from then on when a task can be left, and when the time is up."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.on_change = on_change
        self.is_over = False
        self._since: float | None = None
        # By task: the calls that are out, and by call how many of its parts only wait to ask again.
        self._out: dict[str, dict[str, int]] = {}

    @property
    def is_begun(self) -> bool:
        return self._since is not None

    @property
    def seconds(self) -> float:
        """Since it began."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def is_holding(self) -> bool:
        """Whether anything is out that only this process can take in."""
        return any(map(self._holds, self._out))

    def begin(self) -> None:
        if self._since is None:
            self._since = time.monotonic()
            self.on_change()

    def give_up(self) -> None:
        """The time is up: what is out is abandoned."""
        self.is_over = True
        self.on_change()

    def forbids(self, task: str) -> bool:
        """Whether nothing may be sent for a task any more: nothing that only this process can take in is out for it."""
        return self.is_begun and not self._holds(task)

    def may_leave(self, task: str) -> bool:
        """Whether all that is out for a task is tickets, which any process can follow."""
        return task in self._out and not self._holds(task)

    def hold(self, task: str, call: str) -> None:
        """A call of the task is out, until it is released."""
        # A plain dict: a Counter has a second one in it, for thousands of tasks that are out at once.
        self._out.setdefault(task, {})[call] = 0

    def release(self, task: str, call: str) -> None:
        calls = self._out[task]
        del calls[call]
        if not calls:
            del self._out[task]

    @contextmanager
    def resting(self, task: str, call: str) -> Iterator[None]:
        """While a call only waits to ask again for what it has made: it can be left meanwhile."""
        calls = self._out[task]
        calls[call] += 1
        try:
            if self.is_begun:
                self.on_change()
            yield
        finally:
            calls[call] -= 1

    async def idle(self, after: float) -> None:
        """Return once the end has lasted for so many seconds, and nothing is out any more."""
        # Calls come and go meanwhile.
        while self.seconds < after or self.is_holding:  # noqa: ASYNC110 (their absence at one moment ends it)
            await asyncio.sleep(PAUSE_S)

    def _holds(self, task: str) -> bool:
        return any(not resting for resting in self._out.get(task, {}).values())
