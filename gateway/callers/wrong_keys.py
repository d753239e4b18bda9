"""The number of wrong keys from each address in a minute that begins with the first of them, over all workers together.

A right key is never refused for this number. Each process keeps its own count too: for the time when Redis is
unavailable, and to refuse an address over the limit without a question to Redis.
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
_RETRY_S = 5.0

_log = structlog.get_logger(__name__)


class WrongKeys:
    """The counts in one store. A window of `window_s` seconds begins with an address's first wrong key.

    An address may send `limit` wrong keys in a window.
    """

    def __init__(self, redis: StoreClient, *, limit: int = LIMIT, window_s: float = WINDOW_S) -> None:
        self._redis = redis
        self._limit = limit
        self._window_s = window_s
        # By address: the count, and the monotonic time of the window's end.
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._unavailable_until = 0.0

    async def count(self, source: str) -> float | None:
        """Count one wrong key from `source`, an address or an IPv6 network.

        Returns the seconds until the window ends if `source` is over the limit, else None. While Redis is unavailable
        this process's own count decides.
        """
        now = time.monotonic()
        number, end = self._seen.get(source, (0, 0.0))
        if end <= now:
            number, end = 0, now + self._window_s
        if number <= self._limit:
            number, end = await self._count_in_redis(source, number + 1, end)
            self._remember(source, number, end)
            if number > self._limit:
                _log.warning("too many wrong keys from one address", address=source, keys=number)
        return max(0.0, end - time.monotonic()) if number > self._limit else None

    def forget(self) -> None:
        """Drop this process's own counts; those in Redis stay."""
        self._seen.clear()
        self._unavailable_until = 0.0

    async def _count_in_redis(self, source: str, number: int, end: float) -> tuple[int, float]:
        """Count in Redis. Returns its count and end of the window, or the given ones while Redis is unavailable."""
        if time.monotonic() < self._unavailable_until:
            return number, end
        name = names.WRONG_KEYS(source)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(name, 0, nx=True, px=round(self._window_s * 1000))
                pipe.incr(name)
                pipe.pttl(name)
                _, counted, left_ms = await pipe.execute()
        except StoreUnavailable:
            # The next wrong keys do not wait for Redis again.
            self._unavailable_until = time.monotonic() + _RETRY_S
            return number, end
        return int(counted), time.monotonic() + int(left_ms) / 1000

    def _remember(self, source: str, number: int, end: float) -> None:
        self._seen[source] = (number, end)
        self._seen.move_to_end(source)
        if len(self._seen) > _MOST_SOURCES:
            self._seen.popitem(last=False)
