"""Steps that a process takes again and again beside its requests.

A step that fails is logged and taken again after the usual pause; it never ends the others.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

CANCEL_EVERY_S = 0.5
"""Seconds between two cancellations of a step that does not end at the first one."""

_jitter = random.SystemRandom()

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class PeriodicStep:
    """A step, and the pause of `seconds` after it; the step itself may set another pause.

    `name` names the step in the log. `jitter` is the largest share by which a pause is longer or shorter at random.
    Errors that are `expected` get one line in the log until a step succeeds, others a traceback each time. `wake.set()`
    ends the pause.
    """

    name: str
    seconds: float
    step: Callable[[], Awaitable[object]]
    pauses_first: bool = False
    jitter: float = 0.0
    expected: tuple[type[Exception], ...] = ()
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _running: asyncio.Task[None] | None = field(default=None, init=False)
    _is_ending: bool = field(default=False, init=False)
    _has_failed: bool = field(default=False, init=False)

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Cancel the step that is running, and wait for its end.

        It is canceled again every CANCEL_EVERY_S, because a library may lose a cancellation while it connects.
        """
        self._is_ending = True
        while self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.wait({self._running}, timeout=CANCEL_EVERY_S)

    async def finish(self) -> None:
        """Wait for the end of the step that is running, and start no other."""
        self._is_ending = True
        self.wake.set()
        if self._running is not None:
            await asyncio.wait({self._running})

    async def _run(self) -> None:
        if self.pauses_first:
            await self._pause()
        while not self._is_ending:
            self.wake.clear()
            await self._take_step()
            await self._pause()

    async def _take_step(self) -> None:
        try:
            await self.step()
        except self.expected as error:
            if not self._has_failed:
                _log.warning("a periodic step fails", step=self.name, reason=str(error))
            self._has_failed = True
        except Exception:  # noqa: BLE001 (a fault in one step must not end those that come)
            _log.exception("a periodic step failed; it goes on", step=self.name)
        else:
            if self._has_failed:
                _log.info("a periodic step works again", step=self.name)
            self._has_failed = False

    async def _pause(self) -> None:
        seconds = self.seconds * _jitter.uniform(1 - self.jitter, 1 + self.jitter)
        try:
            async with asyncio.timeout(0 if self._is_ending else seconds):
                await self.wake.wait()
        except TimeoutError:
            return
