"""How many requests are under way in one process, in all and by key: refused at once, rather than served slowly.

Asked by `api.front` before a body is read. What an upstream takes is bounded by its credentials' places, in `waiting`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway import errors


class Crowd:
    """`most` and `most_per_key` bound the requests; work that has outlived its request takes a place too."""

    def __init__(self, most: int, most_per_key: int) -> None:
        self._most = most
        self._most_per_key = most_per_key
        self._by_key: Counter[str] = Counter()
        self.count = 0

    @contextmanager
    def enter(self, running: int) -> Iterator[None]:
        """One request, while `running` tasks work. Raises Overloaded."""
        if max(self.count, running) >= self._most:
            raise errors.Overloaded("The gateway serves as many requests as it may; try again shortly.", retry_after=2)
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

    @contextmanager
    def enter_key(self, key: str) -> Iterator[None]:
        """The same request, once its key is known. Raises RateLimited."""
        if self._by_key[key] >= self._most_per_key:
            raise errors.RateLimited("This key has as many requests under way here as a key may.", retry_after=2)
        self._by_key[key] += 1
        try:
            yield
        finally:
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]
