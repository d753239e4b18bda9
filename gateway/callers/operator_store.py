"""Operators of the admin API in Redis: a token is shown once and stored as an HMAC with the pepper.

The token in GATEWAY_ADMIN_TOKEN has no record in Redis. This module never stores or logs a token itself.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway import errors
from gateway.callers.key_store import digest_of, is_well_formed, make_secret
from gateway.store import names
from gateway.store.client import StoreClient

PREFIX = "igo_"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"

OperatorName = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$", description="Letters, digits and . _ @ -, up to 64.")]

# One script reserves the name and writes the record, so that one of two operators of one name is refused.
_CREATE = """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
return 1
"""


class Role(StrEnum):
    """The rights of an operator: `admin` has full access, `viewer` may read everything but the secrets of webhooks."""

    ADMIN = "admin"
    VIEWER = "viewer"


class OperatorRecord(BaseModel):
    """An operator; `hint` is the beginning of the token, for people."""

    # A replica of an older version must read the record of a newer one.
    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    role: Role
    created: datetime
    hint: str = Field("", description="The beginning of the token.")


def is_admin_token(token: str, secret: SecretStr | None) -> bool:
    """True when a token is the one in GATEWAY_ADMIN_TOKEN, which is None if it is not set."""
    # Digests: the time of a comparison of texts reveals whether their lengths differ.
    if secret is None:
        return False
    given, right = (hashlib.sha256(text.encode()).digest() for text in (token, secret.get_secret_value()))
    return hmac.compare_digest(given, right)


class OperatorStore:
    """The operators in one store under one pepper. Every method may raise StoreUnavailable."""

    def __init__(self, redis: StoreClient, pepper: bytes) -> None:
        self._redis = redis
        self._pepper = pepper

    async def create(self, name: str, role: Role) -> tuple[OperatorRecord, str]:
        """Add an operator; return its record and its token, which nothing can show again.

        Raises InvalidValue for a name that is taken.
        """
        secret = make_secret(PREFIX)
        created = datetime.now(UTC).replace(microsecond=0)
        record = OperatorRecord(name=name, role=role, created=created, hint=secret[: len(PREFIX) + 4])
        digest = digest_of(secret, self._pepper)
        fields = [word for pair in record.model_dump(mode="json").items() for word in pair]
        places = (names.OPERATOR_INDEX(), names.OPERATOR(digest))
        if not await self._redis.eval(_CREATE, len(places), *places, name, digest, *fields):
            raise errors.InvalidValue(
                "There is an operator of this name already; delete it first, or choose another name.", param="name"
            )
        return record, secret

    async def lookup(self, secret: str) -> OperatorRecord | None:
        """The operator of a token; None if there is no such token. A mistyped one fails without a question to Redis."""
        if not is_well_formed(secret, PREFIX):
            return None
        return await self._read(digest_of(secret, self._pepper))

    async def list(self) -> list[OperatorRecord]:
        """Every operator, in the order of their names."""
        index = cast(dict[str, str], await self._redis.hgetall(names.OPERATOR_INDEX()))
        found = [await self._read(index[name]) for name in sorted(index)]
        return [record for record in found if record is not None]

    async def delete(self, name: str) -> OperatorRecord:
        """Delete an operator, whose token is refused from its next request on; return the deleted record.

        Raises OperatorNotFound.
        """
        digest = await self._redis.hget(names.OPERATOR_INDEX(), name)
        record = None if digest is None else await self._read(str(digest))
        if digest is None or record is None:
            raise errors.OperatorNotFound("There is no operator of this name.", param="name")
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(names.OPERATOR(str(digest)))
            pipe.hdel(names.OPERATOR_INDEX(), name)
            await pipe.execute()
        return record

    async def _read(self, digest: str) -> OperatorRecord | None:
        fields = cast(dict[str, Any], await self._redis.hgetall(names.OPERATOR(digest)))
        return OperatorRecord.model_validate(fields) if fields else None
