"""How many requests are under way in one process, in all and by key: refused at once, rather than served slowly.

Asked by `api.front` before a body is read. What an upstream takes is bounded by its credentials' places, in `waiting`.
"""

from __future__ import annotations

from collections import Counter
from types import TracebackType

from gateway import errors


class Admission:
    """`most` and `most_per_key` bound the requests; work that has outlived its request takes a place too."""

    def __init__(self, most: int, most_per_key: int) -> None:
        self._most = most
        self._most_per_key = most_per_key
        self._by_key: Counter[str] = Counter()
        self.count = 0

    def enter(self, running: int) -> None:
        """One request, while `running` tasks work. Raises Overloaded."""
        if max(self.count, running) >= self._most:
            raise errors.Overloaded("The gateway serves as many requests as it may; try again shortly.", retry_after=2)
        self.count += 1

    def leave(self) -> None:
        self.count -= 1

    def enter_key(self, key: str) -> None:
        """The same request, once its key is known. Raises RateLimited."""
        if self._by_key[key] >= self._most_per_key:
            raise errors.RateLimited("This key has as many requests under way here as a key may.", retry_after=2)
        self._by_key[key] += 1

    def leave_key(self, key: str) -> None:
        self._by_key[key] -= 1
        if not self._by_key[key]:
            del self._by_key[key]


class AdmittedRequest:
    """One request's places in a crowd, given back when it is left. Not generators: thousands of these wait at once."""

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
        """One place, while `running` tasks work. Raises Overloaded."""
        self._admission.enter(running)
        self._has_entered = True

    def enter_key(self, key: str) -> None:
        """One of the key's, too. Raises RateLimited."""
        self._admission.enter_key(key)
        self._key = key
