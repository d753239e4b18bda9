"""Runs scripts over one connection, many at once: what is asked in one turn of the loop goes out as one pipeline.

Used by `store.ledger`. Re-sends a script whose reply was lost once, which is right only because each is idempotent by
the ids in its arguments. Whoever waits behind others is answered or refused with them: what it waits for then is this
process, not Redis.
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
"""Seconds before what was lost is sent again: a server that is started again needs about so long."""

_MOST = 500
_TRIES = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    script: Script
    arguments: tuple[str, ...]
    reply: asyncio.Future[list[str]]


class CommandQueue:
    """One connection to a server, which has `deadline_s` for what was asked together, a repetition included.

    `wait_replicas` is how many replicas must have a change before it counts as made.
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
        """A script's answer. Raises StoreUnavailable when it may or may not have run, ResponseError when it failed."""
        if self._store_health is not None and self._store_health.is_lost:
            raise StoreSilent("Redis does not answer")
        asked = _Asked(script, arguments, asyncio.get_running_loop().create_future())
        self._queue.append(asked)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())
        return await asked.reply

    async def aclose(self) -> None:
        """Answer what was asked, then close the connection."""
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
            # Nobody waits for one whose deadline has passed: to send it now could only surprise.
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
            # Who asked meanwhile is not to wait for as long as these did.
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
            # A server that restarted, failed over or was flushed; the text makes it known again.
            _answer(unknown, await self._pipe(unknown, "EVAL"))

    async def _pipe(self, batch: list[_Asked], command: str) -> list[Any]:
        # redis-py's own pipeline costs five times as much, and does nothing else.
        pool = self._client.connection_pool
        async with translated(self._try_s, None):
            connection = await pool.get_connection()
            try:
                packed = b"".join(map(pack_command, self._say(batch, command)))
                await connection.send_packed_command(packed, check_health=False)
                replies = [await _read(connection) for _ in range(len(batch) + bool(self._wait_replicas))]
            except BaseException:
                # Replies to these scripts must not be taken for those to others.
                await connection.disconnect(nowait=True)
                raise
            finally:
                await pool.release(connection)
        if self._wait_replicas and _count(replies.pop()) < self._wait_replicas:
            raise StoreUnavailable("too few replicas have the change")
        return replies

    def _say(self, batch: list[_Asked], command: str) -> Iterator[Any]:
        """Each command's words."""
        # The one key tells a Cluster's client which server to ask.
        key = names.JOURNAL()
        for asked in batch:
            known_by = asked.script.digest if command == "EVALSHA" else asked.script.text
            yield (command, known_by, 1, key, *asked.arguments)
        if self._wait_replicas:
            yield ("WAIT", self._wait_replicas, round(self._try_s * 500))


async def _read(connection: AbstractConnection) -> Any:
    """One reply; an error that the server answered is one too."""
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
