"""A cache of key records: Redis is asked once a second for each key, not once a request.

While Redis is unavailable, a record of the last ten minutes still identifies a caller; the ledger alone stops spending.
Holds digests and records, never a key, and never the absence of a key.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gateway.callers.key_record import KeyRecord
from gateway.callers.key_store import KeyStore, is_well_formed
from gateway.store.client import StoreUnavailable

FRESH_S = 1.0
"""Seconds after which a disabled key stops everywhere."""

STALE_S = 600.0
MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record; `read` is the start of the last look-up that succeeded, `tried` the last one; monotonic seconds."""

    record: KeyRecord
    read: float
    tried: float


class KeyCache:
    """The cache of one process. `now` is a monotonic clock in seconds."""

    def __init__(
        self,
        keys: KeyStore,
        *,
        fresh_s: float = FRESH_S,
        stale_s: float = STALE_S,
        most: int = MOST,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._most = most
        self._now = now
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lookups: dict[str, tuple[float, asyncio.Task[KeyRecord | None]]] = {}

    async def lookup(self, secret: str) -> KeyRecord | None:
        """The record of a caller's key, at most a second old; None: no such key. Raises StoreUnavailable."""
        if not is_well_formed(secret):
            return None
        digest = self._keys.digest(secret)
        entry = self._entries.get(digest)
        # Taken before the look-up: a change during the look-up is not hidden for longer than FRESH_S.
        now = self._now()
        if entry is not None and now - entry.tried < self._fresh_s:
            return entry.record
        began, lookup = self._start_lookup(digest, now)
        try:
            # Shielded: a caller that disconnects cancels no look-up that others wait for.
            record = await asyncio.shield(lookup)
        except StoreUnavailable:
            if entry is None or now - entry.read > self._stale_s:
                raise
            # The next requests of this key do not wait for Redis again.
            self._keep(digest, _Entry(entry.record, entry.read, self._now()))
            return entry.record
        if record is None:
            self._entries.pop(digest, None)
        else:
            self._keep(digest, _Entry(record, began, began))
        return record

    def _start_lookup(self, digest: str, now: float) -> tuple[float, asyncio.Task[KeyRecord | None]]:
        """The running look-up of a key, shared by all its requests, and the time it began."""
        if digest not in self._lookups:
            lookup = asyncio.create_task(self._keys.find(digest))
            self._lookups[digest] = now, lookup
            lookup.add_done_callback(lambda _: self._end_lookup(digest, lookup))
        return self._lookups[digest]

    def _end_lookup(self, digest: str, lookup: asyncio.Task[KeyRecord | None]) -> None:
        if digest in self._lookups and self._lookups[digest][1] is lookup:
            del self._lookups[digest]
        if not lookup.cancelled():
            # Read, so that asyncio does not report it when every caller has disconnected.
            lookup.exception()

    def forget(self) -> None:
        """Drop all records, so that a change counts at once in this process."""
        self._entries.clear()
        self._lookups.clear()

    def _keep(self, digest: str, entry: _Entry) -> None:
        self._entries[digest] = entry
        self._entries.move_to_end(digest)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)
