"""The free space of the disks that keep paid pictures. Without enough of it the gateway starts no paid work.

Measures once a second at most. Never frees space.
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
    """The free bytes of a folder's file system; of its nearest existing parent if it does not exist."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


class DiskSpace:
    """The folders whose file systems must keep `least` bytes free. `now` is a monotonic clock in seconds."""

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
        """The folder with too little free space, as a sentence for operators; None if there is enough."""
        now = self._now()
        if self._looked is None or now - self._looked >= self._every_s:
            # Set first, so that no other request measures meanwhile.
            self._looked = now
            # A network file system may be slow, and must not block the event loop.
            self._log_change(await asyncio.to_thread(self._look))
        return self._short

    def _look(self) -> str | None:
        for folder in self._folders:
            try:
                free = self._measure(folder)
            except OSError as error:
                return f"{folder} cannot be measured ({error.strerror})"
            if free < self._least:
                return f"{folder} has {free >> 20} MiB free, less than limits.min_free ({self._least >> 20} MiB)"
        return None

    def _log_change(self, short: str | None) -> None:
        if short is not None and self._short is None:
            _log.error("no new work: too little disk space", reason=short)
        elif short is None and self._short is not None:
            _log.info("new work is accepted again: enough disk space")
        self._short = short
