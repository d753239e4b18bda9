"""The keeper of a child process: it starts the child, and starts it again after each end while the gateway runs.

Only a child that can never start ends the gateway, and only at the first start. This module never decides the order of
starts and stops.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self

from gateway.process.children import SHORTAGES, ChildFailed, ChildWatch, name_exit
from gateway.process.settings import StartRefused

SAY_EVERY_S = 60.0
"""Seconds between two reports of one kind of trouble, until the child has run again."""

_PASSING = (OSError, MemoryError, subprocess.SubprocessError)
"""The errors of a machine without processes, descriptors, memory or disk space. They pass."""


@dataclass(frozen=True, slots=True)
class RestartDelay:
    """The seconds before the next start: first_s · 2ⁿ⁻¹, but at most `longest_s`.

    n counts deaths and failed starts in a row. A death after a run of `fast_s` seconds or more begins again at 1.
    """

    fast_s: float = 10.0
    first_s: float = 0.1
    longest_s: float = 10.0

    def delay(self, deaths: int) -> float:
        return min(self.longest_s, self.first_s * 2.0 ** min(max(0, deaths - 1), 16))


@dataclass(frozen=True, slots=True)
class _Trouble:
    """The reason why a child does not run: its kind, and its text for the report."""

    kind: Literal["death", "failure", "refusal", "shortage"]
    text: str


class ChildKeeper:
    """One child process. `start` starts it and returns when it is ready.

    `start` raises ChildFailed or an OSError where another start may succeed, and StartRefused where none can. `say`
    gets the reports of trouble.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Awaitable[subprocess.Popen[bytes]]],
        watch: ChildWatch,
        say: Callable[[str], None],
        restart_delay: RestartDelay | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.task: asyncio.Task[None] | None = None
        self._start = start
        self._watch = watch
        self._say = say
        self._restart_delay = restart_delay or RestartDelay()
        self._clock = clock
        self._began = 0.0
        self._deaths = 0
        self._said_at: dict[str, float] = {}

    async def begin(self) -> None:
        """Start the child, as often as needed until it is ready, and keep it alive from then on.

        Raises StartRefused, or an OSError other than SHORTAGES: then the child can never start.
        """
        while (trouble := await self._try_start(is_first=True)) is not None:
            await self._pause(trouble)
        self.task = asyncio.create_task(self._keep(), name=self.name)

    async def release(self) -> subprocess.Popen[bytes] | None:
        """Stop keeping the child alive; return its process if it still runs."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})
        return self.process if self.process is not None and self.process.poll() is None else None

    async def _keep(self) -> None:
        while True:
            assert self.process is not None
            end = name_exit(await self._watch.exit_of(self.process))
            if self._clock() - self._began >= self._restart_delay.fast_s:
                self._deaths = 0
            # A death of a child that ran is news each time.
            self._said_at.clear()
            await self._pause(_Trouble("death", f"ended ({end})"))
            while (trouble := await self._try_start(is_first=False)) is not None:
                await self._pause(trouble)

    async def _try_start(self, *, is_first: bool) -> _Trouble | None:
        """Start the child; return None when it is ready, else the trouble. The first start raises lasting errors."""
        self._began = self._clock()
        try:
            self.process = await self._start()
        except ChildFailed as failure:
            return _Trouble("failure", f"failed to start: {failure}")
        except StartRefused as refusal:
            if is_first:
                raise
            return _Trouble("refusal", f"cannot start: {refusal}")
        except _PASSING as error:
            # At the first start a wrong owner of a file, and the like, is a mistake to correct.
            if is_first and isinstance(error, OSError) and error.errno not in SHORTAGES:
                raise
            return _Trouble("shortage", f"cannot start: {name_shortage(error)}")
        return None

    async def _pause(self, trouble: _Trouble) -> None:
        """Report the trouble unless it was reported lately, and wait before the next start."""
        self._deaths += 1
        delay, now = self._restart_delay.delay(self._deaths), self._clock()
        if now - self._said_at.get(trouble.kind, float("-inf")) >= SAY_EVERY_S:
            self._said_at[trouble.kind] = now
            self._say(f"{self.name} {trouble.text}; starting it again in {delay:.1f} s")
        await asyncio.sleep(delay)


def name_shortage(error: BaseException) -> str:
    """The error in words, such as `No space left on device`."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


class FirstLine:
    """The reading end of a pipe to a child: it waits for the first line, and drops the rest.

    Give `writer` to the child, and leave the `with` block once the child has it: then the pipe ends with the child.
    """

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop = asyncio.get_running_loop()
        self._line: asyncio.Future[str] = self._loop.create_future()
        self._held = b""
        self._loop.add_reader(self._reader, self._read)

    async def wait(self, wait_s: float) -> str | None:
        """Wait up to `wait_s` seconds for the line. Returns it; "" if the child ended first, None after that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(self._line)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # At a failed start too, or each one would leave two descriptors.
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
