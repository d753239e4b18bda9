"""A store that cannot hold money is refused at the start, in words that say what to do."""

from typing import Any

import pytest

from gateway.process.data_folder import Secrets
from gateway.server.store_checks import StoreRefused, check_store, find_problem
from gateway.store.client import StoreClient
from tests.conftest import Valkey

pytestmark = pytest.mark.quiet_store

SECRETS = Secrets(pepper=b"p" * 32, signing_key=b"s" * 32)


async def test_ordinary_server_passes(valkey: Valkey) -> None:
    """A server that can be relied on is accepted, again and again."""
    for _ in range(2):
        await check_store(valkey.url, SECRETS, wait_s=1)


async def test_evicting_server_is_refused(valkey: Valkey) -> None:
    """A server that throws entries away when it is full is refused."""
    with valkey.evicting(), pytest.raises(StoreRefused, match=r"allkeys-lru.*Set its maxmemory-policy to noeviction"):
        await check_store(valkey.url, SECRETS, wait_s=1)


async def test_replica_is_refused(valkey: Valkey, redis: StoreClient) -> None:
    """A replica, which cannot be written to, is refused."""
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(StoreRefused, match="is a replica"):
            await check_store(valkey.url, SECRETS, wait_s=1)
    finally:
        await redis.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"redis_version": "6.2.14"}, "too old. Use Redis 7.0"),
        ({"redis_version": "7.0.0"}, None),
        ({"redis_version": "10.1.2"}, None),
        ({"redis_version": "255.255.255"}, None),
        ({"redis_version": "7.2.4", "server_name": "valkey", "cluster_enabled": 1}, "redis+cluster://"),
        ({}, None),
    ],
)
def test_unfit_servers_are_told_apart(facts: dict[str, Any], problem: str | None) -> None:
    """What a server says of itself decides; what it does not say is no reason to refuse it."""
    found = find_problem(facts, is_cluster=False)
    assert found is None if problem is None else problem in (found or "")


def test_owner_in_cluster_passes() -> None:
    """A node of a Cluster is right where the Cluster form names it."""
    assert find_problem({"redis_version": "7.2.4", "cluster_enabled": 1}, is_cluster=True) is None
