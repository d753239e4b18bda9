"""Refusals that come too fast: of each key so many a minute are told one by one, the rest together.

Stands before `store.recorder`, so that a client that never stops asking does not fill Redis. Never loses a count: what
is told together says how often it happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.history.record import Record

BURST = 250
MOST = 20
WINDOW_S = 60.0


@dataclass(slots=True)
class _Window:
    """What one key was refused lately; `left` may still be told by themselves, `rest` is told at the window's end."""

    timer: asyncio.TimerHandle
    left: int
    rest: dict[tuple[object, ...], Record] = field(default_factory=dict)


class Refusals:
    """One process's refusals on their way to `note`.

    Of a key `burst` are told one by one, and in each `window_s` after that `most`.
    """

    def __init__(
        self, note: Callable[[Record], None], *, burst: int = BURST, most: int = MOST, window_s: float = WINDOW_S
    ) -> None:
        self._note = note
        self._burst = burst
        self._most = most
        self._window_s = window_s
        self._windows: dict[str, _Window] = {}

    @property
    def watched(self) -> int:
        """Keys that were refused lately."""
        return len(self._windows)

    def note(self, record: Record) -> None:
        """Have a refusal written, by itself or together with those that are like it."""
        window = self._windows.get(record.key)
        if window is None:
            window = self._windows[record.key] = _Window(self._wait(record.key), self._burst)
        if window.left:
            window.left -= 1
            self._note(record)
            return
        model = record.model if record.is_model_known else ""
        kind = (record.status, record.error, record.operation, model, record.team)
        first = window.rest.get(kind, record.model_copy(update={"repeats": 0}))
        window.rest[kind] = first.model_copy(update={"repeats": first.repeats + 1})

    def flush(self) -> None:
        """Tell now what would be told later."""
        for window in self._windows.values():
            window.timer.cancel()
            self._tell(window)
        self._windows.clear()

    def _wait(self, key: str) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._window_s, self._turn, key)

    def _turn(self, key: str) -> None:
        """The window's end: what was folded is told, and some may be told by themselves again."""
        window = self._windows[key]
        self._tell(window)
        window.left += self._most
        if window.left >= self._burst:
            del self._windows[key]
        else:
            window.timer = self._wait(key)

    def _tell(self, window: _Window) -> None:
        for record in window.rest.values():
            self._note(record)
        window.rest.clear()
