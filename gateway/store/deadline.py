"""How long Redis may take to answer: time in which this process's own loop was busy is not counted against it.

Used by `store.client`. Never waits without an end: a loop that is not late counts every second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LATE_S = 0.03
"""A bell that rings so much later than it was due tells of a busy loop: the answer may lie unread in its socket."""


@asynccontextmanager
async def deadline(seconds: float | None) -> AsyncIterator[None]:
    """Raises TimeoutError after `seconds`, which begin anew whenever the loop was late to notice their end."""
    if seconds is None:
        yield
        return
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as guard:

        def ring(due: float) -> None:
            nonlocal bell
            now = loop.time()
            if now - due <= LATE_S:
                guard.reschedule(now)
            else:
                bell = loop.call_at(now + seconds, ring, now + seconds)

        due = loop.time() + seconds
        bell = loop.call_at(due, ring, due)
        try:
            yield
        finally:
            bell.cancel()
