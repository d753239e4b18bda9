"""Authentication: the Caller of a request's API key, by the request's head alone.

No error tells the wrong part of a key.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway import errors
from gateway.callers.key_record import KeyRecord
from gateway.callers.key_store import PREFIX, KeyStore, is_well_formed
from gateway.callers.wrong_keys import WrongKeys
from gateway.catalogue.document import Alias
from gateway.catalogue.rules import CallerIdentity
from gateway.jobs.job import ImageJob
from gateway.money.reservation import ledger_unavailable
from gateway.process.addresses import Address, is_within, name_source
from gateway.routing.rights import Rights
from gateway.store.client import StoreUnavailable

_PLACEHOLDER = f"{PREFIX}YOUR_KEY"
"""The key in the examples of the documents."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request: the key with its rights, and the address, which is None on a Unix socket."""

    key: KeyRecord
    address: Address | None = None

    @property
    def identity(self) -> CallerIdentity:
        """The caller's key and team, as rules and the ledger name them."""
        return CallerIdentity(self.key.id, self.key.name, self.key.team or "")

    def may_use(self, name: str, alias: Alias | None) -> bool:
        """True when this caller may use a model under this name. A key for a model may use the model's aliases too."""
        allowed = self.key.models
        return allowed is None or name in allowed or (alias is not None and alias.model in allowed)

    def may_reach(self, upstream: str) -> bool:
        """True when an upstream may serve this caller."""
        return self.key.upstreams is None or upstream in self.key.upstreams

    def check_model(self, name: str, alias: Alias | None) -> None:
        """Raise ModelNotAllowed unless this caller may use the model under the name in the request."""
        if not self.may_use(name, alias):
            allowed = ", ".join(self.key.models or ()) or "none"
            raise errors.ModelNotAllowed(
                f"This key may not use the model `{name}`; it may use {allowed}.", param="model"
            )

    def check_job(self, job: ImageJob, upstream: str | None = None) -> Rights:
        """Check a job against the key, and return the key's rights for the plan. `upstream` is the caller's choice.

        Raises UpstreamNotAllowed, UnsupportedValue.
        """
        key = self.key
        rights = Rights(key.upstreams, key.max_quality, key.max_pixels, key.max_n, pinned=upstream)
        if upstream is not None:
            self._check_choice(upstream)
        rights.check(job)
        return rights

    def _check_choice(self, upstream: str) -> None:
        if not self.key.may_pin_upstream:
            raise errors.UpstreamNotAllowed("This key may not choose its upstream; send no X-Gateway-Upstream header.")
        if not self.may_reach(upstream.partition("/")[0]):
            allowed = ", ".join(self.key.upstreams or ())
            raise errors.UpstreamNotAllowed(
                f"This key may not use the upstream {upstream!r:.100}; it may use {allowed}."
            )


def _ignore(_: KeyRecord) -> None:
    pass


async def authenticate(
    keys: KeyCache,
    wrong_keys: WrongKeys,
    authorization: str | None,
    address: Address | None,
    on_key: Callable[[KeyRecord], None] = _ignore,
) -> Caller:
    """Find the caller of an `Authorization: Bearer` header. `on_key` gets the record of a known key before its checks.

    A wrong key counts against its address; a missing, disabled or expired one does not.

    Raises InvalidApiKey, KeyDisabled, AddressNotAllowed, RateLimited after too many wrong keys, QuotaStoreUnavailable.
    """
    secret = read_bearer(authorization)
    if not secret:
        fault = explain_missing(authorization, "API key")
        raise errors.InvalidApiKey(f"{fault} `imagegate keys create NAME` makes a key.")
    try:
        record = await keys.lookup(secret)
    except StoreUnavailable as error:
        raise ledger_unavailable() from error
    if record is None:
        raise await count_wrong(wrong_keys, address, errors.InvalidApiKey(_explain_wrong(secret)))
    on_key(record)
    _check_record(record, address)
    return Caller(record, address)


def read_bearer(authorization: str | None) -> str:
    """The secret in an `Authorization: Bearer` header; empty where there is none."""
    scheme, _, secret = (authorization or "").strip().partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def explain_missing(authorization: str | None, what: str) -> str:
    """The fault of an Authorization header without a bearer secret, and the right form. `what`: as in `API key`."""
    right = f"Authorization: Bearer YOUR_{what.split()[-1].upper()}"
    scheme = (authorization or "").strip().partition(" ")[0]
    if scheme and scheme.lower() != "bearer":
        return f"The Authorization header has no `Bearer ` before the {what}. Send {right}."
    return f"You didn't provide an {what}. Send it in an Authorization header using Bearer auth ({right})."


async def count_wrong(
    wrong_keys: WrongKeys, address: Address | None, refusal: errors.PublicError
) -> errors.PublicError:
    """Count a wrong key or token against its address. Return the error to raise: `refusal`, or RateLimited.

    RateLimited is for an address that has sent too many wrong ones within its minute.
    """
    wait_s = await wrong_keys.count(name_source(address))
    if wait_s is None:
        return refusal
    return errors.RateLimited(
        "This address sent too many wrong API keys; correct the key, and try again in a minute.",
        retry_after=max(1, math.ceil(wait_s)),
    )


def _check_record(record: KeyRecord, address: Address | None) -> None:
    # Disabled before expired: an operator decided to disable the key, and its owner must learn that.
    if not record.enabled:
        raise errors.KeyDisabled("This API key is disabled; ask the operator of this gateway.")
    if record.has_expired(datetime.now(UTC)):
        raise errors.InvalidApiKey(
            f"This API key expired on {record.expires:%Y-%m-%d at %H:%M} UTC; "
            "ask the operator of this gateway for another."
        )
    if record.addresses is not None and not is_within(address, record.addresses):
        shown = "a Unix socket" if address is None else str(address)
        raise errors.AddressNotAllowed(
            f"This API key may not be used from {shown}; ask the operator of this gateway to add that address."
        )


def _explain_wrong(secret: str) -> str:
    """The same words for every key of the right prefix: they show nobody which part of a key is right."""
    if secret == _PLACEHOLDER:
        return (
            f"Incorrect API key provided: {_PLACEHOLDER} stands for a key in the documents. "
            "`imagegate keys create NAME` makes a key; in demo mode the data folder's file demo.key has one."
        )
    text = f"Incorrect API key provided: {_hint(secret)}."
    if not secret.startswith(PREFIX):
        return f"{text} This gateway's keys begin with {PREFIX}."
    return (
        f"{text} This gateway has no such key: it is mistyped, it was deleted, or it belongs to another gateway or "
        "data folder. `imagegate keys list` shows an operator the keys."
    )


def _hint(secret: str) -> str:
    """The first and last four characters of a wrong key, for its owner; `***` alone for 12 characters or fewer."""
    plain = "".join(char if char.isascii() and char.isprintable() else "?" for char in secret)
    return f"{plain[:4]}***{plain[-4:]}" if len(plain) > 12 else "***"


FRESH_S = 1.0
"""The most seconds until a change of a key takes effect in every process, while Redis answers."""

STALE_S = 600.0
MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record. `read` is the start of its last look-up that succeeded; `tried` is this or the end of a later failure.

    Both are monotonic seconds.
    """

    record: KeyRecord
    read: float
    tried: float


class KeyCache:
    """One process's cache of keys, with no more than `most` records. `now` returns monotonic seconds."""

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
        """The record of a caller's key, from the cache if read within `fresh_s` seconds; None if there is no such key.

        While Redis is unavailable the record may be older, up to `stale_s` and `fresh_s` seconds together. Raises
        StoreUnavailable if Redis is unavailable and the cache has no such record.
        """
        digest = self._keys.digest(secret)
        entry = self._entries.get(digest)
        if entry is None and not is_well_formed(secret):
            return None
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
        """Start a look-up of a key if none runs; return the look-up, which its requests share, and its start."""
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
