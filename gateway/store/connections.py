"""Connections to the server that owns the store: a fixed one, the sentinels' master, or the owner of a Cluster's slot.

Behind sentinels and in a Cluster, each new connection first asks for the owner. A connection is closed after its server
answers that it is not the owner. No connection sends a command twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

import redis.exceptions
from hiredis import Reader
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    DefaultParser,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError
from redis.utils import str_if_bytes
from typing_extensions import override

from gateway.process.redis_url import HostPort, RedisUrl
from gateway.store.names import TAG

_MOVED_ERRORS = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.AskError,  # MOVED is one of these
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
)
"""Answers of a server that no longer owns the store. A new connection finds the new owner."""

_CHUNK = 65_536

HEALTH_PAUSE_S = 0.1
"""Seconds between two questions whether Redis answers."""

Ask = Callable[[Any], Awaitable[HostPort]]
Find = Callable[[], Awaitable[HostPort]]


class StoreHealth:
    """One process's knowledge whether Redis answers: after one command without an answer the others fail at once.

    A Redis that hangs would otherwise cost a request its deadline at each of its steps. `is_answered` sends Redis one
    harmless command, and returns True if it is answered within a command's deadline; `close` ends its connection.
    """

    def __init__(
        self,
        is_answered: Callable[[], Awaitable[bool]],
        close: Callable[[], Awaitable[None]],
        pause_s: float = HEALTH_PAUSE_S,
    ) -> None:
        self._is_answered = is_answered
        self._close = close
        self._pause_s = pause_s
        self._asking: asyncio.Task[None] | None = None
        self.losses = 0
        """The number of times Redis was lost. A connection from before the last loss may lead to a dead server."""

    @property
    def is_lost(self) -> bool:
        """True from a command without an answer until Redis answers again."""
        return self._asking is not None and not self._asking.done()

    def lose(self) -> None:
        """Count a loss, and ask Redis in the background until it answers. Does nothing while Redis is lost already."""
        if not self.is_lost:
            self.losses += 1
            self._asking = asyncio.create_task(self._ask(), name="store health")

    async def aclose(self) -> None:
        """Stop asking Redis, and close the connection."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await self._close()

    async def _ask(self) -> None:
        while True:
            if await self._is_answered():
                return
            await asyncio.sleep(self._pause_s)


class StoreConnection(AbstractConnection):
    """A connection that is closed after its server has answered that it no longer owns the store."""

    @override
    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        await super().send_packed_command(*args, **options)
        # redis-py writes under `wait_for`, which before Python 3.12 loses a cancellation that comes as it ends: a
        # cancelled reader would read for ever.
        if task and task.cancelling() > before:
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError

    @override
    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except _MOVED_ERRORS:
            # Not closed here: the replies to the rest of its pipeline may follow this one.
            self.mark_for_reconnect()
            raise

    async def exchange(self, packed: bytes, count: int) -> list[Any]:
        """Send packed commands, connected first if need be; return their `count` replies. An error may be a reply too.

        One connection can be kept for many exchanges, and a pool is not needed. If an exchange fails, the connection
        is closed, since the next commands must not get the replies to these. Raises redis-py's ConnectionError.
        """
        try:
            # A closed one has an end to read, and one that has more than was asked for is not in step.
            if self.is_connected and (self.should_reconnect() or await self.can_read()):
                await self.disconnect(nowait=True)
            if not self.is_connected:
                await self.connect()
            if self._writer is None or self._reader is None:
                raise redis.exceptions.ConnectionError("the connection is closed")
            self._writer.write(packed)
            return await self._read_replies(self._reader, count)
        except OSError as error:
            await self.disconnect(nowait=True)
            raise redis.exceptions.ConnectionError(str(error) or type(error).__name__) from error
        except BaseException:
            await self.disconnect(nowait=True)
            raise

    async def _read_replies(self, stream: asyncio.StreamReader, count: int) -> list[Any]:
        # All replies are parsed as they arrive: redis-py's way passes four coroutines for each of them.
        parser = Reader(encoding="utf-8", replyError=DefaultParser.parse_error)
        replies: list[Any] = []
        while len(replies) < count:
            if not (data := await stream.read(_CHUNK)):
                raise redis.exceptions.ConnectionError("the server closed the connection")
            parser.feed(data)
            while (reply := parser.gets()) is not False:
                replies.append(reply)
                if isinstance(reply, _MOVED_ERRORS):
                    self.mark_for_reconnect()
                elif isinstance(reply, redis.exceptions.ConnectionError):
                    raise reply
        if len(replies) > count or parser.has_data():
            raise redis.exceptions.ConnectionError("the server sent more replies than it got commands")
        return replies


class StorePool(BlockingConnectionPool):
    """A pool that reopens each connection that is older than the last loss in `store_health`: it may lead nowhere."""

    def __init__(self, *, store_health: StoreHealth | None, **options: Any) -> None:
        self._store_health = store_health
        self._made: WeakKeyDictionary[AbstractConnection, int] = WeakKeyDictionary()
        super().__init__(**options)

    @override
    async def ensure_connection(self, connection: AbstractConnection) -> None:
        losses = 0 if self._store_health is None else self._store_health.losses
        if self._made.get(connection, losses) != losses:
            await connection.disconnect(nowait=True)
        self._made[connection] = losses
        await super().ensure_connection(connection)


class ServerConnection(StoreConnection, Connection):
    """A connection to a fixed host."""


class ServerTlsConnection(StoreConnection, SSLConnection):
    """A connection to a fixed host with TLS."""


class SocketConnection(StoreConnection, UnixDomainSocketConnection):
    """A connection to a Unix socket."""


class SeekingConnection(StoreConnection, Connection):
    """A connection to the server that `find` returns, which must agree that it is a master."""

    def __init__(self, *, find: Find, **options: Any) -> None:
        self._find = find
        super().__init__(**options)

    @override
    async def _connect(self) -> None:
        self.host, self.port = await self._find()
        await super()._connect()

    @override
    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)
        # Sentinels and nodes may learn of a fail-over later than the servers.
        await self.send_command("ROLE", check_health=False)
        if str_if_bytes((await self.read_response())[0]) != "master":
            raise redis.exceptions.ConnectionError(f"{self.host}:{self.port} is not the master")


class SeekingTlsConnection(SeekingConnection, SSLConnection):
    """A connection to the server that `find` returns, with TLS."""


def connection_options(url: RedisUrl, common: dict[str, Any]) -> dict[str, Any]:
    """Return the class of this URL's connections, and the arguments of each.

    `common` goes to every connection, also to those that ask for the owner.
    """
    tls: dict[str, Any] = dict(url.tls)
    own: dict[str, Any] = {**common, **tls, **url.login, "db": url.db}
    if url.kind == "socket":
        return {**own, "connection_class": SocketConnection, "path": url.path}
    if url.kind == "server":
        host, port = url.hosts[0]
        made = ServerTlsConnection if url.is_encrypted else ServerConnection
        return {**own, "connection_class": made, "host": host, "port": port}
    ask, login = (_ask_sentinel(url.service), url.sentinel_login) if url.kind == "sentinel" else (_ask_node, url.login)
    asking = SSLConnection if url.is_encrypted else Connection
    asked: dict[str, Any] = {**common, **tls, **login}
    seeker = Seeker(url, ask, lambda host, port: asking(host=host, port=port, **asked))
    made = SeekingTlsConnection if url.is_encrypted else SeekingConnection
    return {**own, "connection_class": made, "find": seeker.find}


class Seeker:
    """The search for the server that owns the store: it asks all hosts at once, and takes the first address."""

    def __init__(self, url: RedisUrl, ask: Ask, connect: Callable[[str, int], Connection]) -> None:
        self._url = url
        self._ask = ask
        self._connect = connect

    async def find(self) -> HostPort:
        """Return the owner's address. Raises redis-py's ConnectionError when no host knows it."""
        # All at once: a host that is cut off is silent for longer than a command may take.
        asked = [asyncio.create_task(self._ask_one(*host)) for host in self._url.hosts]
        refusals: list[str] = []
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    return await answer
                except (RedisError, OSError) as error:
                    refusals.append(str(error) or type(error).__name__)
        finally:
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise redis.exceptions.ConnectionError(
            f"no host of {self._url.describe()} knows the master ({'; '.join(dict.fromkeys(refusals))})"
        )

    async def _ask_one(self, host: str, port: int) -> HostPort:
        connection = self._connect(host, port)
        try:
            await connection.connect()
            found_host, found_port = await self._ask(connection)
        finally:
            await connection.disconnect(nowait=True)
        # A node that does not know its own address leaves it out.
        return found_host or host, found_port


def _ask_sentinel(service: str) -> Ask:
    async def ask(connection: Connection) -> HostPort:
        await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        answer = await connection.read_response()
        if not answer:
            raise ResponseError(f"the sentinel watches no service {service}")
        return str_if_bytes(answer[0]), int(answer[1])

    return ask


async def _ask_node(connection: Connection) -> HostPort:
    await connection.send_command("CLUSTER", "SLOTS")
    slot = key_slot(TAG.encode())
    for first, last, owner, *_ in cast(list[Any], await connection.read_response()):
        if first <= slot <= last:
            return str_if_bytes(owner[0] or ""), int(owner[1])
    raise ResponseError(f"no node owns slot {slot}")
