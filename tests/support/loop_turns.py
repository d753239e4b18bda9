"""What each turn of an event loop costs in processor time, which is the same on a busy machine as on a quiet one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

_is_measured: ContextVar[bool] = ContextVar("_is_measured", default=False)


@dataclass
class Turns:
    """The dearest turn so far: its seconds of the thread's processor time, and the callback that ran."""

    longest: float = 0.0
    callback: str = ""
    count: int = 0


@contextlib.contextmanager
def measured_turns() -> Iterator[Turns]:
    """Measure each turn of asyncio's own loop that follows from what begins within: its tasks, and their callbacks.

    The turn in which the test itself runs has begun before, so begin a task.
    """
    turns, thread, run = Turns(), threading.get_ident(), asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        if threading.get_ident() != thread or not handle._context.get(_is_measured):  # type: ignore[attr-defined]
            run(handle)
            return
        began = time.thread_time()
        run(handle)
        spent = time.thread_time() - began
        turns.count += 1
        if spent > turns.longest:
            turns.longest, turns.callback = spent, repr(handle)[:300]

    gc.collect()
    # A collection would count the objects of every other test against the turn in which it falls.
    gc.disable()
    # The loop has no hook for its turns.
    asyncio.Handle._run = timed  # type: ignore[method-assign]
    before = _is_measured.set(True)
    try:
        yield turns
    finally:
        _is_measured.reset(before)
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.enable()
