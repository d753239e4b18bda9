"""Refusals for the history: some of each key are written one by one, the rest is counted together.

A client that never stops must not fill Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.history.record import Record

BURST = 250
"""Refusals of a quiet key that are written one by one."""

PER_WINDOW = 20
"""Refusals that are written one by one in each further window of a key."""

WINDOW_S = 60.0

FOLD_EVERY_S = 5.0
"""Seconds between two looks for windows that have ended."""


@dataclass(slots=True)
class _Window:
    """The refusals of one key. `left` more are written one by one; `rest` is written at `ends` (monotonic s)."""

    ends: float
    left: int
    rest: dict[tuple[object, ...], Record] = field(default_factory=dict)


class Refusals:
    """The refusals of one process. `note` gets each record that is to be written, alone or with a count.

    The first `burst` refusals of a key are written one by one, then `per_window` in each `window_s` seconds. The others
    of the same status, error, operation, model and team are counted in one record for each window. `clock` returns
    monotonic seconds.
    """

    def __init__(
        self,
        note: Callable[[Record], None],
        *,
        burst: int = BURST,
        per_window: int = PER_WINDOW,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._note = note
        self._burst = burst
        self._per_window = per_window
        self._window_s = window_s
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def note(self, record: Record) -> None:
        """Pass on a refusal at once, or count it with others of its kind until the window ends."""
        window = self._windows.get(record.key)
        if window is None:
            window = self._windows[record.key] = _Window(self._clock() + self._window_s, self._burst)
        if window.left:
            window.left -= 1
            self._note(record)
            return
        model = record.model if record.is_model_known else ""
        kind = (record.status, record.error, record.operation, model, record.team)
        first = window.rest.get(kind, record.model_copy(update={"repeats": 0}))
        window.rest[kind] = first.model_copy(update={"repeats": first.repeats + 1})

    async def fold(self) -> None:
        """End the windows whose time is up: pass on their counted refusals, and forget keys that are quiet again."""
        now = self._clock()
        for key, window in list(self._windows.items()):
            if window.ends > now:
                continue
            self._write_rest(window)
            window.ends += self._window_s
            window.left += self._per_window
            if window.left >= self._burst:
                del self._windows[key]

    def flush(self) -> None:
        """Pass on all counted refusals now, and forget all keys."""
        for window in self._windows.values():
            self._write_rest(window)
        self._windows.clear()

    def _write_rest(self, window: _Window) -> None:
        for record in window.rest.values():
            self._note(record)
        window.rest.clear()
