"""How many wrong keys came from an address in the last minute, counted by all workers together.

Asked by `auth` after a key was found to be wrong; a right key is never held back. Keeps a count of its own for the time
in which Redis is away, and so that an address which is over its limit costs Redis nothing.
"""

from __future__ import annotations

import time
from collections import OrderedDict

import structlog

from gateway.store import names
from gateway.store.client import StoreClient, StoreUnavailable

LIMIT = 30
WINDOW_S = 60.0
_MOST_SOURCES = 10_000
_AWAY_S = 5.0

_log = structlog.get_logger(__name__)


class WrongKeys:
    """The counts in one store. A window begins with a source's first wrong key."""

    def __init__(self, redis: StoreClient, *, limit: int = LIMIT, window_s: float = WINDOW_S) -> None:
        self._redis = redis
        self._limit = limit
        self._window_s = window_s
        # Of each source: how many, and the monotonic time at which the window ends.
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._away_until = 0.0

    async def count(self, source: str) -> float | None:
        """Count one more; when that is over the limit, the seconds until wrong keys are answered as such again."""
        now = time.monotonic()
        number, end = self._seen.get(source, (0, 0.0))
        if end <= now:
            number, end = 0, now + self._window_s
        if number <= self._limit:
            number, end = await self._ask(source, number + 1, end)
            self._remember(source, number, end)
            if number > self._limit:
                _log.warning("too many wrong keys from one address", address=source, keys=number)
        return max(0.0, end - time.monotonic()) if number > self._limit else None

    def forget(self) -> None:
        """Drop this process's own counts."""
        self._seen.clear()
        self._away_until = 0.0

    async def _ask(self, source: str, number: int, end: float) -> tuple[int, float]:
        """The count and its end as Redis has them, or the given ones while it is away."""
        if time.monotonic() < self._away_until:
            return number, end
        name = names.WRONG_KEYS(source)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(name, 0, nx=True, px=round(self._window_s * 1000))
                pipe.incr(name)
                pipe.pttl(name)
                _, counted, left_ms = await pipe.execute()
        except StoreUnavailable:
            # The next ones are not to wait for Redis as long.
            self._away_until = time.monotonic() + _AWAY_S
            return number, end
        return int(counted), time.monotonic() + int(left_ms) / 1000

    def _remember(self, source: str, number: int, end: float) -> None:
        self._seen[source] = (number, end)
        self._seen.move_to_end(source)
        if len(self._seen) > _MOST_SOURCES:
            self._seen.popitem(last=False)
