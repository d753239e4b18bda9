"""Whether the disks that keep what was paid for have room for more; when not, nothing is begun that costs money.

Asked by the image routes before anything is opened, and by `/readyz`. Looks once a second at most, and never frees
anything.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

EVERY_S = 1.0

_log = structlog.get_logger(__name__)


def free_bytes(folder: Path) -> int:
    """What a file system has left for us; of the nearest folder above, where this one is not made yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


class DiskSpace:
    """The folders whose file systems must keep `least` bytes free. `now` is in seconds and never goes back."""

    def __init__(
        self,
        folders: Sequence[Path],
        least: int,
        *,
        measure: Callable[[Path], int] = free_bytes,
        every_s: float = EVERY_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = tuple(folders)
        self._least = least
        self._measure = measure
        self._every_s = every_s
        self._now = now
        self._looked: float | None = None
        self._short: str | None = None

    async def find_shortage(self) -> str | None:
        """What has too little room, for the operator; None while there is enough."""
        now = self._now()
        if self._looked is None or now - self._looked >= self._every_s:
            # Set first, so that whoever asks meanwhile does not look too.
            self._looked = now
            # A network's file system can take its time, and the loop may not.
            self._tell(await asyncio.to_thread(self._look))
        return self._short

    def _look(self) -> str | None:
        for folder in self._folders:
            try:
                free = self._measure(folder)
            except OSError as error:
                return f"{folder} cannot be looked at ({error.strerror})"
            if free < self._least:
                return f"{folder} has {free >> 20} MiB free, less than limits.min_free ({self._least >> 20} MiB)"
        return None

    def _tell(self, short: str | None) -> None:
        if short is not None and self._short is None:
            _log.error("no new work: too little room", reason=short)
        elif short is None and self._short is not None:
            _log.info("there is room again: new work is taken")
        self._short = short
