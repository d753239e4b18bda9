"""What must be true of a store before anything is served from it.

Called by the supervisor and the CLI at their start. Never repairs anything.
"""

from __future__ import annotations

import asyncio
import hmac
import time

from gateway.datafolder import Secrets
from gateway.settings import StartRefused
from gateway.store import names
from gateway.store.client import StoreClient, StoreUnavailable, connect, describe
from gateway.store.keys import KeyStore

_POLL_S = 0.2


class StoreRefused(StartRefused):
    """This store cannot be used. The text says why and what to do."""


async def check_store(url: str, secrets: Secrets, wait_s: float) -> None:
    """Raise StoreRefused or PepperMismatch unless the store answers in time, evicts nothing, and has our secrets."""
    client = connect(url)
    try:
        await _answers(client, url, wait_s)
        await _evicts_nothing(client, url)
        await KeyStore(client, secrets.pepper).check_pepper()
        await _knows_signing_key(client, url, secrets.signing_key)
    finally:
        await client.aclose()


async def _answers(client: StoreClient, url: str, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            await client.execute_command("PING")
        except StoreUnavailable as error:
            if time.monotonic() > deadline:
                raise StoreRefused(
                    f"Redis at {describe(url)} does not answer ({error}). Start it, or correct GATEWAY_REDIS_URL"
                ) from error
            await asyncio.sleep(_POLL_S)
        else:
            return


async def _evicts_nothing(client: StoreClient, url: str) -> None:
    # INFO and not CONFIG: managed servers refuse CONFIG.
    memory = await client.execute_command("INFO", "memory")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise StoreRefused(
            f"Redis at {describe(url)} throws entries away when it is full (maxmemory-policy {policy}), "
            "which would lose money that was spent. Set its maxmemory-policy to noeviction"
        )


async def _knows_signing_key(client: StoreClient, url: str, signing_key: bytes) -> None:
    """The first key becomes the store's own: replicas with different ones would refuse each other's links."""
    mine = hmac.new(signing_key, b"signing-check", "sha256").hexdigest()
    if await client.set(names.SIGNING_CHECK(), mine, nx=True):
        return
    if not hmac.compare_digest(str(await client.get(names.SIGNING_CHECK())), mine):
        raise StoreRefused(
            f"The store at {describe(url)} belongs to gateways with another GATEWAY_SIGNING_KEY, whose links this one "
            "would refuse. Set the same one on every replica"
        )
