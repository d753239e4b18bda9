"""API keys: made once, found by digest, refused without Redis when mistyped, gone when deleted."""

import re

import pytest

from gateway.callers.key_store import KeyStore, PepperMismatch, is_well_formed, make_secret
from gateway.errors import KeyNotFound
from gateway.store import names
from gateway.store.client import StoreClient
from tests.conftest import Valkey

pytestmark = pytest.mark.quiet_store

PEPPER = b"p" * 32


@pytest.fixture
def keys(redis: StoreClient) -> KeyStore:
    return KeyStore(redis, PEPPER)


async def test_created_key_is_found(keys: KeyStore) -> None:
    """A new key is found by its secret, with all that was said of it."""
    record, secret = await keys.create("ana", "design", models=["gpt-image-2"])
    assert await keys.lookup(secret) == record
    assert (record.name, record.team, record.models, record.enabled) == ("ana", "design", ("gpt-image-2",), True)
    assert secret.startswith(record.hint)
    assert await keys.show(record.id) == record


async def test_secret_is_stored_nowhere(keys: KeyStore, redis: StoreClient) -> None:
    """Nothing in Redis holds the secret: a stolen dump opens no door."""
    _, secret = await keys.create("ana")
    for name in await redis.keys("*"):
        row = await redis.hgetall(name)
        assert secret not in f"{name}{row}"


async def test_other_pepper_finds_nothing(keys: KeyStore, redis: StoreClient) -> None:
    """A key's digest is worth nothing under another pepper."""
    _, secret = await keys.create("ana")
    assert await KeyStore(redis, b"q" * 32).lookup(secret) is None


async def test_mistyped_key_needs_no_redis(keys: KeyStore, valkey: Valkey) -> None:
    """A mistyped key is refused by its checksum while Redis is away."""
    _, secret = await keys.create("ana")
    wrong = secret[:10] + ("a" if secret[10] != "a" else "b") + secret[11:]
    with valkey.paused():
        for text in (wrong, "", "sk-other", secret + "x", secret[:-1], secret.lower() + "é", secret + "\n"):
            assert await keys.lookup(text) is None


async def test_disabled_key_stays_known(keys: KeyStore) -> None:
    """A disabled key is still found, as disabled, and works again when enabled."""
    record, secret = await keys.create("ana")
    assert not (await keys.disable(record.id)).enabled
    found = await keys.lookup(secret)
    assert found is not None
    assert not found.enabled
    assert (await keys.enable(record.id)).enabled


async def test_deleted_key_is_gone(keys: KeyStore, redis: StoreClient) -> None:
    """A deleted key leaves nothing, and a late change does not bring half of it back."""
    record, secret = await keys.create("ana")
    await keys.delete(record.id)
    assert await keys.lookup(secret) is None
    for change in (keys.disable, keys.show, keys.delete):
        with pytest.raises(KeyNotFound):
            await change(record.id)
    assert await redis.keys("*") == []


async def test_rotated_key_keeps_its_identity(keys: KeyStore) -> None:
    """A rotation changes the secret alone: id, limits and history stay, and the old secret works for its grace."""
    record, old = await keys.create("ana", "design", max_n=2)
    rotated, new = await keys.rotate(record.id, grace_s=60)
    assert rotated.rotated is not None
    assert rotated == record.model_copy(update={"hint": new[:8], "rotated": rotated.rotated})
    assert await keys.lookup(new) == await keys.lookup(old) == await keys.show(record.id) == rotated
    assert await keys.list() == [rotated]


async def test_rotation_without_grace_ends_all_former_secrets(keys: KeyStore) -> None:
    """Rotated at once, a key works by its newest secret alone, however many were in their grace time."""
    record, first = await keys.create("ana")
    _, second = await keys.rotate(record.id)
    _, third = await keys.rotate(record.id)
    assert all([await keys.lookup(secret) for secret in (first, second, third)])
    _, last = await keys.rotate(record.id, grace_s=0)
    assert [bool(await keys.lookup(secret)) for secret in (first, second, third, last)] == [False, False, False, True]


async def test_former_secret_ends_by_itself(keys: KeyStore, redis: StoreClient) -> None:
    """Redis itself forgets a former secret at the end of its grace time."""
    record, old = await keys.create("ana")
    await keys.rotate(record.id, grace_s=60)
    name = names.FORMER_KEY(keys.digest(old))
    assert 0 < await redis.pttl(name) <= 60_000
    await redis.pexpire(name, 0)
    assert await keys.lookup(old) is None


async def test_deleted_rotated_key_leaves_nothing(keys: KeyStore, redis: StoreClient) -> None:
    """A deletion takes the former secrets along."""
    record, old = await keys.create("ana")
    _, new = await keys.rotate(record.id)
    await keys.delete(record.id)
    assert [await keys.lookup(secret) for secret in (old, new)] == [None, None]
    assert await redis.keys("*") == []
    with pytest.raises(KeyNotFound):
        await keys.rotate(record.id)


async def test_list_is_oldest_first(keys: KeyStore) -> None:
    """Keys are listed in the order they were made in."""
    made = [(await keys.create(f"k{number}"))[0] for number in range(3)]
    assert sorted(record.id for record in await keys.list()) == [record.id for record in await keys.list()]
    assert {record.name for record in await keys.list()} == {record.name for record in made}


async def test_list_can_be_one_team(keys: KeyStore) -> None:
    """A team's keys can be listed by themselves."""
    await keys.create("ana", "design")
    bob, _ = await keys.create("bob", "sales")
    assert await keys.list(team="sales") == [bob]


async def test_change_sets_what_it_names(keys: KeyStore) -> None:
    """A change sets the fields it names, lifts a limit by None, and leaves the rest."""
    record, _ = await keys.create("ana", "design", max_n=2, addresses=["10.1.2.3/8"])
    changed = await keys.change(record.id, max_n=None, models=["gpt-image-2"])
    assert changed == record.model_copy(update={"max_n": None, "models": ("gpt-image-2",)})
    assert changed.addresses == ("10.0.0.0/8",)


async def test_newer_record_can_be_read(keys: KeyStore, redis: StoreClient) -> None:
    """A record with fields of a newer version is read, and keeps them through a change."""
    record, _ = await keys.create("ana")
    name = names.KEY(str(await redis.hget(names.KEY_INDEX(), record.id)))
    await redis.hset(name, "limits_of_tomorrow", '{"n": 1}')
    assert not (await keys.disable(record.id)).enabled
    assert await redis.hget(name, "limits_of_tomorrow") == '{"n": 1}'


async def test_pepper_mismatch_is_noticed(keys: KeyStore, redis: StoreClient) -> None:
    """The first pepper becomes the store's own; any other is refused."""
    await keys.check_pepper()
    await keys.check_pepper()
    with pytest.raises(PepperMismatch):
        await KeyStore(redis, b"q" * 32).check_pepper()


def test_secret_has_its_shape() -> None:
    """A key is `igw_`, 32 random letters and 6 of checksum, and no two are the same."""
    made = {make_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"igw_[0-9A-Za-z]{38}", secret) and is_well_formed(secret) for secret in made)


def test_names_share_one_tag() -> None:
    """Every name in Redis lies in one slot, and no two kinds share a stem."""
    assert all(name("x").startswith("{igw}:") for name in names.NAMES)
    assert len({name.stem for name in names.NAMES}) == len(names.NAMES)
