"""Seconds in which this process could run: a test that bounds a wait must not fail for a machine that stood still."""

from __future__ import annotations

import threading
import time

STEP_S = 0.01
"""Seconds between two ticks. However long the machine lets a tick wait, it counts as at most two of them."""


class _Ticker(threading.Thread):
    """Counts the seconds between its ticks, without the stalls."""

    def __init__(self) -> None:
        super().__init__(name="stopwatch", daemon=True)
        self.seconds = 0.0

    def run(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(STEP_S)
            now = time.monotonic()
            self.seconds += min(now - before, 2 * STEP_S)
            before = now


_TICKER = _Ticker()
_TICKER.start()


def running_seconds() -> float:
    """Seconds since the first import in which this process could run; never more than the clock's."""
    return _TICKER.seconds
