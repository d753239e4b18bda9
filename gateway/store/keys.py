"""API keys: made, shown once, and kept only as an HMAC with the pepper; looked up by that digest.

Used by `auth` (lookup) and by the CLI and admin API (everything else). Never stores or logs a key itself.
"""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from collections.abc import Awaitable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter

from gateway.ids import new_id
from gateway.settings import StartRefused
from gateway.store import names
from gateway.store.client import StoreClient

PREFIX = "igw_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM = 32
_CHECK = 6
_SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM + _CHECK}}}")

# A plain HSET would bring back half a record of a key that was deleted a moment ago.
_CHANGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
"""

_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class PepperMismatch(StartRefused):
    """The store's keys were made with another pepper, so that none of them would be found."""

    def __init__(self) -> None:
        super().__init__(
            "The API keys in this store were made with another GATEWAY_KEY_PEPPER, so that none of them would work. "
            "Set the one they were made with, or use an empty store"
        )


class KeyNotFound(StartRefused):
    """No key has this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"No key has the id {key_id!r}; `imagegate keys list` shows those there are")
        self.key_id = key_id


class KeyRecord(BaseModel):
    """What is known of a key. `models` None allows every model; `hint` is the key's beginning, for people."""

    # A replica of an older version must read a record that a newer one wrote.
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    name: str
    team: str | None = None
    created: datetime
    enabled: bool = True
    demo: bool = False
    models: tuple[str, ...] | None = None
    hint: str = ""

    def to_hash(self) -> dict[str, str]:
        """The record as a Redis hash: each field by itself, as JSON, so that one can change without the others."""
        return {field: _to_json(value) for field, value in self.model_dump(mode="json").items()}

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> KeyRecord:
        return cls.model_validate({field: _ANY.validate_json(value) for field, value in fields.items()})


class KeyStore:
    """The keys in one store under one pepper."""

    def __init__(self, redis: StoreClient, pepper: bytes) -> None:
        self._redis = redis
        self._pepper = pepper

    async def check_pepper(self) -> None:
        """Raise PepperMismatch unless this store's keys were made with this pepper; a new store takes it as its own."""
        mine = self._hmac("pepper-check")
        if not await self._redis.set(names.PEPPER_CHECK(), mine, nx=True):
            theirs = await self._redis.get(names.PEPPER_CHECK())
            if not hmac.compare_digest(str(theirs), mine):
                raise PepperMismatch

    async def create(
        self, name: str, team: str | None = None, *, models: Iterable[str] | None = None, demo: bool = False
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret, which nothing can show again."""
        secret = make_secret()
        record = KeyRecord(
            id=new_id("key"),
            name=name,
            team=team,
            created=datetime.now(UTC).replace(microsecond=0),
            demo=demo,
            models=None if models is None else tuple(models),
            hint=secret[: len(PREFIX) + 4],
        )
        digest = self._hmac(secret)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(names.KEY(digest), items=_pairs(record.to_hash()))
            pipe.hset(names.KEY_INDEX(), record.id, digest)
            await pipe.execute()
        return record, secret

    async def lookup(self, secret: str) -> KeyRecord | None:
        """The record of a key that a caller sent, enabled or not. A mistyped key costs Redis nothing."""
        if not is_well_formed(secret):
            return None
        return await self._read(self._hmac(secret))

    async def show(self, key_id: str) -> KeyRecord:
        """Raises KeyNotFound."""
        record = await self._read(await self._digest(key_id))
        if record is None:
            raise KeyNotFound(key_id)
        return record

    async def list(self) -> list[KeyRecord]:
        """Every key, oldest first."""
        index = await _reply(self._redis.hgetall(names.KEY_INDEX()))
        async with self._redis.pipeline(transaction=False) as pipe:
            for digest in index.values():
                pipe.hgetall(names.KEY(digest))
            rows = await pipe.execute()
        return sorted((KeyRecord.from_hash(row) for row in rows if row), key=lambda record: record.id)

    async def disable(self, key_id: str) -> KeyRecord:
        """Refuse the key from its next request on. Raises KeyNotFound."""
        return await self.change(key_id, enabled=False)

    async def enable(self, key_id: str) -> KeyRecord:
        """Raises KeyNotFound."""
        return await self.change(key_id, enabled=True)

    async def change(self, key_id: str, **values: Any) -> KeyRecord:
        """Set fields of a record, and answer the record. Raises KeyNotFound."""
        digest = await self._digest(key_id)
        changed = KeyRecord.model_validate((await self.show(key_id)).model_dump() | values).to_hash()
        pairs = _pairs({field: changed[field] for field in values})
        if not await _reply(self._redis.eval(_CHANGE, 1, names.KEY(digest), *pairs)):
            raise KeyNotFound(key_id)
        return await self.show(key_id)

    async def delete(self, key_id: str) -> None:
        """Forget a key for ever. Raises KeyNotFound."""
        digest = await self._digest(key_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(names.KEY(digest))
            pipe.hdel(names.KEY_INDEX(), key_id)
            await pipe.execute()

    async def _digest(self, key_id: str) -> str:
        digest = await _reply(self._redis.hget(names.KEY_INDEX(), key_id))
        if digest is None:
            raise KeyNotFound(key_id)
        return str(digest)

    async def _read(self, digest: str) -> KeyRecord | None:
        fields = await _reply(self._redis.hgetall(names.KEY(digest)))
        return KeyRecord.from_hash(fields) if fields else None

    def _hmac(self, text: str) -> str:
        return hmac.new(self._pepper, text.encode(), "sha256").hexdigest()


def make_secret() -> str:
    """A new key: `igw_`, 190 bits of chance, and a checksum by which a mistyped or a leaked one is recognised."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return f"{PREFIX}{body}{_checksum(body)}"


def is_well_formed(secret: str) -> bool:
    """Whether a text can be one of our keys at all."""
    if not _SHAPE.fullmatch(secret):
        return False
    body = secret[len(PREFIX) : -_CHECK]
    return secret[-_CHECK:] == _checksum(body)


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def _pairs(fields: Mapping[str, str]) -> list[str]:
    return [item for pair in fields.items() for item in pair]


def _to_json(value: object) -> str:
    return _ANY.dump_json(value).decode()


async def _reply(answer: Awaitable[Any] | Any) -> Any:
    # redis-py types its answers for its blocking and its asynchronous client at once.
    return await cast(Awaitable[Any], answer)
