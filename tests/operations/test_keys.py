"""Keys and limits are made together or not at all, whoever makes them; and a change stands without its log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from gateway.callers.key_record import NewKey
from gateway.callers.key_store import KeyStore
from gateway.cli.store import OpenedStore
from gateway.errors import InvalidValue, KeyNotFound
from gateway.history.changes import Changes
from gateway.money.ledger_results import Scope
from gateway.operations.changes import Actor
from gateway.operations.keys import change_key, create_key
from gateway.operations.limits import change_limits
from gateway.process.settings import load_settings
from gateway.store.client import CommandQueue, StoreUnavailable, connect
from tests.conftest import Valkey
from tests.support.shell import Shell

Reports = list[tuple[Mapping[str, str | None], StoreUnavailable | None]]


class NoRoomForKeys(KeyStore):
    """Keys of a store that takes no more of them."""

    async def add(self, *_: object, **__: object) -> object:  # type: ignore[override]
        raise StoreUnavailable("no room")


class NoRoomForChanges(Changes):
    """A log of changes in a store that takes no more lines."""

    async def write(self, *_: object, **__: object) -> object:  # type: ignore[override]
        raise StoreUnavailable("no room")


@pytest.fixture
async def store(valkey: Valkey, shell: Shell) -> AsyncIterator[OpenedStore]:
    opened = OpenedStore(load_settings(shell.env), valkey.url, connect(valkey.url), CommandQueue(valkey.url))
    yield opened
    await opened.aclose()


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def actor(reports: Reports) -> Actor:
    return Actor("cli:ana", lambda facts, error: reports.append((facts, error)))


async def leftovers(store: OpenedStore) -> list[str]:
    return [name async for name in store.redis.scan_iter("*limits*")]


async def test_refused_limit_makes_no_key(store: OpenedStore, actor: Actor) -> None:
    """When the ledger refuses a limit there is no key, and no limit without one."""
    with pytest.raises(InvalidValue):
        await create_key(store, actor, NewKey(name="ana"), {"usd_total": 1, "images_never": 1})
    assert await store.keys.list() == []
    assert await leftovers(store) == []


async def test_refused_key_leaves_no_limit(store: OpenedStore, actor: Actor) -> None:
    """When the store takes the limits and not the key, the limits are gone again."""
    store.keys = NoRoomForKeys(store.redis, b"p" * 32)
    with pytest.raises(StoreUnavailable):
        await create_key(store, actor, NewKey(name="ana"), {"usd_total": 1})
    assert await leftovers(store) == []


async def test_change_stands_without_its_log(store: OpenedStore, actor: Actor, reports: Reports) -> None:
    """A key that was made is answered with its secret even when the log of changes could not be written."""
    store.changes = NoRoomForChanges(store.redis, store.document.accounting)
    made = await create_key(store, actor, NewKey(name="ana"))
    assert await store.keys.lookup(made.key) is not None
    ((facts, error),) = reports
    assert (facts["action"], facts["subject"]) == ("key.create", made.id)
    assert isinstance(error, StoreUnavailable)


async def test_unknown_key_is_refused(store: OpenedStore, actor: Actor, reports: Reports) -> None:
    """A change, a limit or a name of a key that does not exist is refused, and nothing is written down."""
    with pytest.raises(KeyNotFound):
        await change_key(store, actor, "key_none", NewKey(name="ana"))
    with pytest.raises(KeyNotFound):
        await change_limits(store, actor, Scope(key="key_none"), {"usd_day": 1})
    with pytest.raises(KeyNotFound):
        await store.keys.find_id("ana")
    assert await leftovers(store) == []
    assert reports == []


async def test_same_limits_are_no_change(store: OpenedStore, actor: Actor, reports: Reports) -> None:
    """Limits that are set to what they are leave no line in the log of changes."""
    for _ in range(2):
        after = await change_limits(store, actor, Scope(team="design"), {"usd_day": 5})
    assert after.limits.usd_day == 5
    assert [facts["action"] for facts, _ in reports] == ["limits.set"]
