"""Which workers of this data folder are dead: each holds a lock on a file of its own name for as long as it lives.

Tied by `app`, asked by `housekeeping`, which need not wait for the lease of a worker that is certainly gone. One that
sleeps, or is stopped, keeps its lock and is none of them; the file's time tells `doubting` when its loop last turned.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from pathlib import Path

_TICK_NS = 1_000_000_000


class WorkerLocks:
    """One process's. `folder` belongs to one instance, as the data folder does."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._own = folder / worker
        self._descriptor: int | None = None
        self._others: list[str] = []
        self._listed_at = 0

    def tie(self) -> None:
        """Be known to live, until `cut` or the process's end."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = self._folder / f".{self._own.name}"
        self._descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        # It has its name only once it is locked: nobody finds it free before.
        aside.rename(self._own)

    def beat(self) -> None:
        """The loop of this process turns."""
        if self._descriptor is not None:
            os.utime(self._descriptor)

    def cut(self) -> None:
        """Be known to be gone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def find_dead(self) -> list[str]:
        """The workers that were tied here, are gone, and were not forgotten."""
        return [name for name in self._list_others() if self._is_free(self._folder / name)]

    def find_living(self, since: int) -> list[str]:
        """The other workers that are tied here, and whose loops have turned `since` (unix ns)."""
        return [name for name in self._list_others() if self._has_turned(self._folder / name, since)]

    def forget(self, workers: Iterable[str]) -> None:
        """Their leases are ended."""
        for worker in workers:
            (self._folder / worker).unlink(missing_ok=True)

    def _list_others(self) -> list[str]:
        """Asked several times a second, and nearly always answered by one look at the folder's time."""
        try:
            changed = self._folder.stat().st_mtime_ns
            if changed != self._listed_at:
                found = (entry.name for entry in self._folder.iterdir())
                self._others = [name for name in found if not name.startswith(".") and name != self._own.name]
                # A change right after this one may bear the same time.
                self._listed_at = changed if time.time_ns() - changed > _TICK_NS else 0
        except FileNotFoundError:
            return []
        return self._others

    def _has_turned(self, path: Path, since: int) -> bool:
        try:
            return path.stat().st_mtime_ns >= since and not self._is_free(path)
        except FileNotFoundError:
            return False

    def _is_free(self, path: Path) -> bool:
        try:
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            return False
        return True
