"""Operators: made once under a name, found by their token alone, gone when deleted."""

from __future__ import annotations

import asyncio

import pytest

from gateway.callers.operator_store import OperatorStore, Role
from gateway.errors import InvalidValue, OperatorNotFound
from gateway.store import names
from gateway.store.client import StoreClient
from tests.conftest import Valkey

pytestmark = pytest.mark.quiet_store

PEPPER = b"p" * 32


@pytest.fixture
def operators(redis: StoreClient) -> OperatorStore:
    return OperatorStore(redis, PEPPER)


async def test_token_finds_its_operator(operators: OperatorStore, redis: StoreClient) -> None:
    """A token leads to its operator under the same pepper, and under no other."""
    record, token = await operators.create("ana", Role.VIEWER)
    assert await operators.lookup(token) == record
    assert (record.name, record.role, token.startswith(record.hint)) == ("ana", "viewer", True)
    assert await OperatorStore(redis, b"q" * 32).lookup(token) is None


async def test_one_of_two_names_is_refused(operators: OperatorStore) -> None:
    """Of operators made at the same time under one name there is one."""
    ends = await asyncio.gather(*(operators.create("ana", Role.ADMIN) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(end, InvalidValue) for end in ends) == 7
    assert [record.name for record in await operators.list()] == ["ana"]


async def test_deleted_operator_leaves_nothing(operators: OperatorStore, redis: StoreClient) -> None:
    """A deleted operator is not found, not listed, and its name is free again."""
    _, token = await operators.create("ana", Role.ADMIN)
    assert (await operators.delete("ana")).name == "ana"
    assert await operators.lookup(token) is None
    assert await operators.list() == []
    assert not await redis.keys(names.OPERATOR("*"))
    with pytest.raises(OperatorNotFound):
        await operators.delete("ana")
    await operators.create("ana", Role.VIEWER)


async def test_mistyped_token_needs_no_redis(operators: OperatorStore, valkey: Valkey) -> None:
    """A mistyped token is refused by its checksum while Redis is away, and so is a caller's key."""
    _, token = await operators.create("ana", Role.ADMIN)
    wrong = token[:10] + ("a" if token[10] != "a" else "b") + token[11:]
    with valkey.paused():
        for text in (wrong, "", token + "x", token[:-1], "igw_" + token[4:], token + "\n"):
            assert await operators.lookup(text) is None
