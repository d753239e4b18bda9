"""One event loop for a test process's short questions: to make and close one for each takes as long as the question."""

from __future__ import annotations

import asyncio
import atexit
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Found = TypeVar("Found")


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    made = asyncio.new_event_loop()
    atexit.register(made.close)
    return made


def run_here(work: Coroutine[Any, Any, Found]) -> Found:
    """Run the work to its end, as `asyncio.run` does."""
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)
    return _loop().run_until_complete(work)
