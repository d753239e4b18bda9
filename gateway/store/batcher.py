"""Runs scripts over one connection, many at once: what is asked in one turn of the loop goes out as one pipeline.

Used by `store.ledger`. Re-sends a script whose reply was lost once, which is right only because each is idempotent by
the ids in its arguments; never holds a caller longer than its deadline.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from redis.exceptions import NoScriptError, RedisError

from gateway.store import names
from gateway.store.client import StorePipeline, StoreSilent, StoreUnavailable, connect, is_away
from gateway.store.pulse import Pulse
from gateway.store.scripts import Script

DEADLINE_S = 1.2
"""Seconds; spending is refused within 1.5 s of Redis going away."""

PAUSE_S = 0.1
"""Seconds before what was lost is sent again: a server that is started again needs about so long."""

_MOST = 200
_TRIES = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    script: Script
    arguments: tuple[str, ...]
    reply: asyncio.Future[list[str]]


class Batcher:
    """One connection to a server. `wait_replicas` is how many replicas must have a change before it counts as made."""

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = DEADLINE_S,
        pause_s: float = PAUSE_S,
        wait_replicas: int = 0,
        pulse: Pulse | None = None,
    ) -> None:
        self._try_s = (deadline_s - pause_s) / _TRIES
        self._pause_s = pause_s
        self._client = connect(url, deadline_s=self._try_s, connections=1)
        self._deadline_s = deadline_s
        self._wait_replicas = wait_replicas
        self._pulse = pulse
        self._queue: list[_Asked] = []
        self._sender: asyncio.Task[None] | None = None

    async def run(self, script: Script, *arguments: str) -> list[str]:
        """A script's answer. Raises StoreUnavailable when it may or may not have run, ResponseError when it failed."""
        if self._pulse is not None and self._pulse.is_lost:
            raise StoreSilent("Redis does not answer")
        asked = _Asked(script, arguments, asyncio.get_running_loop().create_future())
        self._queue.append(asked)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asked.reply
        except (TimeoutError, StoreSilent) as error:
            if self._pulse is not None:
                self._pulse.lose()
            raise StoreSilent(f"Redis did not answer within {self._deadline_s} s") from error

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
        async with self._client.pipeline(transaction=False) as made:
            pipe = cast(StorePipeline, made)
            for asked in batch:
                known_by = asked.script.digest if command == "EVALSHA" else asked.script.text
                # The one key tells a Cluster's client which server to ask.
                pipe.execute_command(command, known_by, 1, names.JOURNAL(), *asked.arguments)
            if self._wait_replicas:
                pipe.execute_command("WAIT", self._wait_replicas, round(self._try_s * 500))
            replies = await pipe.execute(raise_on_error=False)
        if self._wait_replicas and replies.pop() < self._wait_replicas:
            raise StoreUnavailable("too few replicas have the change")
        return replies


def _answer(batch: list[_Asked], replies: list[Any]) -> None:
    for asked, reply in zip(batch, replies, strict=True):
        if asked.reply.done() or isinstance(reply, NoScriptError):
            continue
        if not isinstance(reply, Exception):
            asked.reply.set_result(reply)
        elif not is_away(reply):
            asked.reply.set_exception(reply)
