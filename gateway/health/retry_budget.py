"""How often a process may send to the same target again: ten times a minute, or a tenth of the minute's calls.

Asked by `dispatch`. Without such a bound every retry makes an upstream's bad minute worse.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

LEAST = 10
SHARE = 0.1
_MINUTE = 60.0


class RetryBudget:
    """One process's. `clock` tells seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: deque[float] = deque()
        self._retries: deque[float] = deque()

    def note_call(self) -> None:
        """Count a call that was sent, a retry or not."""
        self._calls.append(self._clock())

    def take(self) -> bool:
        """Whether one more retry may be sent; it counts when it may."""
        now = self._clock()
        for times in (self._calls, self._retries):
            while times and times[0] <= now - _MINUTE:
                times.popleft()
        if len(self._retries) >= max(LEAST, int(SHARE * len(self._calls))):
            return False
        self._retries.append(now)
        return True

    def forget(self) -> None:
        self._calls.clear()
        self._retries.clear()
