"""The Redis client: a deadline for every command, and one error for "Redis is away".

Never sends a command again: one whose reply was lost may have run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from typing_extensions import override

from gateway.process.redis_url import read_redis_url
from gateway.store.connections import StoreHealth, StorePool, connection_options

DEADLINE_S = 1.2
"""The longest duration of a command, with the wait for a connection: spending is refused within 1.5 s."""

CONNECTIONS = 64

LATE_S = 0.03
"""A timer that is this late shows that the loop was busy: the answer may be in the socket, unread."""

# The answers of a server that starts, fails over or cannot write; no other error means that Redis is away.
_AWAY = (
    *("MISCONF", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "OOM", "NOAUTH"),
    # A master that becomes a replica ends blocking reads so.
    *("MOVED", "ASK ", "UNBLOCKED"),
)
_AWAY_ERRORS = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
    # A Cluster's slot has another owner; the next connection finds it.
    redis.exceptions.AskError,
)


class StoreUnavailable(Exception):
    """Redis did not answer in time, or cannot write; the command may or may not have run."""


class StoreSilent(StoreUnavailable):
    """Redis answered nothing for as long as a command may take."""


class StorePipeline(Pipeline):
    """A pipeline that ends within `deadline_s` or raises StoreUnavailable."""

    deadline_s: float | None = None
    store_health: StoreHealth | None = None

    @override
    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        async with translated(self.deadline_s, self.store_health):
            return await super().execute(raise_on_error)


class StoreClient(Redis):
    """A Redis client whose commands end within `deadline_s`, answering text, or raise StoreUnavailable."""

    deadline_s: float | None = None
    store_health: StoreHealth | None = None

    @override
    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with translated(self.deadline_s, self.store_health):
            return await super().execute_command(*args, **options)

    @override
    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> StorePipeline:
        made = StorePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.deadline_s = self.deadline_s
        made.store_health = self.store_health
        return made


def connect(
    url: str,
    *,
    deadline_s: float | None = DEADLINE_S,
    connections: int = CONNECTIONS,
    store_health: StoreHealth | None = None,
) -> StoreClient:
    """Make a client for a Redis URL of any form; it connects at its first command. Raises ValueError for another URL.

    `deadline_s` None is for a client that only blocks in XREAD or waits on a channel. With a `store_health` commands
    fail at once while Redis is silent.
    """
    common: dict[str, Any] = {
        # Only our clock decides: redis-py's would take an answer that a busy loop has not read for silence.
        "socket_timeout": None,
        "socket_connect_timeout": None,
        # By default redis-py sends a command whose reply was lost ten more times.
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "decode_responses": True,
        # Version 3 lets the server push messages between replies.
        "protocol": 2,
    }
    options = connection_options(read_redis_url(url), common)
    pool = StorePool(store_health=store_health, max_connections=connections, timeout=deadline_s, **options)
    client = cast(StoreClient, StoreClient.from_pool(pool))
    client.deadline_s = deadline_s
    client.store_health = store_health
    return client


def open_store_health(url: str) -> StoreHealth:
    """Open the health of the store at a URL; it has a connection of its own."""
    client = connect(url, connections=1)

    async def is_answered() -> bool:
        try:
            # A script and not PING: a server that delays writes, as in a fail-over, answers a PING.
            return bool(await client.eval("return 1", 0))
        except (StoreUnavailable, redis.exceptions.ResponseError):
            return False

    return StoreHealth(is_answered, client.aclose)


def describe(url: str) -> str:
    """Return a Redis URL without its credentials and options, for messages."""
    return read_redis_url(url).describe()


def is_away(error: Exception) -> bool:
    """True when a server's error means that it is away; False when the command was wrong."""
    return isinstance(error, _AWAY_ERRORS) or str(error).startswith(_AWAY)


@asynccontextmanager
async def translated(deadline_s: float | None, store_health: StoreHealth | None) -> AsyncIterator[None]:
    """Bound the commands in this context, and raise StoreUnavailable in place of redis-py's errors."""
    if store_health is not None and store_health.is_lost:
        raise StoreSilent("Redis does not answer")
    try:
        async with deadline(deadline_s):
            yield
    except (TimeoutError, redis.exceptions.TimeoutError) as error:
        if store_health is not None:
            store_health.lose()
        raise StoreSilent(f"Redis did not answer within {deadline_s} s") from error
    except _AWAY_ERRORS as error:
        raise StoreUnavailable(str(error) or type(error).__name__) from error
    except redis.exceptions.ResponseError as error:
        if is_away(error):
            raise StoreUnavailable(str(error)) from error
        raise


@asynccontextmanager
async def deadline(seconds: float | None) -> AsyncIterator[None]:
    """Raise TimeoutError after `seconds` in which this process's loop was not busy; a late loop starts them again."""
    if seconds is None:
        yield
        return
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as guard:

        def end(due: float) -> None:
            nonlocal timer
            now = loop.time()
            if now - due <= LATE_S:
                guard.reschedule(now)
            else:
                timer = loop.call_at(now + seconds, end, now + seconds)

        due = loop.time() + seconds
        timer = loop.call_at(due, end, due)
        try:
            yield
        finally:
            timer.cancel()
