"""The pulse: a silent Redis is waited for once and not at every step, and heard as soon as it speaks again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from gateway.store.client import CommandQueue, StoreClient, StoreSilent, StoreUnavailable, connect, open_store_health
from gateway.store.connections import StoreHealth
from tests.conftest import Valkey
from tests.store.test_command_queue import ECHO

pytestmark = pytest.mark.quiet_store

DEADLINE_S = 0.6
"""How long a command of these tests may wait."""

Connected = tuple[StoreHealth, StoreClient, CommandQueue]


@pytest.fixture
async def connected(valkey: Valkey) -> AsyncIterator[Connected]:
    store_health = open_store_health(valkey.url)
    client = connect(valkey.url, deadline_s=DEADLINE_S, store_health=store_health)
    command_queue = CommandQueue(valkey.url, deadline_s=DEADLINE_S, store_health=store_health)
    yield store_health, client, command_queue
    await command_queue.aclose()
    await client.aclose()
    await store_health.aclose()


async def until_heard(store_health: StoreHealth) -> None:
    async with asyncio.timeout(5):
        while store_health.is_lost:
            await asyncio.sleep(0.01)


async def test_silence_is_waited_for_once(valkey: Valkey, connected: Connected) -> None:
    """After one command waited in vain all others are refused at once, and all are taken when Redis speaks again."""
    store_health, client, command_queue = connected
    await client.ping()
    with valkey.paused():
        with pytest.raises(StoreSilent):
            await client.get("a")
        began = time.monotonic()
        for attempt in (client.get("a"), client.pipeline().get("a").execute(), command_queue.run(ECHO, "x")):
            with pytest.raises(StoreSilent):
                await attempt
        assert time.monotonic() - began < DEADLINE_S
    await until_heard(store_health)
    assert await client.get("a") is None
    assert await command_queue.run(ECHO, "x") == ["x"]


async def test_silent_script_is_noticed(valkey: Valkey, connected: Connected) -> None:
    """A script that nobody answers loses the pulse too."""
    store_health, _, command_queue = connected
    assert await command_queue.run(ECHO, "x") == ["x"]
    with valkey.paused():
        with pytest.raises(StoreSilent):
            await command_queue.run(ECHO, "x")
        assert store_health.is_lost
    await until_heard(store_health)
    assert await command_queue.run(ECHO, "x") == ["x"]


async def test_old_connections_are_left(valkey: Valkey, connected: Connected) -> None:
    """After a silence each connection is made anew: the old ones may lead to a machine that is gone."""
    store_health, client, _ = connected
    before = await asyncio.gather(*(client.client_id() for _ in range(3)))
    with valkey.paused(), pytest.raises(StoreSilent):
        await client.get("a")
    await until_heard(store_health)
    after = await asyncio.gather(*(client.client_id() for _ in range(3)))
    assert not set(before) & set(after)
    assert set(await asyncio.gather(*(client.client_id() for _ in range(3)))) <= set(after)


async def test_refusal_loses_no_pulse(valkey: Valkey, connected: Connected) -> None:
    """A server that is gone or read-only refuses quickly by itself, and is asked each time."""
    store_health, client, _ = connected
    await client.ping()
    valkey.kill()
    with pytest.raises(StoreUnavailable):
        await client.get("a")
    assert not store_health.is_lost
    valkey.start()
    assert await client.get("a") is None


async def test_closed_health_asks_no_more(valkey: Valkey) -> None:
    """A process that ends while Redis is silent does not wait for it."""
    store_health = open_store_health(valkey.url)
    with valkey.paused():
        store_health.lose()
        await store_health.aclose()
        assert not store_health.is_lost
