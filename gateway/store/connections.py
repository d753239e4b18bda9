"""Connections to the server that owns the store: a fixed one, the sentinels' master, or the owner of a Cluster's slot.

Made by `store.client` alone. Where servers change places, the owner is asked for at every connect, and a connection
whose server turned out to be no owner any more is dropped after its reply. Never sends a command twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

import redis.exceptions
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError
from redis.utils import str_if_bytes
from typing_extensions import override

from gateway.process.redis_url import HostPort, RedisUrl
from gateway.store.names import TAG
from gateway.store.store_health import StoreHealth

_MOVED_ERRORS = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.AskError,  # MOVED is one of these
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
)
"""What a server answers that owns the store no longer. Behind a name that DNS moves, a new connection finds the new."""

Ask = Callable[[Any], Awaitable[HostPort]]
Find = Callable[[], Awaitable[HostPort]]


class _Dropping(AbstractConnection):
    """A connection that is closed, not kept, once its server has said that it owns the store no longer."""

    @override
    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        await super().send_packed_command(*args, **options)
        # redis-py writes under `wait_for`, which before Python 3.12 forgets a cancellation that comes as it ends: a
        # reader that was told to stop would read for ever.
        if task and task.cancelling() > before:
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError

    @override
    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except _MOVED_ERRORS:
            # Not closed here: behind this reply may stand those to the rest of its pipeline.
            self.mark_for_reconnect()
            raise


class StorePool(BlockingConnectionPool):
    """A pool that makes its connections anew after Redis was silent: the others may lead to a machine that is gone."""

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


class ServerConnection(_Dropping, Connection):
    """To a host that is always the same."""


class ServerTlsConnection(_Dropping, SSLConnection):
    """The same with TLS."""


class SocketConnection(_Dropping, UnixDomainSocketConnection):
    """To a Unix socket."""


class SeekingConnection(_Dropping, Connection):
    """To wherever `find` says at this moment, if that server agrees that it is a master."""

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
        # Sentinels and nodes may know of a fail-over later than the servers do.
        await self.send_command("ROLE", check_health=False)
        if str_if_bytes((await self.read_response())[0]) != "master":
            raise redis.exceptions.ConnectionError(f"{self.host}:{self.port} is not the master")


class SeekingTlsConnection(SeekingConnection, SSLConnection):
    """The same with TLS."""


def connection_options(url: RedisUrl, common: dict[str, Any]) -> dict[str, Any]:
    """What a pool needs to make connections for this URL: their class, and the arguments of each.

    `common` goes to every connection, also to those that ask where the owner is.
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
    """Asks all that may know where the owner is at once, and believes the first that does."""

    def __init__(self, url: RedisUrl, ask: Ask, connect: Callable[[str, int], Connection]) -> None:
        self._url = url
        self._ask = ask
        self._connect = connect

    async def find(self) -> HostPort:
        """The owner's address. Raises redis-py's ConnectionError when nobody knows."""
        # At once: one that is cut off says nothing for longer than a command may take.
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
            f"nobody at {self._url.describe()} knows where the master is ({'; '.join(dict.fromkeys(refusals))})"
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
            raise ResponseError(f"no service {service} is watched here")
        return str_if_bytes(answer[0]), int(answer[1])

    return ask


async def _ask_node(connection: Connection) -> HostPort:
    await connection.send_command("CLUSTER", "SLOTS")
    slot = key_slot(TAG.encode())
    for first, last, owner, *_ in cast(list[Any], await connection.read_response()):
        if first <= slot <= last:
            return str_if_bytes(owner[0] or ""), int(owner[1])
    raise ResponseError(f"no node owns slot {slot}")
