"""The Redis client's promises: no wait without a bound, no command sent twice, one error for "away"."""

import asyncio

import pytest
from redis.exceptions import ResponseError

from gateway.store.client import StoreClient, StoreUnavailable, connect, describe
from tests.conftest import Valkey
from tests.support.stopwatch import running_seconds

pytestmark = pytest.mark.quiet_store


async def test_dead_server_is_reported_soon(valkey: Valkey, redis: StoreClient) -> None:
    """A server that died is reported as away in well under 1.5 s, and used again once it is back."""
    await redis.set("a", "1")
    valkey.kill()
    began = running_seconds()
    with pytest.raises(StoreUnavailable):
        await redis.get("a")
    assert running_seconds() - began < 1.5
    valkey.start()
    assert await redis.get("a") == "1"


async def test_silent_server_is_reported_soon(valkey: Valkey, redis: StoreClient) -> None:
    """A server that accepts and says nothing is reported as away within 1.5 s, by commands and pipelines."""
    with valkey.paused():
        for attempt in (redis.get("a"), redis.pipeline().get("a").execute()):
            began = running_seconds()
            with pytest.raises(StoreUnavailable):
                await attempt
            assert running_seconds() - began < 1.5


async def test_late_reply_reaches_nobody_else(valkey: Valkey) -> None:
    """The reply to a command that timed out is never taken for the reply to the next one."""
    client = connect(valkey.url, deadline_s=0.2, connections=1)
    await client.set("mine", "right")
    with valkey.paused(), pytest.raises(StoreUnavailable):
        await client.echo("stale")
    assert await client.get("mine") == "right"
    await client.aclose()


async def test_lost_reply_is_not_resent(valkey: Valkey) -> None:
    """A command whose reply was lost runs once: redis-py's habit of sending it again is off."""
    client = connect(valkey.url, deadline_s=0.2)
    await client.ping()
    with valkey.paused(), pytest.raises(StoreUnavailable):
        await client.incrby("spent", 5)
    assert await client.get("spent") in {None, "5"}
    await client.aclose()


async def test_full_pool_waits_in_order(valkey: Valkey) -> None:
    """More commands at once than connections wait for one instead of failing."""
    client = connect(valkey.url, deadline_s=20, connections=2)
    assert await asyncio.gather(*(client.incr("n") for _ in range(200)))
    assert await client.get("n") == "200"
    await client.aclose()


async def test_readonly_server_is_away(redis: StoreClient) -> None:
    """A replica after a fail-over, which refuses writes, counts as away."""
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(StoreUnavailable):
            await redis.set("a", "1")
    finally:
        await redis.execute_command("REPLICAOF", "NO", "ONE")


async def test_wrong_command_is_no_outage(redis: StoreClient) -> None:
    """A mistake of ours is not reported as an outage."""
    await redis.set("text", "x")
    with pytest.raises(ResponseError):
        await redis.incr("text")


async def test_missing_server_is_away() -> None:
    """No server at all counts as away, at the first command."""
    client = connect("redis://127.0.0.1:1/0")
    with pytest.raises(StoreUnavailable):
        await client.ping()
    await client.aclose()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hunter2@cache:6380/1", "redis://cache:6380/1"),
        ("rediss://u:hunter2@cache?ssl_password=hunter2", "rediss://cache:6379"),
        ("unix:///run/v.sock?password=hunter2", "unix:///run/v.sock"),
        ("redis+sentinel://u:hunter2@a,b:1/main?sentinel_password=hunter2", "redis+sentinel://a:26379,b:1/main"),
        ("rediss+cluster://:hunter2@[::1]:7000,b", "rediss+cluster://[::1]:7000,b:6379"),
    ],
)
def test_description_hides_credentials(url: str, shown: str) -> None:
    """A message about a server never shows its password."""
    assert describe(url) == shown


async def test_cancellation_is_never_forgotten(valkey: Valkey) -> None:
    """A command that is cancelled at any step of its way ends as cancelled, and its reply reaches nobody else."""
    client = connect(valkey.url, deadline_s=5, connections=1)
    await client.set("mine", "right")
    for steps in range(12):
        asking = asyncio.create_task(client.blpop(["nothing"], timeout=20))
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking}, timeout=2)
        assert asking.cancelled()
        assert await client.get("mine") == "right"
    await client.aclose()
