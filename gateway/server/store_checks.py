"""What must be true of a store before anything is served from it.

Called by the supervisor and the CLI at their start. Never repairs anything.
"""

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
"""Before it, an error inside a script (no room, read-only) does not say what it is. Valkey 7.2 is as Redis 7.2."""

_POLL_S = 0.2


class StoreRefused(StartRefused):
    """This store cannot be used. The text says why and what to do."""


async def check_store(url: str, secrets: Secrets, wait_s: float) -> None:
    """Raise StoreRefused or PepperMismatch unless the store answers in time, can be relied on, and has our secrets."""
    client = connect(url)
    try:
        deadline = time.monotonic() + wait_s
        await _wait_for(client, url, deadline, "PING")
        # INFO and not CONFIG: managed servers refuse CONFIG.
        if problem := find_problem(await client.execute_command("INFO"), is_cluster=_is_cluster(url)):
            raise StoreRefused(f"Redis at {describe(url)} {problem}")
        # A Cluster's node answers before its Cluster does.
        await _wait_for(client, url, deadline, "GET", names.SIGNING_CHECK())
        await KeyStore(client, secrets.pepper).check_pepper()
        await check_signing_key(client, url, secrets.signing_key)
    finally:
        await client.aclose()


def find_problem(facts: Mapping[str, Any], *, is_cluster: bool) -> str | None:
    """Why a server that says this of itself cannot hold money, and what to do; what it does not say is believed."""
    version = str(facts.get("redis_version", ""))
    policy = facts.get("maxmemory_policy", "noeviction")
    if (found := re.match(r"(\d+)\.(\d+)", version)) and (int(found[1]), int(found[2])) < OLDEST:
        return f"is version {version}, which is too old. Use Redis 7.0 or newer, or Valkey"
    if facts.get("role", "master") != "master":
        return (
            "is a replica, which cannot be written to. Name its master, or use the Sentinel form of GATEWAY_REDIS_URL"
        )
    if facts.get("cluster_enabled", 0) and not is_cluster:
        return (
            "is a Cluster's node. Write redis+cluster://host:6379 in GATEWAY_REDIS_URL, so that its owner is followed"
        )
    if policy != "noeviction":
        return (
            f"throws entries away when it is full (maxmemory-policy {policy}), which would lose money that was spent. "
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
    """Raise StoreRefused unless this signing key is the store's; the first one becomes its own.

    Replicas with different ones would refuse each other's links, and sign webhooks that no receiver believes.
    """
    mine = hmac.new(signing_key, b"signing-check", "sha256").hexdigest()
    if await client.set(names.SIGNING_CHECK(), mine, nx=True):
        return
    if not hmac.compare_digest(str(await client.get(names.SIGNING_CHECK())), mine):
        raise StoreRefused(
            f"The store at {describe(url)} belongs to gateways with another GATEWAY_SIGNING_KEY, whose links this one "
            "would refuse. Set the same one on every replica"
        )
