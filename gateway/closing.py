"""How a process ends: nothing is begun, paid calls are waited for, and what another process can finish is left to it.

One a process, in `Services`; begun by `worker`, told by `dispatch` what is out, asked by whoever waits. Never ends
anything itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE_S = 0.05
"""Seconds between two looks at what is still out."""


class Closing:
    """`on_change` is called when the end begins, and from then on when a task can be left."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.on_change = on_change
        self._since: float | None = None
        self._held: Counter[str] = Counter()
        self._resting: Counter[str] = Counter()

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
        return any(self._held.values())

    def begin(self) -> None:
        if self._since is None:
            self._since = time.monotonic()
            self.on_change()

    def forbids(self, task: str) -> bool:
        """Whether nothing may be sent for a task any more: nothing that only this process can take in is out for it."""
        return self.is_begun and not self._held[task]

    def may_leave(self, task: str) -> bool:
        """Whether all that is out for a task is tickets, which any process can follow."""
        return self._resting[task] > 0 and not self._held[task]

    @contextmanager
    def holding(self, task: str) -> Iterator[None]:
        """While a call of the task is out."""
        with self._counting(self._held, task):
            yield

    async def rest(self, task: str, seconds: float) -> None:
        """Sleep between two questions for a ticket: until then the call, which is held, can be left."""
        self._held[task] -= 1
        try:
            with self._counting(self._resting, task):
                if self.is_begun:
                    self.on_change()
                await asyncio.sleep(seconds)
        finally:
            self._held[task] += 1

    async def idle(self, after: float) -> None:
        """Return once the end has lasted for so many seconds, and nothing is out any more."""
        # Calls come and go meanwhile.
        while self.seconds < after or self.is_holding:  # noqa: ASYNC110 (their absence at one moment ends it)
            await asyncio.sleep(PAUSE_S)

    @staticmethod
    @contextmanager
    def _counting(counts: Counter[str], task: str) -> Iterator[None]:
        counts[task] += 1
        try:
            yield
        finally:
            counts[task] -= 1
            if not counts[task]:
                del counts[task]
