"""When a ticket is asked after: pure arithmetic over what is known of such tasks.

Chosen by `dispatch`, followed by `bridge`. Knows no clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.health.condition import Latency

ENOUGH = 20
"""Samples from which on a median says when an upstream is about to be done."""

_FIRST = 0.5
_GROWTH = 1.3
_SHARE = 0.6
_PAUSE = 2.6
_OVERDUE = 1.5
_SELDOM = 30.0
_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The first wait and the pauses after it, in seconds, each longer than the one before by `growth`.

    `is_learned`: the first wait is a measured one, which the longest pause does not bound.
    """

    first: float = _FIRST
    pause: float = _FIRST * _GROWTH
    growth: float = _GROWTH
    is_learned: bool = False

    @classmethod
    def of(cls, latency: Latency | None, *, is_told: bool = False) -> Rhythm:
        """Shortly before the task is likely to be done, and often from then on; from the start while nobody knows.

        `is_told`: callbacks tell of ends, so that asking only finds what they missed.
        """
        is_known = latency is not None and latency.samples >= ENOUGH
        if latency is None or not is_known:
            return cls(_SELDOM, _SELDOM, 1.0) if is_told else cls()
        share, pause = (_OVERDUE, _SELDOM) if is_told else (_SHARE, _PAUSE)
        return cls(share * latency.median, pause, 1.0, is_learned=True)

    # The jitter keeps no secret.
    def waits(self, longest: float, draw: Callable[[], float] = random.random) -> Iterator[float]:
        """Seconds before each poll, a fifth more or less; no pause is planned to be longer than `longest`."""
        wait, pause = self.first if self.is_learned else min(self.first, longest), self.pause
        while True:
            yield wait * (1 - _JITTER + 2 * _JITTER * draw())
            wait, pause = min(pause, longest), pause * self.growth
