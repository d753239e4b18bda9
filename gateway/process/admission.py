"""Admission: one process refuses requests above a number, in all and by key, rather than serve them slowly.

The concurrency limits of upstreams are elsewhere, in `gateway.health`.
"""

from __future__ import annotations

from collections import Counter
from types import TracebackType

from gateway import errors


class Admission:
    """The requests of one process: at most `most`, and `most_per_key` of one key. Running tasks count as well."""

    def __init__(self, most: int, most_per_key: int) -> None:
        self._most = most
        self._most_per_key = most_per_key
        self._by_key: Counter[str] = Counter()
        self.count = 0

    def enter(self, running: int) -> None:
        """Admit one request, while `running` tasks run. Raises Overloaded."""
        if max(self.count, running) >= self._most:
            raise errors.Overloaded("The gateway has too many requests in progress; try again shortly.", retry_after=2)
        self.count += 1

    def leave(self) -> None:
        self.count -= 1

    def enter_key(self, key: str) -> None:
        """Admit the same request for its key. Raises RateLimited."""
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
        """Admit the request for its key. Raises RateLimited."""
        self._admission.enter_key(key)
        self._key = key
