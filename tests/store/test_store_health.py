"""The pulse: a silent Redis is waited for once and not at every step, and heard as soon as it speaks again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from gateway.store.client import StoreClient, StoreSilent, StoreUnavailable, connect, open_pulse
from gateway.store.command_queue import Batcher
from gateway.store.store_health import Pulse
from tests.conftest import Valkey
from tests.store.test_command_queue import ECHO

pytestmark = pytest.mark.quiet_store

DEADLINE_S = 0.6
"""How long a command of these tests may wait."""

Connected = tuple[Pulse, StoreClient, Batcher]


@pytest.fixture
async def connected(valkey: Valkey) -> AsyncIterator[Connected]:
    pulse, asking = open_pulse(valkey.url)
    client = connect(valkey.url, deadline_s=DEADLINE_S, pulse=pulse)
    batcher = Batcher(valkey.url, deadline_s=DEADLINE_S, pulse=pulse)
    yield pulse, client, batcher
    await batcher.aclose()
    await client.aclose()
    await pulse.stop()
    await asking.aclose()


async def until_heard(pulse: Pulse) -> None:
    async with asyncio.timeout(5):
        while pulse.is_lost:
            await asyncio.sleep(0.01)


async def test_silence_is_waited_for_once(valkey: Valkey, connected: Connected) -> None:
    """After one command waited in vain all others are refused at once, and all are taken when Redis speaks again."""
    pulse, client, batcher = connected
    await client.ping()
    with valkey.paused():
        with pytest.raises(StoreSilent):
            await client.get("a")
        began = time.monotonic()
        for attempt in (client.get("a"), client.pipeline().get("a").execute(), batcher.run(ECHO, "x")):
            with pytest.raises(StoreSilent):
                await attempt
        assert time.monotonic() - began < DEADLINE_S
    await until_heard(pulse)
    assert await client.get("a") is None
    assert await batcher.run(ECHO, "x") == ["x"]


async def test_silent_script_is_noticed(valkey: Valkey, connected: Connected) -> None:
    """A script that nobody answers loses the pulse too."""
    pulse, _, batcher = connected
    assert await batcher.run(ECHO, "x") == ["x"]
    with valkey.paused():
        with pytest.raises(StoreSilent):
            await batcher.run(ECHO, "x")
        assert pulse.is_lost
    await until_heard(pulse)
    assert await batcher.run(ECHO, "x") == ["x"]


async def test_old_connections_are_left(valkey: Valkey, connected: Connected) -> None:
    """After a silence each connection is made anew: the old ones may lead to a machine that is gone."""
    pulse, client, _ = connected
    before = await asyncio.gather(*(client.client_id() for _ in range(3)))
    with valkey.paused(), pytest.raises(StoreSilent):
        await client.get("a")
    await until_heard(pulse)
    after = await asyncio.gather(*(client.client_id() for _ in range(3)))
    assert not set(before) & set(after)
    assert set(await asyncio.gather(*(client.client_id() for _ in range(3)))) <= set(after)


async def test_refusal_loses_no_pulse(valkey: Valkey, connected: Connected) -> None:
    """A server that is gone or read-only refuses quickly by itself, and is asked each time."""
    pulse, client, _ = connected
    await client.ping()
    valkey.kill()
    with pytest.raises(StoreUnavailable):
        await client.get("a")
    assert not pulse.is_lost
    valkey.start()
    assert await client.get("a") is None


async def test_stopped_pulse_asks_no_more(valkey: Valkey) -> None:
    """A process that ends while Redis is silent does not wait for it."""
    pulse, asking = open_pulse(valkey.url)
    with valkey.paused():
        pulse.lose()
        await pulse.stop()
        assert not pulse.is_lost
    await asking.aclose()
