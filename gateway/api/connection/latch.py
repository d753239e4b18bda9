"""An event that costs little while nobody waits for it, which is nearly always.

Used by `protocol` in place of those that uvicorn makes for each connection and each request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Literal

from typing_extensions import override


class Latch(asyncio.Event):
    """An asyncio.Event whose queue of waiters, 700 bytes where it is empty, is there only while somebody waits."""

    _waiters: Any = ()

    @override
    def __init__(self, *, is_set: bool = False) -> None:
        self._value = is_set

    @override
    async def wait(self) -> Literal[True]:
        if self._value:
            return True
        if not self._waiters:
            self._waiters = deque()
        try:
            return await super().wait()
        finally:
            if not self._waiters:
                self._waiters = ()
