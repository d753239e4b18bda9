"""Worker locks: each worker of a data folder locks a file of its name while it lives, so that others find dead ones.

The kernel frees the lock of a dead worker at once, before its lease ends. A suspended worker keeps its lock. The file's
time is a recent turn of the worker's event loop.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICK_NS = 1_000_000_000
_ENDED = b"ended\n"


class WorkerLocks:
    """The lock of one worker, and its view of the others. `folder` belongs to one instance of the gateway."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._own = folder / worker
        self._descriptor: int | None = None
        self._others: list[str] = []
        self._listed_at = 0

    def acquire(self) -> None:
        """Create and lock the file of this worker, until `release` or the end of the process. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = self._folder / f".{self._own.name}"
        self._descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        # The file gets its name only once it is locked, so that nobody finds it free.
        aside.rename(self._own)

    def touch(self, at: int | None = None) -> None:
        """Set the file's time to a turn of this worker's event loop: `at` in unix ns, None is now.

        Has no effect without the lock.
        """
        if self._descriptor is not None:
            at = time.time_ns() if at is None else at
            os.utime(self._descriptor, ns=(at, at))

    def release(self) -> None:
        """Mark the file as cleanly ended, and free the lock.

        Other workers adopt the tasks that are left, and log no death. Has no effect without the lock.
        """
        if self._descriptor is not None:
            # Without room on the disk the others take this end for a death, which costs a warning.
            with suppress(OSError):
                os.write(self._descriptor, _ENDED)
            os.close(self._descriptor)
            self._descriptor = None

    def find_dead(self) -> list[str]:
        """The other workers whose lock is free and whose file is still there, however they ended."""
        return [name for name in self._list_others() if self._is_free(self._folder / name)]

    def find_killed(self, workers: Iterable[str]) -> list[str]:
        """Those of the workers that did not end with `release`; a worker without a file counts as one of them."""
        return [name for name in workers if not self._has_ended(self._folder / name)]

    def find_living(self, since: int) -> list[str]:
        """The other workers that hold their lock and whose event loop has turned since `since` (unix ns)."""
        return [name for name in self._list_others() if self._has_turned(self._folder / name, since)]

    def forget(self, workers: Iterable[str]) -> None:
        """Remove the files of workers. Call it once their leases have ended."""
        for worker in workers:
            (self._folder / worker).unlink(missing_ok=True)

    def _list_others(self) -> list[str]:
        """The other workers with a file. The list is read again only if the folder has changed: calls are frequent."""
        try:
            changed = self._folder.stat().st_mtime_ns
            if changed != self._listed_at:
                found = (entry.name for entry in self._folder.iterdir())
                self._others = [name for name in found if not name.startswith(".") and name != self._own.name]
                # A change right after this one may have the same time.
                self._listed_at = changed if time.time_ns() - changed > _TICK_NS else 0
        except FileNotFoundError:
            return []
        return self._others

    def _has_turned(self, path: Path, since: int) -> bool:
        try:
            return path.stat().st_mtime_ns >= since and not self._is_free(path)
        except FileNotFoundError:
            return False

    def _has_ended(self, path: Path) -> bool:
        try:
            return path.read_bytes() == _ENDED
        except FileNotFoundError:
            return False

    def _is_free(self, path: Path) -> bool:
        try:
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            return False
        return True
