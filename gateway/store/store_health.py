"""Whether Redis says anything at all: after one command waited in vain, the others do not wait too.

Shared by the clients of one process. A Redis that hangs would otherwise cost a request its deadline at each of its
steps. Asks until it is answered, and never holds up anything while Redis answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PAUSE_S = 0.1
"""Seconds between two questions that were refused at once."""


class StoreHealth:
    """`is_answered` asks Redis something that changes nothing, once, for as long as a command may take."""

    def __init__(self, is_answered: Callable[[], Awaitable[bool]], pause_s: float = PAUSE_S) -> None:
        self._is_answered = is_answered
        self._pause_s = pause_s
        self._feeling: asyncio.Task[None] | None = None
        self.losses = 0
        """How often it was lost. A connection from before the last time may lead to a server that is gone."""

    @property
    def is_lost(self) -> bool:
        """Whether nothing was heard since a command waited in vain."""
        return self._feeling is not None and not self._feeling.done()

    def lose(self) -> None:
        """A command waited in vain."""
        if not self.is_lost:
            self.losses += 1
            self._feeling = asyncio.create_task(self._feel(), name="store health")

    async def stop(self) -> None:
        """Ask no more."""
        if self._feeling is not None:
            self._feeling.cancel()
            await asyncio.wait({self._feeling})

    async def _feel(self) -> None:
        while True:
            if await self._is_answered():
                return
            await asyncio.sleep(self._pause_s)
