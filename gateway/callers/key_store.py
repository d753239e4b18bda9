"""API keys in Redis: a secret is shown once and stored as an HMAC with the pepper, a digest that finds the record.

This module never stores or logs a key itself.
"""

from __future__ import annotations

import difflib
import hmac
import re
import secrets
import zlib
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from gateway import errors
from gateway.callers.key_record import KeyChange, KeyRecord, NewKey
from gateway.ids import BODY, new_id
from gateway.process.settings import StartRefused
from gateway.store import names
from gateway.store.client import StoreClient

PREFIX = "igw_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM = 32
_CHECK = 6
_ID = re.compile(rf"key_{BODY}")
_MOST_NAMED = 5
_BODY = re.compile(rf"[0-9A-Za-z]{{{_RANDOM}}}")

DAY_S = 86_400
"""Seconds that a rotated key's former secret works, by default."""

# One round trip for a present, a former and an unknown secret alike.
_FIND = """
local fields = redis.call('HGETALL', KEYS[1])
if #fields > 0 then return fields end
local id = redis.call('GET', ARGV[1])
local digest = id and redis.call('HGET', ARGV[2], id)
return digest and redis.call('HGETALL', ARGV[3] .. digest) or {}
"""

# A plain HSET would restore half a record of a key that was just deleted or rotated.
_CHANGE = """
local digest = redis.call('HGET', KEYS[1], ARGV[1])
if not digest then return 0 end
redis.call('HSET', ARGV[2] .. digest, unpack(ARGV, 3))
return 1
"""

# The record moves under the new digest; the old one points to the key's id until its grace time ends. `former` lists
# such pointers, so that a rotation without grace and a deletion find them.
_ROTATE = """
local index, id, digest, record, former, grace_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local old = redis.call('HGET', index, id)
if not old or redis.call('EXISTS', record .. old) == 0 then return 0 end
local pointers, kept = redis.call('HGET', record .. old, 'former'), {}
for _, pointer in ipairs(pointers and cjson.decode(pointers) or {}) do
  if grace_ms == 0 then redis.call('DEL', former .. pointer)
  elseif redis.call('EXISTS', former .. pointer) == 1 then kept[#kept + 1] = pointer end
end
if grace_ms > 0 then
  redis.call('SET', former .. old, id, 'PX', grace_ms)
  kept[#kept + 1] = old
end
redis.call('RENAME', record .. old, record .. digest)
redis.call('HSET', record .. digest, 'former', #kept > 0 and cjson.encode(kept) or '[]', unpack(ARGV, 6))
redis.call('HSET', index, id, digest)
return 1
"""

_DELETE = """
local index, id, record, former = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local digest = redis.call('HGET', index, id)
if not digest then return 0 end
local pointers = redis.call('HGET', record .. digest, 'former')
for _, pointer in ipairs(pointers and cjson.decode(pointers) or {}) do redis.call('DEL', former .. pointer) end
redis.call('DEL', record .. digest)
redis.call('HDEL', index, id)
return 1
"""


class PepperMismatch(StartRefused):
    """The store's keys were made with another pepper, so no key of a caller would be found."""

    def __init__(self) -> None:
        super().__init__(
            "The API keys in this store were made with another GATEWAY_KEY_PEPPER, so none of them would work. "
            "Set that one, or use an empty store"
        )


class KeyStore:
    """The keys in one store under one pepper. Every method may raise StoreUnavailable."""

    def __init__(self, redis: StoreClient, pepper: bytes) -> None:
        self._redis = redis
        self._pepper = pepper

    async def check_pepper(self, *, may_write: bool = True) -> None:
        """Raise PepperMismatch unless this store's keys were made with this pepper.

        A store that has no pepper yet takes this one, unless `may_write` is False.
        """
        mine = self._hmac("pepper-check")
        if may_write and await self._redis.set(names.PEPPER_CHECK(), mine, nx=True):
            return
        theirs = await self._redis.get(names.PEPPER_CHECK())
        if theirs is not None and not hmac.compare_digest(str(theirs), mine):
            raise PepperMismatch

    async def add(self, new: NewKey, *, demo: bool = False, key_id: str | None = None) -> tuple[KeyRecord, str]:
        """Add a key; return its record and its secret, which nothing can show again.

        `key_id` is an id that was made for it before; None makes one.
        """
        secret = make_secret()
        record = KeyRecord(
            id=key_id or new_id("key"), created=_now(), demo=demo, hint=_hint(secret), **new.model_dump()
        )
        digest = self.digest(secret)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(names.KEY(digest), items=_pairs(record.to_hash()))
            pipe.hset(names.KEY_INDEX(), record.id, digest)
            await pipe.execute()
        return record, secret

    async def create(
        self, name: str, team: str | None = None, *, demo: bool = False, **fields: Any
    ) -> tuple[KeyRecord, str]:
        """Add a key with these fields of NewKey; return its record and its secret.

        Raises pydantic's ValidationError.
        """
        return await self.add(NewKey(name=name, team=team, **fields), demo=demo)

    async def lookup(self, secret: str) -> KeyRecord | None:
        """The record of a key, enabled or not; None if there is no such key.

        A mistyped key fails by its checksum, without a question to Redis.
        """
        return await self.find(self.digest(secret)) if is_well_formed(secret) else None

    async def find(self, digest: str) -> KeyRecord | None:
        """The record of a digest: of the present secret, or of a former one in its grace time; None for another."""
        stems = (names.FORMER_KEY(digest), names.KEY_INDEX(), names.KEY(""))
        flat = await _reply(self._redis.eval(_FIND, 1, names.KEY(digest), *stems))
        return KeyRecord.from_hash(dict(zip(flat[::2], flat[1::2], strict=True))) if flat else None

    async def show(self, key_id: str) -> KeyRecord:
        """The record of a key's id. Raises KeyNotFound."""
        record = await self._look(key_id)
        if record is None:
            raise _no_such_key()
        return record

    async def find_id(self, text: str) -> str:
        """Return the id of the only key with this name. A text with the form of an id is returned without a look-up.

        A text that only begins with `key_` is returned too, if no key has that name. Raises KeyNotFound for an unknown
        name, and for a name of several keys.
        """
        if _ID.fullmatch(text):
            return text
        names_of = {record.id: record.name for record in await self.list()}
        ids = [key_id for key_id, name in names_of.items() if name == text]
        if len(ids) == 1:
            return ids[0]
        if ids:
            shown = ", ".join(ids[:_MOST_NAMED]) + (", …" if len(ids) > _MOST_NAMED else "")
            raise errors.KeyNotFound(f"{len(ids)} keys are named {text!r:.100}: {shown}; give the id.", param="key")
        if text.startswith("key_"):
            # An id after all; the reader of its record refuses it, and a filter finds nothing.
            return text
        near = difflib.get_close_matches(text, names_of.values(), n=1)
        hint = f"did you mean {near[0]!r:.100}?" if near else "give a key's name or id."
        raise errors.KeyNotFound(f"No key is named {text!r:.100}; {hint}", param="key")

    async def list(self, *, team: str | None = None) -> list[KeyRecord]:
        """Every key, or a team's, oldest first."""
        index = await _reply(self._redis.hgetall(names.KEY_INDEX()))
        async with self._redis.pipeline(transaction=False) as pipe:
            for digest in index.values():
                pipe.hgetall(names.KEY(digest))
            rows = await pipe.execute()
        # A missing record was just deleted, or rotated: then it has another digest.
        found = [
            KeyRecord.from_hash(row) if row else await self._look(key_id)
            for key_id, row in zip(index, rows, strict=True)
        ]
        records = [one for one in found if one is not None and team in (None, one.team)]
        return sorted(records, key=lambda record: record.id)

    async def disable(self, key_id: str) -> KeyRecord:
        """Disable a key, so that its requests are refused. Raises KeyNotFound."""
        return await self.change(key_id, enabled=False)

    async def enable(self, key_id: str) -> KeyRecord:
        """Enable a key. Raises KeyNotFound."""
        return await self.change(key_id, enabled=True)

    async def apply(self, key_id: str, change: KeyChange) -> KeyRecord:
        """Set the fields that `change` sets, and return the changed record. Raises KeyNotFound."""
        values = change.changes()
        if not values:
            return await self.show(key_id)
        return await self._set(await self.show(key_id), values)

    async def change(self, key_id: str, **values: Any) -> KeyRecord:
        """Set these fields of KeyChange, and return the changed record.

        Raises KeyNotFound, pydantic's ValidationError.
        """
        return await self.apply(key_id, KeyChange(**values))

    async def rotate(self, key_id: str, grace_s: int = DAY_S) -> tuple[KeyRecord, str]:
        """Give a key a new secret; return the record and the secret. The old one works for `grace_s` more seconds.

        With a grace of 0 all former secrets stop at once, those of earlier rotations too. Raises KeyNotFound.
        """
        secret = make_secret()
        record = await self.show(key_id)
        changed = record.model_copy(update={"hint": _hint(secret), "rotated": _now()}).to_hash()
        pairs = _pairs({field: changed[field] for field in ("hint", "rotated")})
        stems = (names.KEY(""), names.FORMER_KEY(""))
        words = (key_id, self.digest(secret), *stems, str(grace_s * 1000), *pairs)
        if not await _reply(self._redis.eval(_ROTATE, 1, names.KEY_INDEX(), *words)):
            raise _no_such_key()
        return await self.show(key_id), secret

    async def rotate_webhook(self, key_id: str, grace_s: int = DAY_S) -> KeyRecord:
        """Give a key's webhooks a new secret; return the record. Raises KeyNotFound.

        The old secret signs too for `grace_s` more seconds, and one before it no longer.
        """
        record = await self.show(key_id)
        until = datetime.now(UTC) + timedelta(seconds=grace_s)
        values = {"webhook_secret": record.webhook_secret + 1, "webhook_overlap": until if grace_s else None}
        return await self._set(record, values)

    async def delete(self, key_id: str) -> None:
        """Delete a key and its former secrets for ever. Its limits stay. Raises KeyNotFound."""
        stems = (names.KEY(""), names.FORMER_KEY(""))
        if not await _reply(self._redis.eval(_DELETE, 1, names.KEY_INDEX(), key_id, *stems)):
            raise _no_such_key()

    async def _set(self, record: KeyRecord, values: Mapping[str, Any]) -> KeyRecord:
        changed = record.model_copy(update=values).to_hash()
        pairs = _pairs({field: changed[field] for field in values})
        if not await _reply(self._redis.eval(_CHANGE, 1, names.KEY_INDEX(), record.id, names.KEY(""), *pairs)):
            raise _no_such_key()
        return await self.show(record.id)

    async def _look(self, key_id: str) -> KeyRecord | None:
        digest = await _reply(self._redis.hget(names.KEY_INDEX(), key_id))
        return None if digest is None else await self.find(str(digest))

    def digest(self, secret: str) -> str:
        """The digest that the store has in place of a secret."""
        return self._hmac(secret)

    def _hmac(self, text: str) -> str:
        return digest_of(text, self._pepper)


def make_secret(prefix: str = PREFIX) -> str:
    """Make a random secret: the prefix, 32 random letters and digits (190 bits), and an unkeyed checksum.

    By the checksum the gateway rejects a mistyped secret, and a scanner recognises a secret in a published text.
    """
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return f"{prefix}{body}{_checksum(body)}"


def is_well_formed(secret: str, prefix: str = PREFIX) -> bool:
    """True when a text has the prefix, the form and the checksum of a secret."""
    body = secret[len(prefix) : -_CHECK]
    if not secret.startswith(prefix) or not _BODY.fullmatch(body):
        return False
    return secret[-_CHECK:] == _checksum(body)


def digest_of(secret: str, pepper: bytes) -> str:
    """The digest that is stored in place of a secret: HMAC-SHA256 with the pepper, in hex."""
    # Not `hmac.digest`: that lets other threads run, and the event loop waits for the interpreter again.
    return hmac.new(pepper, secret.encode(), "sha256").hexdigest()


def _no_such_key() -> errors.KeyNotFound:
    return errors.KeyNotFound("There is no key of this id.", param="key_id")


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def _pairs(fields: Mapping[str, str]) -> list[str]:
    return [item for pair in fields.items() for item in pair]


def _hint(secret: str) -> str:
    return secret[: len(PREFIX) + 4]


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


async def _reply(answer: Awaitable[Any] | Any) -> Any:
    # redis-py types its answers for the blocking and the asynchronous client together.
    return await cast(Awaitable[Any], answer)
