"""Keeps a child process alive: starts it, watches it, restarts it when it dies, and gives up after several fast deaths.

Never decides the order of starts and stops.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.process.children import ChildWatch, name_exit
from gateway.process.settings import StartRefused


class GaveUp(StartRefused):
    """A child died too often."""


class ChildFailed(StartRefused):
    """A child ended, or was silent, before it was ready."""


@dataclass(frozen=True, slots=True)
class RestartDelay:
    """A death within `fast_s` of the start is a fast one; the n-th in a row delays the next start by first_s · 2ⁿ⁻¹."""

    fast_s: float = 10.0
    fast_deaths: int = 5
    first_s: float = 0.1
    longest_s: float = 5.0

    def delay(self, deaths: int) -> float:
        return min(self.longest_s, self.first_s * 2.0 ** max(0, deaths - 1))


class ChildKeeper:
    """One child process. `start` starts it and returns when it is ready, or raises StartRefused."""

    def __init__(
        self,
        name: str,
        start: Callable[[], Awaitable[subprocess.Popen[bytes]]],
        watch: ChildWatch,
        say: Callable[[str], None],
        restart_delay: RestartDelay | None = None,
    ) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.task: asyncio.Task[None] | None = None
        self._start = start
        self._watch = watch
        self._say = say
        self._restart_delay = restart_delay or RestartDelay()
        self._began = 0.0

    async def begin(self) -> None:
        """Start the child, and keep it alive from then on. Raises the errors of `start`."""
        await self._start_once()
        self.task = asyncio.create_task(self._keep(), name=self.name)

    async def release(self) -> subprocess.Popen[bytes] | None:
        """Stop keeping the child alive; return its process if it still runs."""
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError, GaveUp):
                await self.task
        return self.process if self.process is not None and self.process.poll() is None else None

    async def _keep(self) -> None:
        deaths = 0
        while True:
            assert self.process is not None
            end = name_exit(await self._watch.exit_of(self.process))
            deaths = deaths + 1 if time.monotonic() - self._began < self._restart_delay.fast_s else 1
            while True:
                if deaths >= self._restart_delay.fast_deaths:
                    raise GaveUp(f"{self.name} ended {deaths} times in a row ({end}); gave up. Its output is above")
                delay = self._restart_delay.delay(deaths)
                self._say(f"{self.name} ended ({end}); starting it again in {delay:.1f} s")
                await asyncio.sleep(delay)
                try:
                    await self._start_once()
                except StartRefused as error:
                    end = str(error)
                    deaths += 1
                else:
                    break

    async def _start_once(self) -> None:
        self._began = time.monotonic()
        self.process = await self._start()


class FirstLine:
    """The reading end of a pipe to a child: it waits for the first line, and drops the rest.

    Give `writer` to the child and close it here; then the pipe ends with the child.
    """

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop = asyncio.get_running_loop()
        self._line: asyncio.Future[str] = self._loop.create_future()
        self._held = b""
        self._loop.add_reader(self._reader, self._read)

    async def wait(self, wait_s: float) -> str:
        """Return the line, or nothing if the child ended or was silent for too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(self._line)
        return ""

    def close_writer(self) -> None:
        os.close(self.writer)

    def _read(self) -> None:
        piece = os.read(self._reader, 65536)
        if not self._line.done():
            self._held += piece
            if b"\n" in self._held or not piece:
                self._line.set_result(self._held.partition(b"\n")[0].decode(errors="replace"))
        if not piece:
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
