"""The checks of a store before the first use. Never repairs anything."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Mapping
from typing import Any

from redis.exceptions import ResponseError

from gateway.callers.key_store import KeyStore
from gateway.process.data_folder import Secrets
from gateway.process.redis_url import read_redis_url
from gateway.process.settings import StartRefused
from gateway.store import names
from gateway.store.client import StoreClient, StoreUnavailable, connect, describe

OLDEST = (7, 0)
"""Older versions do not name the error of a script (no room, read-only). Valkey 7.2 equals Redis 7.2."""

_POLL_S = 0.2


class StoreRefused(StartRefused):
    """This store cannot be used. The message has the reason and the remedy."""


async def check_store(url: str, secrets: Secrets, wait_s: float) -> None:
    """Raise StoreRefused or PepperMismatch unless the store answers in time, is safe for money, and has our secrets."""
    client = connect(url)
    try:
        deadline = time.monotonic() + wait_s
        await _wait_for(client, url, deadline, "PING")
        # INFO and not CONFIG: managed servers refuse CONFIG.
        if problem := find_problem(await client.execute_command("INFO"), is_cluster=_is_cluster(url)):
            raise StoreRefused(f"Redis at {describe(url)} {problem}")
        # A Cluster's node answers before its Cluster is ready.
        await _wait_for(client, url, deadline, "GET", names.SIGNING_CHECK())
        await KeyStore(client, secrets.pepper).check_pepper()
        await check_signing_key(client, url, secrets.signing_key)
    finally:
        await client.aclose()


def find_problem(facts: Mapping[str, Any], *, is_cluster: bool) -> str | None:
    """Return why a server with these facts cannot hold money, and the remedy; missing facts count as right."""
    version = str(facts.get("redis_version", ""))
    policy = facts.get("maxmemory_policy", "noeviction")
    if (found := re.match(r"(\d+)\.(\d+)", version)) and (int(found[1]), int(found[2])) < OLDEST:
        return f"is version {version}, which is too old. Use Redis 7.0 or newer, or Valkey"
    if facts.get("role", "master") != "master":
        return (
            "is a replica, which cannot be written to. Name its master, or use the Sentinel form of GATEWAY_REDIS_URL"
        )
    if facts.get("cluster_enabled", 0) and not is_cluster:
        return "is a node of a Cluster. Write it as redis+cluster://host:6379 in GATEWAY_REDIS_URL"
    if policy != "noeviction":
        return (
            f"drops entries when it is full (maxmemory-policy {policy}), which would lose records of money. "
            "Set its maxmemory-policy to noeviction"
        )
    return None


def _is_cluster(url: str) -> bool:
    return read_redis_url(url).kind == "cluster"


async def _wait_for(client: StoreClient, url: str, deadline: float, *command: str) -> None:
    while True:
        try:
            await client.execute_command(*command)
        except (StoreUnavailable, ResponseError) as error:
            if time.monotonic() > deadline:
                raise StoreRefused(
                    f"Redis at {describe(url)} does not answer ({error}). Start it, or correct GATEWAY_REDIS_URL"
                ) from error
            await asyncio.sleep(_POLL_S)
        else:
            return


async def check_signing_key(client: StoreClient, url: str, signing_key: bytes) -> None:
    """Raise StoreRefused unless this signing key is the store's; the first signing key becomes the store's.

    Replicas with different keys would refuse each other's links, and receivers would refuse their webhooks.
    """
    mine = hmac.new(signing_key, b"signing-check", "sha256").hexdigest()
    if await client.set(names.SIGNING_CHECK(), mine, nx=True):
        return
    if not hmac.compare_digest(str(await client.get(names.SIGNING_CHECK())), mine):
        raise StoreRefused(
            f"The store at {describe(url)} belongs to gateways with another GATEWAY_SIGNING_KEY, whose links this one "
            "would refuse. Set the same one on every replica"
        )
