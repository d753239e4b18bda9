"""A queue of scripts over one connection: all scripts of one turn of the loop go out as one pipeline.

It sends a script whose reply was lost once more; each script is idempotent by the ids in its arguments. While Redis is
silent it refuses the whole queue at once, so that no caller waits for several deadlines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from gateway.store import names
from gateway.store.client import StoreSilent, StoreUnavailable, connect, is_away, translated
from gateway.store.connections import StoreHealth
from gateway.store.lua import Script

DEADLINE_S = 1.2
"""Seconds; spending is refused within 1.5 s of Redis going away."""

PAUSE_S = 0.1
"""Seconds before a second try: a server needs about this time to start again."""

_MOST = 500
_TRIES = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    script: Script
    arguments: tuple[str, ...]
    reply: asyncio.Future[list[str]]


class CommandQueue:
    """One connection to a server, with `deadline_s` for each pipeline, its repetition included.

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
        self._client = connect(url, deadline_s=self._try_s, connections=1)
        self._wait_replicas = wait_replicas
        self._store_health = store_health
        self._queue: list[_Asked] = []
        self._sender: asyncio.Task[None] | None = None

    async def run(self, script: Script, *arguments: str) -> list[str]:
        """Return a script's answer. Raises StoreUnavailable when it may have run, ResponseError when it failed."""
        if self._store_health is not None and self._store_health.is_lost:
            raise StoreSilent("Redis does not answer")
        asked = _Asked(script, arguments, asyncio.get_running_loop().create_future())
        self._queue.append(asked)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())
        return await asked.reply

    async def aclose(self) -> None:
        """Send the whole queue, then close the connection."""
        if self._sender is not None:
            await self._sender
        await self._client.aclose()

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
        # redis-py's own pipeline takes five times as long for the same.
        pool = self._client.connection_pool
        async with translated(self._try_s, None):
            connection = await pool.get_connection()
            try:
                packed = b"".join(map(pack_command, self._list_commands(batch, command)))
                await connection.send_packed_command(packed, check_health=False)
                replies = [await _read(connection) for _ in range(len(batch) + bool(self._wait_replicas))]
            except BaseException:
                # The next scripts must not get the replies to these.
                await connection.disconnect(nowait=True)
                raise
            finally:
                await pool.release(connection)
        if self._wait_replicas and _count(replies.pop()) < self._wait_replicas:
            raise StoreUnavailable("too few replicas have the change")
        return replies

    def _list_commands(self, batch: list[_Asked], command: str) -> Iterator[Any]:
        """Yield the words of each command."""
        # A Cluster's client finds the server by this key.
        key = names.JOURNAL()
        for asked in batch:
            script = asked.script.digest if command == "EVALSHA" else asked.script.text
            yield (command, script, 1, key, *asked.arguments)
        if self._wait_replicas:
            yield ("WAIT", self._wait_replicas, round(self._try_s * 500))


async def _read(connection: AbstractConnection) -> Any:
    """Return one reply; a server's error is a reply too."""
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _count(reply: Any) -> int:
    if isinstance(reply, ResponseError):
        raise reply
    return int(reply)


def _answer(batch: list[_Asked], replies: list[Any]) -> None:
    for asked, reply in zip(batch, replies, strict=True):
        if asked.reply.done() or isinstance(reply, NoScriptError):
            continue
        if not isinstance(reply, Exception):
            asked.reply.set_result(reply)
        elif not is_away(reply):
            asked.reply.set_exception(reply)
