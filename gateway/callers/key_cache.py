"""Records of keys that were read a moment ago, so that a caller costs Redis one look-up a second and not one a request.

Asked by `auth`. While Redis is away a record that was read within ten minutes still tells who is asking: what spends is
closed by the ledger, not here. Holds digests and records, never a key, and never that there is no such key.
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
"""So soon a disabled key stops everywhere."""

STALE_S = 600.0
MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Entry:
    """`read` is when the record was asked for and came, `tried` when it was last asked for; monotonic seconds."""

    record: KeyRecord
    read: float
    tried: float


class KeyCache:
    """The records that one process has read. `now` is in seconds and never goes back."""

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
        self._asking: dict[str, tuple[float, asyncio.Task[KeyRecord | None]]] = {}

    async def lookup(self, secret: str) -> KeyRecord | None:
        """The record of a key that a caller sent, as it was at most a second ago. Raises StoreUnavailable."""
        if not is_well_formed(secret):
            return None
        digest = self._keys.digest(secret)
        entry = self._entries.get(digest)
        # Taken before the question: what changes while the answer is under way is not hidden for longer.
        now = self._now()
        if entry is not None and now - entry.tried < self._fresh_s:
            return entry.record
        began, asking = self._ask(digest, now)
        try:
            # Shielded: whoever leaves takes nobody else's answer along.
            record = await asyncio.shield(asking)
        except StoreUnavailable:
            if entry is None or now - entry.read > self._stale_s:
                raise
            # Its next requests are not to wait for Redis too.
            self._keep(digest, _Entry(entry.record, entry.read, self._now()))
            return entry.record
        if record is None:
            self._entries.pop(digest, None)
        else:
            self._keep(digest, _Entry(record, began, began))
        return record

    def _ask(self, digest: str, now: float) -> tuple[float, asyncio.Task[KeyRecord | None]]:
        """One look-up, and when it began, however many ask for the same key meanwhile."""
        if digest not in self._asking:
            asking = asyncio.create_task(self._keys.find(digest))
            self._asking[digest] = now, asking
            asking.add_done_callback(lambda _: self._answered(digest, asking))
        return self._asking[digest]

    def _answered(self, digest: str, asked: asyncio.Task[KeyRecord | None]) -> None:
        if digest in self._asking and self._asking[digest][1] is asked:
            del self._asking[digest]
        if not asked.cancelled():
            # Heard, though everybody may have left.
            asked.exception()

    def forget(self) -> None:
        """Ask Redis at each key's next request: after a change that is to count at once in this process."""
        self._entries.clear()
        self._asking.clear()

    def _keep(self, digest: str, entry: _Entry) -> None:
        self._entries[digest] = entry
        self._entries.move_to_end(digest)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)
