"""Admission: one process refuses requests above a number, in all and for each key, rather than serve them slowly.

This module also bounds the retries at upstreams, and measures free disk space. The concurrency limits of upstreams are
in `gateway.health`.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import structlog

from gateway import errors

LEAST = 10
"""Retries in 60 seconds that are always allowed."""

SHARE = 0.1
"""The share of the calls of the last 60 seconds that may be retries."""

_MINUTE = 60.0


class Admission:
    """The image requests of one process. `most` bounds their number, and `most_per_key` the number of one key's.

    `most` also bounds the number of running tasks, which is counted separately.
    """

    def __init__(self, most: int, most_per_key: int) -> None:
        self._most = most
        self._most_per_key = most_per_key
        self._by_key: Counter[str] = Counter()
        self.count = 0

    def enter(self, running: int) -> None:
        """Admit one request. Raises Overloaded at the limit of requests, or when `running` tasks reach it."""
        if max(self.count, running) >= self._most:
            raise errors.Overloaded("The gateway has too many requests in progress; try again shortly.", retry_after=2)
        self.count += 1

    def leave(self) -> None:
        self.count -= 1

    def enter_key(self, key: str) -> None:
        """Admit a request for its key too. Raises RateLimited at the limit of the key's requests."""
        if self._by_key[key] >= self._most_per_key:
            raise errors.RateLimited("This key has too many requests in progress; try again shortly.", retry_after=2)
        self._by_key[key] += 1

    def leave_key(self, key: str) -> None:
        self._by_key[key] -= 1
        if not self._by_key[key]:
            del self._by_key[key]


class AdmittedRequest:
    """The admission of one request, released on exit. Not a generator: thousands of these exist at once."""

    __slots__ = ("_admission", "_has_entered", "_key")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._has_entered = False
        self._key: str | None = None

    def __enter__(self) -> AdmittedRequest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._key is not None:
            self._admission.leave_key(self._key)
        if self._has_entered:
            self._admission.leave()

    def enter(self, running: int) -> None:
        """Admit the request, while `running` tasks run. Raises Overloaded."""
        self._admission.enter(running)
        self._has_entered = True

    def enter_key(self, key: str) -> None:
        """Admit the request for its key too. Raises RateLimited at the limit of the key's requests."""
        self._admission.enter_key(key)
        self._key = key


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
        """The first folder with too little free space, as a sentence for operators; None if each has enough.

        A folder that cannot be measured counts as short. Measures at most every `every_s` seconds, else returns the
        last result. Logs the beginning and the end of a shortage.
        """
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


class RetryBudget:
    """The bound on one process's retries at the same target: the larger of LEAST and SHARE of a minute's calls.

    Without a bound every retry would make an upstream's bad minute worse. `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: deque[float] = deque()
        self._retries: deque[float] = deque()

    def note_call(self) -> None:
        """Count a call that was sent. A retry counts too."""
        self._calls.append(self._clock())

    def take(self) -> bool:
        """Count a retry and return True; if the budget of the last 60 seconds is used up, only return False."""
        now = self._clock()
        for times in (self._calls, self._retries):
            while times and times[0] <= now - _MINUTE:
                times.popleft()
        if len(self._retries) >= max(LEAST, int(SHARE * len(self._calls))):
            return False
        self._retries.append(now)
        return True

    def forget(self) -> None:
        self._calls.clear()
        self._retries.clear()
