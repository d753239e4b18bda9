"""A door before a server on a Unix socket that takes questions through and, now and then, loses the answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path


class LossyProxy:
    """Every `every`-th answer of a script is lost together with its connection; 1 would lose all, 0 loses none."""

    def __init__(self, inside: Path, every: int) -> None:
        self._inside = inside
        self._every = every
        self.answers = 0
        self.lost = 0
        self._callers: set[asyncio.Task[None]] = set()

    def let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = asyncio.create_task(self._pass_through(reader, writer))
        self._callers.add(caller)
        caller.add_done_callback(self._callers.discard)

    async def wait_empty(self) -> None:
        """Return when everybody who came has left."""
        await asyncio.gather(*self._callers)

    async def _pass_through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(self._inside))
        ways = [
            asyncio.create_task(self._ask(reader, inner_writer)),
            asyncio.create_task(self._answer(inner_reader, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, inner_writer):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            # A script answers with an array; what is said when a connection begins is not counted.
            if data.startswith(b"*"):
                self.answers += 1
            if data.startswith(b"*") and self._every and self.answers % self._every == 0:
                self.lost += 1
                return
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def lossy_proxy(inside: Path, outside: Path, every: int) -> AsyncIterator[LossyProxy]:
    """The door is open at `outside` while the block runs."""
    proxy = LossyProxy(inside, every)
    server = await asyncio.start_unix_server(proxy.let_in, str(outside))
    try:
        yield proxy
    finally:
        server.close()
        await proxy.wait_empty()
        outside.unlink(missing_ok=True)
