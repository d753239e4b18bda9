"""The Redis client: a deadline for every command, and one error for an unavailable Redis.

StoreClient never sends a command again: one whose reply was lost may have run. CommandQueue sends a script once
more after a lost reply, since every script is idempotent by its ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import redis.exceptions
from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import NoScriptError, RedisError, ResponseError
from typing_extensions import override

from gateway.process.redis_url import read_redis_url
from gateway.store import names
from gateway.store.connections import StoreConnection, StoreHealth, StorePool, connection_options
from gateway.store.lua import Script, chain_scripts

DEADLINE_S = 1.2
"""The longest duration of a command in seconds, with the wait for a connection: spending is refused within 1.5 s."""

CONNECTIONS = 64

_DRIVER = DriverInfo()
"""Read once: without it, redis-py looks up its own version on the disk for each new connection."""

LATE_S = 0.03
"""A timer that is later than these seconds shows that the loop was busy: the answer may be in the socket, unread."""

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
    """Redis cannot be reached, did not answer in time or cannot write; the command may or may not have run."""


class StoreSilent(StoreUnavailable):
    """Redis answered nothing within the deadline of this command, or of an earlier one since which it is silent."""


class StorePipeline(Pipeline):
    """A pipeline that ends within `deadline_s` seconds or raises StoreUnavailable. None is no deadline."""

    deadline_s: float | None = None
    store_health: StoreHealth | None = None

    @override
    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        with BoundedCommands(self.deadline_s, self.store_health):
            return await super().execute(raise_on_error)


class StoreClient(Redis):
    """A Redis client whose commands end within `deadline_s` seconds or raise StoreUnavailable. None is no deadline."""

    deadline_s: float | None = None
    store_health: StoreHealth | None = None

    @override
    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with BoundedCommands(self.deadline_s, self.store_health):
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

    A `deadline_s` of None, without a deadline, is for a client that only blocks in XREAD or waits on a channel. With a
    `store_health` commands raise StoreSilent at once while Redis is silent.
    """
    common: dict[str, Any] = {
        # Only this module's clock decides: redis-py's would take an answer that a busy loop has not read for silence.
        "socket_timeout": None,
        "socket_connect_timeout": None,
        # By default redis-py sends a command whose reply was lost ten more times.
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "decode_responses": True,
        # Version 3 lets the server push messages between replies.
        "protocol": 2,
        "driver_info": _DRIVER,
    }
    options = connection_options(read_redis_url(url), common)
    pool = StorePool(store_health=store_health, max_connections=connections, timeout=deadline_s, **options)
    client = cast(StoreClient, StoreClient.from_pool(pool))
    client.deadline_s = deadline_s
    client.store_health = store_health
    return client


def open_store_health(url: str) -> StoreHealth:
    """Make the StoreHealth of the store at a URL; it has a connection of its own."""
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
    """True when a server's error means that it is unavailable; False when the command was wrong."""
    return isinstance(error, _AWAY_ERRORS) or str(error).startswith(_AWAY)


class BoundedCommands:
    """A context that bounds the commands in it, and raises StoreUnavailable in place of redis-py's errors.

    After `deadline_s` seconds, never for None, it raises StoreSilent and marks `store_health` as lost; while that is
    lost, it raises StoreSilent at once. If the event loop was busy, the time begins anew. It raises an error about the
    command itself as it is.
    """

    __slots__ = ("_cancelling", "_deadline_s", "_is_over", "_store_health", "_task", "_timer")

    def __init__(self, deadline_s: float | None, store_health: StoreHealth | None) -> None:
        self._deadline_s = deadline_s
        self._store_health = store_health
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def __enter__(self) -> None:
        if self._store_health is not None and self._store_health.is_lost:
            raise StoreSilent("Redis does not answer")
        if self._deadline_s is not None and (task := asyncio.current_task()) is not None:
            self._task, self._cancelling = task, task.cancelling()
            self._start(task.get_loop(), self._deadline_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_over and self._task is not None:
            is_own = self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError)
            error = TimeoutError() if is_own else error
        if error is not None:
            self._translate(error)

    def _start(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        due = loop.time() + seconds
        self._timer = loop.call_at(due, self._end, loop, due, seconds)

    def _end(self, loop: asyncio.AbstractEventLoop, due: float, seconds: float) -> None:
        if loop.time() - due > LATE_S:
            self._start(loop, seconds)
        elif self._task is not None:
            self._is_over = True
            self._task.cancel()

    def _translate(self, error: BaseException) -> None:
        """Raise the error of this module for an error of redis-py or a time-out, if it means that Redis is away."""
        if isinstance(error, (TimeoutError, redis.exceptions.TimeoutError)):
            if self._store_health is not None:
                self._store_health.lose()
            raise StoreSilent(f"Redis did not answer within {self._deadline_s} s") from error
        if isinstance(error, (*_AWAY_ERRORS, ResponseError)) and is_away(error):
            raise StoreUnavailable(str(error) or type(error).__name__) from error


PAUSE_S = 0.1
"""Seconds before a second try: a server needs about this time to start again."""

_KEY = names.JOURNAL()
"""The key of every script: a Cluster's client finds the server by it."""

LINGER_S = 0.005
"""The longest wait in seconds for other commands: a pipeline wakes both processes, which costs more than a script."""

_MOST = 500
_TRIES = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """A script with its arguments, as a part of a chain. `read` makes the result of its answer.

    The next command of the chain runs after an answer that begins with `wanted`. If that is empty, it runs in any case.
    A command that `may_linger` waits up to LINGER_S for others, to be sent with them.
    """

    script: Script
    arguments: tuple[str, ...]
    read: Callable[[list[str]], T]
    wanted: str = ""
    may_linger: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    script: Script
    arguments: Sequence[str]
    reply: asyncio.Future[list[Any]]


class CommandQueue:
    """One connection to a server, with `deadline_s` seconds for each pipeline, its repetition included.

    A change counts as made once `wait_replicas` replicas have it.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = DEADLINE_S,
        pause_s: float = PAUSE_S,
        wait_replicas: int = 0,
        store_health: StoreHealth | None = None,
    ) -> None:
        self._try_s = (deadline_s - pause_s) / _TRIES
        self._pause_s = pause_s
        self._connection = cast(StoreConnection, connect(url).connection_pool.make_connection())
        self._wait_replicas = wait_replicas
        self._store_health = store_health
        self._queue: list[_Asked] = []
        self._sender: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None

    async def run_chain(self, *commands: Command[Any]) -> list[Any]:
        """Run commands in turn, as one script; return the results of those that ran.

        Raises as `run` does if one of them fails. The next one has run all the same, unless it waits for an answer.
        """
        if len(commands) == 1:
            only = commands[0]
            return [only.read(await self._ask(only.script, only.arguments, may_linger=only.may_linger))]
        words: list[str] = []
        for command in commands:
            words += (str(len(command.arguments)), command.wanted, *command.arguments)
        answers = await self._ask(chain_scripts(tuple([command.script for command in commands])), words)
        results, failures = list[Any](), list[ResponseError]()
        for command, answer in zip(commands, answers, strict=False):
            if answer[0] == "error":
                failures.append(ResponseError(answer[1]))
            else:
                results.append(command.read(answer))
        # What a store that is away has not taken is repeated, with all of the chain.
        if away := next(filter(is_away, failures), None):
            raise StoreUnavailable(str(away))
        if failures:
            raise failures[0]
        return results

    async def run(self, script: Script, *arguments: str) -> list[Any]:
        """Run a script, and return its answer; after a lost reply the script is sent once more.

        Raises StoreUnavailable when it is not known to have run on enough replicas, ResponseError when it failed.
        """
        return await self._ask(script, arguments)

    def _ask(self, script: Script, arguments: Sequence[str], *, may_linger: bool = False) -> asyncio.Future[list[Any]]:
        if self._store_health is not None and self._store_health.is_lost:
            raise StoreSilent("Redis does not answer")
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[list[Any]] = loop.create_future()
        self._queue.append(_Asked(script, arguments, reply))
        if not may_linger:
            self._start_sender()
        elif self._lingering is None:
            self._lingering = loop.call_later(LINGER_S, self._start_sender)
        return reply

    def _start_sender(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._queue and (self._sender is None or self._sender.done()):
            self._sender = asyncio.get_running_loop().create_task(self._send_all())

    async def aclose(self) -> None:
        """Wait until the whole queue is sent, then close the connection."""
        self._start_sender()
        if self._sender is not None:
            await self._sender
        await self._connection.disconnect(nowait=True)

    async def _send_all(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:_MOST], self._queue[_MOST:]
            await self._send_batch(batch)

    async def _send_batch(self, batch: list[_Asked]) -> None:
        lost = StoreUnavailable("Redis did not answer")
        for number in range(_TRIES):
            # A script whose caller gave up must not run later.
            batch = [asked for asked in batch if not asked.reply.done()]
            try:
                if batch:
                    await self._send(batch)
            except StoreUnavailable as error:
                lost = error
            except RedisError as error:
                lost = StoreUnavailable(str(error))
            if all(asked.reply.done() for asked in batch):
                return
            if number + 1 < _TRIES:
                await asyncio.sleep(self._pause_s)
        self._refuse(batch, lost)

    def _refuse(self, batch: list[_Asked], lost: StoreUnavailable) -> None:
        if isinstance(lost, StoreSilent):
            # The scripts behind these must not wait for a deadline of their own.
            batch = batch + self._queue
            self._queue = list[_Asked]()
            if self._store_health is not None:
                self._store_health.lose()
        for asked in batch:
            if not asked.reply.done():
                asked.reply.set_exception(type(lost)(str(lost)))

    async def _send(self, batch: list[_Asked]) -> None:
        replies = await self._pipe(batch, "EVALSHA")
        unknown = [asked for asked, reply in zip(batch, replies, strict=True) if isinstance(reply, NoScriptError)]
        _answer(batch, replies)
        if unknown:
            # The server restarted, failed over or was flushed, and needs the text of these.
            _answer(unknown, await self._pipe(unknown, "EVAL"))

    async def _pipe(self, batch: list[_Asked], command: str) -> list[Any]:
        is_known = command == "EVALSHA"
        packed = [
            _pack(command, one.script.digest if is_known else one.script.text, 1, _KEY, *one.arguments) for one in batch
        ]
        if self._wait_replicas:
            packed.append(_pack("WAIT", self._wait_replicas, round(self._try_s * 500)))
        with BoundedCommands(self._try_s, None):
            replies = await self._connection.exchange(b"".join(packed), len(packed))
        if self._wait_replicas:
            if isinstance(reached := replies.pop(), ResponseError):
                raise reached
            if int(reached) < self._wait_replicas:
                raise StoreUnavailable("too few replicas have the change")
        return replies


def _pack(*words: Any) -> bytes:
    return pack_command(cast(Any, words))


def _answer(batch: list[_Asked], replies: list[Any]) -> None:
    for asked, reply in zip(batch, replies, strict=True):
        if asked.reply.done() or isinstance(reply, NoScriptError):
            continue
        if not isinstance(reply, Exception):
            asked.reply.set_result(reply)
        elif not is_away(reply):
            asked.reply.set_exception(reply)
