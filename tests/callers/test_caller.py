"""Who is let in, and why not: each reason by itself, without a gateway around it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from typing_extensions import override

from gateway import errors
from gateway.callers.auth import STALE_S, Caller, KeyCache, authenticate, count_wrong, read_bearer
from gateway.callers.key_record import KeyRecord
from gateway.callers.key_store import KeyStore, make_secret
from gateway.callers.wrong_keys import WrongKeys
from gateway.catalogue.document import Alias
from gateway.catalogue.rules import CallerIdentity
from gateway.process.addresses import Address, name_source, read_address
from gateway.store.client import StoreClient, StoreUnavailable, connect
from tests.conftest import Valkey
from tests.support.plans import make_job

pytestmark = pytest.mark.quiet_store

PEPPER = b"p" * 32
HOME = ip_address("203.0.113.7")


@pytest.fixture
def keys(redis: StoreClient) -> KeyStore:
    return KeyStore(redis, PEPPER)


@pytest.fixture
def wrong_keys(redis: StoreClient) -> WrongKeys:
    return WrongKeys(redis, limit=2, window_s=30)


@pytest.fixture
async def hasty(valkey: Valkey) -> AsyncIterator[KeyStore]:
    """The same keys, by a client that soon gives up."""
    client = connect(valkey.url, deadline_s=0.1)
    yield KeyStore(client, PEPPER)
    await client.aclose()


async def make_caller(keys: KeyStore, team: str | None = None, **fields: Any) -> Caller:
    record, _ = await keys.create("ana", team, **fields)
    return Caller(record, HOME)


async def test_caller_is_named_by_key_and_team(keys: KeyStore) -> None:
    """Rules and the ledger see the key's id, its name and its team, which is empty for a key without one."""
    one, other = await make_caller(keys, "design"), await make_caller(keys)
    assert one.identity == CallerIdentity(one.key.id, "ana", "design")
    assert other.identity == CallerIdentity(other.key.id, "ana", "")


async def test_key_is_bound_to_its_models(keys: KeyStore) -> None:
    """A key of some models may use those and their aliases, and is told which they are."""
    alias, strange = Alias(model="gpt-image-2"), Alias(model="other")
    anybody, bound = await make_caller(keys), await make_caller(keys, models=["gpt-image-2", "dall-e-9"])
    anybody.check_model("whatever", None)
    for name, known in (("gpt-image-2", None), ("dall-e-3", alias), ("dall-e-9", strange)):
        bound.check_model(name, known)
    for name, known in (("other", None), ("dall-e-3", strange), ("dall-e-3", None)):
        with pytest.raises(errors.ModelNotAllowed, match="it may use gpt-image-2, dall-e-9") as refused:
            bound.check_model(name, known)
        assert refused.value.param == "model"


async def test_upstream_is_chosen_by_right(keys: KeyStore) -> None:
    """Only a key that may choose, chooses, and only among its own upstreams, which it is told."""
    plain, free = await make_caller(keys), await make_caller(keys, may_pin_upstream=True)
    bound = await make_caller(keys, may_pin_upstream=True, upstreams=["anyfast", "openai"])
    assert plain.check_job(make_job()).pinned is None
    with pytest.raises(errors.UpstreamNotAllowed, match="may not choose its upstream"):
        plain.check_job(make_job(), "anyfast")
    assert free.check_job(make_job(), "anyfast/main").pinned == "anyfast/main"
    rights = bound.check_job(make_job(), "anyfast/main")
    assert (rights.pinned, rights.upstreams) == ("anyfast/main", ("anyfast", "openai"))
    with pytest.raises(errors.UpstreamNotAllowed, match="'apiany/main'; it may use anyfast, openai"):
        bound.check_job(make_job(), "apiany/main")
    assert (free.may_reach("x"), bound.may_reach("openai"), bound.may_reach("x")) == (True, True, False)


async def test_rights_are_the_keys(keys: KeyStore) -> None:
    """Every cap of a key is in its rights, and the request is held to them."""
    caller = await make_caller(keys, max_n=2, max_quality="medium", max_pixels=1024 * 1024)
    rights = caller.check_job(make_job(n=2))
    assert (rights.max_n, rights.max_quality, rights.max_pixels) == (2, "medium", 1024 * 1024)
    with pytest.raises(errors.UnsupportedValue):
        caller.check_job(make_job(n=3))


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("  BEARER   abc  ", "abc"),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Basic abc", ""),
        ("abc", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_bearer_is_read(header: str | None, secret: str) -> None:
    """The scheme counts in any case, spaces around do not, and another scheme is no key."""
    assert read_bearer(header) == secret


async def test_no_key_is_told_how(keys: KeyStore, wrong_keys: WrongKeys) -> None:
    """A request without a key is told how to send one, and counts as no guess."""
    for header, words in (
        (None, "You didn't provide an API key"),
        ("Bearer ", "You didn't provide an API key"),
        ("Basic abc", "no `Bearer ` before the API key"),
        ("igw_abc", "no `Bearer ` before the API key"),
    ):
        for _ in range(3):
            with pytest.raises(errors.InvalidApiKey, match=words):
                await authenticate(KeyCache(keys), wrong_keys, header, HOME)


@pytest.mark.parametrize(
    ("secret", "hint"),
    [
        ("igw_" + "a" * 30 + "wxyz", r"igw_\*\*\*wxyz\."),
        ("abcdefghijklm", r"abcd\*\*\*jklm\."),
        ("abcdefghijkl", r": \*\*\*\."),
        ("é\x7fcdefghijklm", r"\?\?cd\*\*\*jklm\."),
    ],
)
async def test_wrong_key_is_hinted(keys: KeyStore, wrong_keys: WrongKeys, secret: str, hint: str) -> None:
    """A wrong key is shown by its ends, a short one not at all, and nothing unprintable."""
    with pytest.raises(errors.InvalidApiKey, match=hint):
        await authenticate(KeyCache(keys), wrong_keys, f"Bearer {secret}", HOME)


async def test_wrong_key_says_what_may_be_wrong(keys: KeyStore, wrong_keys: WrongKeys) -> None:
    """A deleted key and a mistyped one read alike; another program's key and the documents' example have own words."""
    record, deleted = await keys.create("ana")
    await keys.delete(record.id)
    mistyped = deleted[:-5] + ("x" if deleted[-5] != "x" else "y") + deleted[-4:]
    messages: list[str] = []
    # Two addresses, since each may send only a few wrong keys.
    tries = ((deleted, HOME), (mistyped, HOME), ("sk-1234567890abcdef", None), ("igw_YOUR_KEY", None))
    for secret, address in tries:
        with pytest.raises(errors.InvalidApiKey) as refused:
            await authenticate(KeyCache(keys), wrong_keys, f"Bearer {secret}", address)
        messages.append(refused.value.message)
    assert messages[0] == messages[1]
    assert "has no such key" in messages[0]
    assert "keys begin with igw_" in messages[2]
    assert "stands for a key in the documents" in messages[3]


async def test_guesses_are_counted_by_address(keys: KeyStore, wrong_keys: WrongKeys) -> None:
    """After too many wrong keys an address gets a 429 with the rest of its window; another one does not."""
    cache, header = KeyCache(keys), f"Bearer {make_secret()}"
    for _ in range(2):
        with pytest.raises(errors.InvalidApiKey):
            await authenticate(cache, wrong_keys, header, HOME)
    with pytest.raises(errors.RateLimited) as refused:
        await authenticate(cache, wrong_keys, header, HOME)
    assert refused.value.retry_after is not None
    assert 1 <= refused.value.retry_after <= 30
    with pytest.raises(errors.InvalidApiKey):
        await authenticate(cache, wrong_keys, header, ip_address("203.0.113.8"))


async def test_wait_is_a_second_at_least(redis: StoreClient) -> None:
    """A window that is about to end is still waited for, in whole seconds."""
    refusal = errors.InvalidApiKey("wrong")
    brief = WrongKeys(redis, limit=0, window_s=0.5)
    answer = await count_wrong(brief, HOME, refusal)
    assert (type(answer), answer.retry_after) == (errors.RateLimited, 1)
    # A window that ends while it is counted leaves nothing to wait for.
    over = WrongKeys(redis, limit=0, window_s=0.001)
    assert (await count_wrong(over, ip_address("203.0.113.10"), refusal)).retry_after == 1
    assert await count_wrong(WrongKeys(redis, limit=9), ip_address("203.0.113.9"), refusal) is refusal


@pytest.mark.parametrize(
    ("fields", "address", "error", "says"),
    [
        ({"enabled": False}, HOME, errors.KeyDisabled, "is disabled"),
        (
            {"expires": datetime(2020, 1, 31, 18, 5, tzinfo=UTC)},
            HOME,
            errors.InvalidApiKey,
            "on 2020-01-31 at 18:05 UTC",
        ),
        # An operator decided to disable it: its owner learns that first.
        ({"enabled": False, "expires": datetime(2020, 1, 31, tzinfo=UTC)}, HOME, errors.KeyDisabled, "is disabled"),
        ({"addresses": ["10.0.0.0/8"]}, HOME, errors.AddressNotAllowed, "from 203.0.113.7"),
        ({"addresses": ["10.0.0.0/8"]}, None, errors.AddressNotAllowed, "from a Unix socket"),
    ],
)
async def test_key_is_refused_with_its_reason(
    keys: KeyStore,
    wrong_keys: WrongKeys,
    fields: dict[str, Any],
    address: Address | None,
    error: type[errors.PublicError],
    says: str,
) -> None:
    """A key that exists is refused by name of what is wrong with it, and that is no guess."""
    _, secret = await keys.create("ana", **fields)
    for _ in range(4):
        with pytest.raises(error, match=says):
            await authenticate(KeyCache(keys), wrong_keys, f"Bearer {secret}", address)


async def test_good_key_is_a_caller(keys: KeyStore, wrong_keys: WrongKeys) -> None:
    """A key within its time and its addresses is a caller with both."""
    later = datetime.now(UTC) + timedelta(hours=1)
    record, secret = await keys.create("ana", expires=later, addresses=["203.0.113.0/24"])
    assert await authenticate(KeyCache(keys), wrong_keys, f"Bearer {secret}", HOME) == Caller(record, HOME)


@pytest.mark.parametrize("address", [HOME, None])
async def test_key_without_addresses_works_from_all(
    keys: KeyStore, wrong_keys: WrongKeys, address: Address | None
) -> None:
    """A key that is bound to no address is let in from each, and over a Unix socket."""
    record, secret = await keys.create("ana")
    assert await authenticate(KeyCache(keys), wrong_keys, f"Bearer {secret}", address) == Caller(record, address)


async def test_away_store_is_said(hasty: KeyStore, keys: KeyStore, wrong_keys: WrongKeys, valkey: Valkey) -> None:
    """While Redis is away an unknown key gets the store's own error, with a time to come back."""
    _, secret = await keys.create("ana")
    with valkey.paused(), pytest.raises(errors.QuotaStoreUnavailable) as refused:
        await authenticate(KeyCache(hasty), wrong_keys, f"Bearer {secret}", HOME)
    assert refused.value.retry_after == 5


async def test_deleted_key_is_gone_while_redis_is_away(keys: KeyStore, hasty: KeyStore, valkey: Valkey) -> None:
    """A key that was found deleted is not known again from memory."""
    clock = [0.0]
    record, secret = await keys.create("ana")
    cache = KeyCache(hasty, now=lambda: clock[0])
    await cache.lookup(secret)
    await keys.delete(record.id)
    clock[0] = 10
    assert await cache.lookup(secret) is None
    with valkey.paused(), pytest.raises(StoreUnavailable):
        await cache.lookup(secret)


async def test_record_is_fresh_for_its_second(keys: KeyStore) -> None:
    """A record is asked for again once it is a second old, and not before."""
    clock = [0.0]
    record, secret = await keys.create("ana")
    cache = KeyCache(keys, now=lambda: clock[0])
    assert await cache.lookup(secret) == record
    changed = await keys.disable(record.id)
    clock[0] = 0.999
    assert await cache.lookup(secret) == record
    clock[0] = 1.0
    assert await cache.lookup(secret) == changed


async def test_record_is_stale_after_its_time(keys: KeyStore, hasty: KeyStore, valkey: Valkey) -> None:
    """Without Redis a record counts for ten minutes, to the second."""
    clock = [0.0]
    record, secret = await keys.create("ana")
    cache = KeyCache(hasty, now=lambda: clock[0])
    await cache.lookup(secret)
    with valkey.paused():
        clock[0] = STALE_S
        assert await cache.lookup(secret) == record
        clock[0] = STALE_S + 1
        with pytest.raises(StoreUnavailable):
            await cache.lookup(secret)


async def test_requests_of_one_key_share_a_look_up(keys: KeyStore, redis: StoreClient) -> None:
    """Many requests at once ask Redis once, and one that leaves ends nobody's look-up."""
    record, secret = await keys.create("ana")
    cache = KeyCache(keys)
    # The server counts a command from its first use.
    assert await KeyCache(keys).lookup(secret) == record
    before = (await redis.info("commandstats"))["cmdstat_eval"]["calls"]
    waiting = [asyncio.create_task(cache.lookup(secret)) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [record] * 19
    assert (await redis.info("commandstats"))["cmdstat_eval"]["calls"] == before + 1
    assert not cache._lookups


async def take_turns() -> None:
    """Let everything run that waits for nothing but its turn."""
    for _ in range(20):
        await asyncio.sleep(0)


class GatedKeys(KeyStore):
    """Keys each of whose look-ups waits until it is let go; one that is to fail raises StoreUnavailable."""

    def __init__(self, redis: StoreClient) -> None:
        super().__init__(redis, PEPPER)
        self.gates: list[asyncio.Future[None]] = []

    @override
    async def find(self, digest: str) -> KeyRecord | None:
        self.gates.append(asyncio.get_running_loop().create_future())
        await self.gates[-1]
        return await super().find(digest)


async def test_forgotten_look_up_ends_alone(redis: StoreClient) -> None:
    """A look-up from before a change neither answers nor ends the one that began after it."""
    keys, loop = GatedKeys(redis), asyncio.get_running_loop()
    faults: list[Any] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    record, secret = await keys.create("ana")
    cache, digest = KeyCache(keys), keys.digest(secret)
    first = asyncio.create_task(cache.lookup(secret))
    await take_turns()
    cache.forget()
    assert not cache._lookups
    second = asyncio.create_task(cache.lookup(secret))
    await take_turns()
    (_, later) = cache._lookups[digest]
    keys.gates[0].set_result(None)
    assert await first == record
    assert cache._lookups[digest][1] is later
    cache.forget()
    keys.gates[1].set_result(None)
    assert await second == record
    third = asyncio.create_task(cache.lookup(make_secret()))
    await take_turns()
    # Its only caller leaves, and then Redis fails: nobody reads the error, and nobody is told of it.
    third.cancel()
    keys.gates[2].set_exception(StoreUnavailable("away"))
    await take_turns()
    fourth = asyncio.create_task(cache.lookup(make_secret()))
    await take_turns()
    ((_, lookup),) = cache._lookups.values()
    lookup.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fourth
    await take_turns()
    del third, fourth, lookup
    gc.collect()
    assert faults == []
    assert not cache._lookups


async def test_most_recent_keys_are_kept(keys: KeyStore) -> None:
    """The key that was looked up longest ago is dropped first."""
    cache = KeyCache(keys, most=2, fresh_s=0)
    first, second, third = [(await keys.create(name))[1] for name in ("ana", "bob", "cid")]
    for secret in (first, second, first, third):
        await cache.lookup(secret)
    assert list(cache._entries) == [keys.digest(first), keys.digest(third)]


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("8000::1", "8000::/64"),
        (None, "none"),
    ],
)
def test_guesses_of_one_site_are_one_source(host: str | None, source: str) -> None:
    """All addresses that one subscriber can use count together."""
    assert name_source(read_address(host)) == source
