"""A TCP server that misbehaves to order: each connection is played by a script over a raw socket.

Used by the tests of everything that speaks HTTP outward. Never answers by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import uvloop

RESET = struct.pack("ii", 1, 0)

SMALL = b"x" * 1000
LARGE = b"x" * 16_000_000
"""More than the sockets' buffers of both sides take."""

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
on_both_loops = pytest.mark.parametrize("loop", sorted(LOOPS))


def run_on(loop: str, work: Coroutine[Any, Any, None]) -> None:
    """Run a test's body on asyncio's loop or on uvloop, for at most ten seconds."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(work, 10))


class Connection:
    """One accepted connection, in the hands of a script."""

    def __init__(self, sock: socket.socket, server: FaultServer) -> None:
        self._sock = sock
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()

    async def read_head(self) -> bytes:
        """The request line and headers, kept in `server.heads`."""
        while b"\r\n\r\n" not in self._buffer:
            await self._fill()
        head = await self.read(self._buffer.index(b"\r\n\r\n") + 4)
        self._server.heads.append(head)
        return head

    async def read_request(self) -> bytes:
        """Head and body; the body is kept in `server.bodies` once its last byte was read."""
        head = await self.read_head()
        body = b""
        if b"transfer-encoding: chunked" in head.lower():
            while not self._buffer.endswith(b"0\r\n\r\n"):
                await self._fill()
            rest = await self.read(len(self._buffer))
            while rest != b"0\r\n\r\n":
                size, _, rest = rest.partition(b"\r\n")
                body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        elif length := re.search(rb"content-length: (\d+)", head.lower()):
            body = await self.read(int(length[1]))
        self._server.bodies.append(body)
        return head

    async def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._fill()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def answer(self, body: bytes = b"ok", status: str = "200 OK", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def reset(self) -> None:
        """End with RST instead of FIN."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def finish(self) -> None:
        """Send FIN, and go on reading: what was sent arrives before any reset."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()

    async def stall(self) -> None:
        """Do nothing until the server stops."""
        await self._server.is_over.wait()

    async def wait_gone(self) -> None:
        """Read on until the peer has closed or reset the connection."""
        with contextlib.suppress(OSError):
            while await self._loop.sock_recv(self._sock, 1 << 20):
                pass

    async def _fill(self) -> None:
        data = await self._loop.sock_recv(self._sock, 1 << 20)
        if not data:
            raise ConnectionError("the peer closed")
        self._buffer += data


Script = Callable[[Connection], Awaitable[None]]


class FaultServer:
    """Listens on loopback and plays `script` on every connection; keeps book of what arrived."""

    def __init__(self, script: Script, listener: socket.socket | None = None) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = listener or socket.create_server(("127.0.0.1", 0), backlog=256)
        # A small window, so that an upload nobody reads stalls soon.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.is_over = asyncio.Event()
        self.accepted = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.gone = asyncio.Semaphore(0)

    async def __aenter__(self) -> Self:
        self._start(self._accept())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._socket)
            self.accepted += 1
            self._start(self._play(sock))

    async def _play(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError), sock:
            await self._script(Connection(sock, self))
        self.gone.release()


def listen_twice(host: str, other: str) -> tuple[socket.socket, socket.socket]:
    """Two addresses with one port, which somebody else's connection may have at one of them."""
    for _ in range(100):
        one = socket.create_server((host, 0))
        try:
            return one, socket.create_server((other, one.getsockname()[1]))
        except OSError:
            one.close()
    raise AssertionError("no port is free at both addresses")


def open_connections(url: str) -> int:
    """Connections to a server that are still somebody's: established, or closed by the other end alone.

    The kernel's table and not a count of descriptors, which other tests' servers in this process change meanwhile.
    """
    port = f":{urlsplit(url).port:04X}"
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(port) and row[3] in ("01", "08") for row in rows)
