"""The checks of a store before its first use. They repair nothing, and write only digests of a new store's secrets."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from redis.exceptions import ResponseError

from gateway.callers.key_store import KeyStore
from gateway.process.data_folder import Secrets
from gateway.process.redis_url import read_redis_url
from gateway.process.settings import StartRefused
from gateway.store import names
from gateway.store.client import StoreClient, StoreUnavailable, connect, describe

OLDEST = (7, 0)
"""The oldest version that is accepted. Older ones do not name the error of a script (no room, read-only).

Valkey 7.2 equals Redis 7.2."""

_POLL_S = 0.2


class StoreRefused(StartRefused):
    """This store cannot be used. The message has the reason and the remedy."""


class StoreSilentAtStart(StoreRefused):
    """This store does not answer, or cannot work yet."""


def _say_nothing(_: str) -> None:
    pass


async def check_store(
    url: str, secrets: Secrets, wait_s: float, say: Callable[[str], None] = _say_nothing, *, may_write: bool = True
) -> str | None:
    """Check a store before its first use. Returns a doubt about it, or None; `say` gets the reason for a wait.

    Raises StoreRefused or PepperMismatch unless the store answers within `wait_s` seconds, is safe for money and
    belongs to these secrets. A new store takes them as its own, unless `may_write` is False.
    """
    client = connect(url)
    try:
        deadline = time.monotonic() + wait_s
        await _wait_for(client, url, deadline, ("PING",), say)
        # INFO and not CONFIG: managed servers refuse CONFIG.
        facts = await _wait_for(client, url, deadline, ("INFO",), say)
        if problem := find_problem(facts, is_cluster=_is_cluster(url)):
            raise StoreRefused(f"Redis at {describe(url)} {problem}")
        # A Cluster's node answers before its Cluster is ready.
        await _wait_for(client, url, deadline, ("GET", names.SIGNING_CHECK()), say)
        await KeyStore(client, secrets.pepper).check_pepper(may_write=may_write)
        await check_signing_key(client, url, secrets.signing_key, may_write=may_write)
    finally:
        await client.aclose()
    return f"Redis at {describe(url)} {doubt}" if (doubt := find_doubt(facts)) else None


def find_problem(facts: Mapping[str, Any], *, is_cluster: bool) -> str | None:
    """Return the reason why a server with these facts cannot hold the ledger, and the remedy; None if it can.

    Missing facts count as right.
    """
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


def find_doubt(facts: Mapping[str, Any]) -> str | None:
    """Return the reason why a server with these facts may forget what was spent, and the remedy; None if there is none.

    Missing facts count as right.
    """
    if facts.get("aof_enabled", 1):
        return None
    return (
        "keeps no append-only file (appendonly no), so its restart may forget what was spent. Set appendonly to yes, "
        "or make sure that a replica with the same data always takes over"
    )


def _is_cluster(url: str) -> bool:
    return read_redis_url(url).kind == "cluster"


async def _wait_for(
    client: StoreClient, url: str, deadline: float, command: tuple[str, ...], say: Callable[[str], None]
) -> Any:
    """Send a command until it is answered, and return the answer.

    Raises StoreRefused at once when the server refuses the login or the command, StoreSilentAtStart at the deadline.
    """
    is_told = False
    while True:
        try:
            return await client.execute_command(*command)
        except (StoreUnavailable, ResponseError) as error:
            if refusal := explain_refusal(error):
                raise StoreRefused(f"Redis at {describe(url)} {refusal}") from error
            if time.monotonic() > deadline:
                raise StoreSilentAtStart(
                    f"Redis at {describe(url)} does not answer ({error}). Start it, or correct GATEWAY_REDIS_URL"
                ) from error
            if not is_told:
                say(f"Waiting for Redis at {describe(url)}, which does not answer yet ({error})")
                is_told = True
            await asyncio.sleep(_POLL_S)


def explain_refusal(error: Exception) -> str | None:
    """Return the reason why a server refuses the gateway's login or command, and the remedy; None for other errors."""
    # The classes do not tell: redis-py cuts the code off the text, and a refused login becomes a lost connection.
    text = str(error).lower()
    if "no permissions" in text:
        return f"refuses a command of the gateway ({error}). Allow its user all commands on all keys (+@all ~* &*)"
    if "authentication required" in text:
        return "wants a password, and GATEWAY_REDIS_URL has none. Write it as redis://:PASSWORD@host"
    if "username-password pair" in text or "without any password configured" in text:
        return (
            "refuses the user name or the password in GATEWAY_REDIS_URL. Write them as redis://USER:PASSWORD@host, or "
            "redis://:PASSWORD@host for the default user, with special characters as %40"
        )
    return None


async def check_signing_key(client: StoreClient, url: str, signing_key: bytes, *, may_write: bool = True) -> None:
    """Raise StoreRefused unless this signing key is the store's; with `may_write` the first one becomes the store's.

    Replicas with different keys would refuse each other's links, and receivers would refuse their webhooks.
    """
    mine = hmac.new(signing_key, b"signing-check", "sha256").hexdigest()
    if may_write and await client.set(names.SIGNING_CHECK(), mine, nx=True):
        return
    theirs = await client.get(names.SIGNING_CHECK())
    if theirs is not None and not hmac.compare_digest(str(theirs), mine):
        raise StoreRefused(
            f"The store at {describe(url)} belongs to gateways with another GATEWAY_SIGNING_KEY, whose links this one "
            "would refuse. Set the same one on every replica"
        )
