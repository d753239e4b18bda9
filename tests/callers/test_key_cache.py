"""The cache of keys: one look-up a second, no change hidden for longer, and callers known while Redis is away."""

from collections.abc import AsyncIterator

import pytest

from gateway.callers.auth import KeyCache
from gateway.callers.key_store import KeyStore, make_secret
from gateway.store.client import StoreClient, StoreUnavailable, connect
from tests.conftest import Valkey

pytestmark = pytest.mark.quiet_store

PEPPER = b"p" * 32


@pytest.fixture
def keys(redis: StoreClient) -> KeyStore:
    return KeyStore(redis, PEPPER)


@pytest.fixture
async def hasty(valkey: Valkey) -> AsyncIterator[KeyStore]:
    """The same keys, by a client that soon gives up."""
    client = connect(valkey.url, deadline_s=0.1)
    yield KeyStore(client, PEPPER)
    await client.aclose()


async def test_fresh_record_needs_no_redis(keys: KeyStore, valkey: Valkey) -> None:
    """A key that was looked up a moment ago is known without asking."""
    record, secret = await keys.create("ana")
    cache = KeyCache(keys, fresh_s=60)
    assert await cache.lookup(secret) == record
    with valkey.paused():
        assert await cache.lookup(secret) == record


async def test_mistyped_key_asks_nothing(keys: KeyStore, valkey: Valkey) -> None:
    """A text with a wrong checksum is no key, and nobody asks Redis for it; nor is a text beyond ASCII."""
    cache = KeyCache(keys, fresh_s=60)
    with valkey.paused():
        for text in (f"{make_secret()}x", make_secret()[:-3], "sk-é", ""):
            assert await cache.lookup(text) is None


async def test_change_is_seen_after_its_time(keys: KeyStore) -> None:
    """What changed is hidden for no longer than a record is fresh, and not at all once it is forgotten."""
    record, secret = await keys.create("ana")
    impatient, patient = KeyCache(keys, fresh_s=0), KeyCache(keys, fresh_s=60)
    for cache in (impatient, patient):
        await cache.lookup(secret)
    changed = await keys.disable(record.id)
    assert await impatient.lookup(secret) == changed
    assert await patient.lookup(secret) == record
    patient.forget()
    assert await patient.lookup(secret) == changed


async def test_miss_is_not_kept(keys: KeyStore) -> None:
    """A key works from the moment at which it is made, and not a moment longer than it exists."""
    cache = KeyCache(keys, fresh_s=0)
    assert await cache.lookup(make_secret()) is None
    record, secret = await keys.create("ana")
    assert await cache.lookup(secret) == record
    await keys.delete(record.id)
    assert await cache.lookup(secret) is None


async def test_known_caller_outlasts_redis(keys: KeyStore, hasty: KeyStore, valkey: Valkey) -> None:
    """While Redis is away, whoever was known stays known for a while; whoever was not gets the store's error."""
    record, secret = await keys.create("ana")
    _, other = await keys.create("bob")
    cache, forgetful = KeyCache(hasty, fresh_s=0), KeyCache(hasty, fresh_s=0, stale_s=0)
    for one in (cache, forgetful):
        await one.lookup(secret)
    with valkey.paused():
        assert await cache.lookup(secret) == record
        for one, unknown in ((cache, other), (forgetful, secret)):
            with pytest.raises(StoreUnavailable):
                await one.lookup(unknown)


async def test_outage_is_waited_for_once(keys: KeyStore, hasty: KeyStore, valkey: Valkey) -> None:
    """The first request of a known caller finds out that Redis is away; the next ones are spared the wait."""
    record, secret = await keys.create("ana")
    clock = [0.0]
    cache = KeyCache(hasty, now=lambda: clock[0])
    await cache.lookup(secret)
    clock[0] = 100
    with valkey.paused():
        assert await cache.lookup(secret) == record
    changed = await keys.disable(record.id)
    assert await cache.lookup(secret) == record
    clock[0] = 101
    assert await cache.lookup(secret) == changed


async def test_known_caller_is_forgotten_in_the_end(keys: KeyStore, hasty: KeyStore, valkey: Valkey) -> None:
    """After ten minutes without Redis nobody is known any more, however often he asked."""
    record, secret = await keys.create("ana")
    clock = [0.0]
    cache = KeyCache(hasty, now=lambda: clock[0])
    await cache.lookup(secret)
    with valkey.paused():
        for clock[0] in (300, 600):
            assert await cache.lookup(secret) == record
        clock[0] = 601
        with pytest.raises(StoreUnavailable):
            await cache.lookup(secret)


async def test_oldest_is_dropped(keys: KeyStore) -> None:
    """No number of keys fills the memory."""
    cache = KeyCache(keys, most=2)
    for name in ("ana", "bob", "cid"):
        _, secret = await keys.create(name)
        await cache.lookup(secret)
    assert len(cache._entries) == 2


async def test_secret_is_not_kept(keys: KeyStore) -> None:
    """The cache holds digests, so that a memory dump opens no door."""
    _, secret = await keys.create("ana")
    cache = KeyCache(keys)
    await cache.lookup(secret)
    assert secret not in repr(cache._entries)
