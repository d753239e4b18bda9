"""Refusals that come too fast: of each key so many a minute are told one by one, the rest together.

Stands before `store.recorder`, so that a client that never stops asking does not fill Redis. Never loses a count: what
is told together says how often it happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.store.records import Record

MOST = 20
WINDOW_S = 60.0


@dataclass(slots=True)
class _Window:
    """What one key was refused in one stretch of time: how much was told, and what is told at its end."""

    timer: asyncio.TimerHandle
    told: int = 0
    rest: dict[tuple[object, ...], Record] = field(default_factory=dict)


class Refusals:
    """One process's refusals on their way to `note`. `most` of a key in `window_s` are told one by one."""

    def __init__(self, note: Callable[[Record], None], *, most: int = MOST, window_s: float = WINDOW_S) -> None:
        self._note = note
        self._most = most
        self._window_s = window_s
        self._windows: dict[str, _Window] = {}

    def note(self, record: Record) -> None:
        """Have a refusal written, by itself or together with those that are like it."""
        window = self._windows.get(record.key)
        if window is None:
            timer = asyncio.get_running_loop().call_later(self._window_s, self._end, record.key)
            window = self._windows[record.key] = _Window(timer)
        if window.told < self._most:
            window.told += 1
            self._note(record)
            return
        model = record.model if record.is_model_known else ""
        kind = (record.status, record.error, record.operation, model, record.team)
        first = window.rest.get(kind, record.model_copy(update={"repeats": 0}))
        window.rest[kind] = first.model_copy(update={"repeats": first.repeats + 1})

    def flush(self) -> None:
        """Tell now what would be told later."""
        for key in list(self._windows):
            self._end(key)

    def _end(self, key: str) -> None:
        window = self._windows.pop(key)
        window.timer.cancel()
        for record in window.rest.values():
            self._note(record)
