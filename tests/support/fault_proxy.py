"""A proxy on loopback that cuts, delays, duplicates and truncates what passes through it, a request at a time."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit

from tests.support.fault_server import RESET

ProxyFault = Literal["pass", "delay", "cut request", "cut answer", "truncate", "duplicate", "drip"]

DELAY_S = 0.7
DRIP_S = 0.02
PIECE = 1 << 16
SHARES = (300, 60_000)
"""Bytes that are left of an answer that is truncated: less than its head, or a part of its picture."""


class FaultProxy:
    """Passes requests on to one origin; each meets the next of `faults`, in turn.

    It opens a connection for each request, so that no fault meets two. It sends a request twice only where that is safe
    by HTTP's own rules: one that reads, or one with an Idempotency-Key.
    """

    def __init__(self, origin: str, faults: Sequence[ProxyFault]) -> None:
        parts = urlsplit(origin)
        self._origin = (parts.hostname, parts.port)
        self._faults = itertools.cycle(faults)
        self._shares = itertools.cycle(SHARES)
        self.met: Counter[str] = Counter()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            fault = next(self._faults)
            if fault == "duplicate" and not is_repeatable(head):
                fault = "pass"
            self.met[fault] += 1
            await self._pass_on(fault, head, reader, writer)
        if not writer.is_closing():
            writer.close()

    async def _pass_on(
        self, fault: ProxyFault, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        loop, inner = asyncio.get_running_loop(), socket.socket()
        inner.setblocking(False)
        with inner:
            # Closed with unread bytes, it is reset.
            await loop.sock_connect(inner, self._origin)
            body = await read_body(head, reader)
            if fault == "cut request":
                await loop.sock_sendall(inner, head + body[: len(body) // 2])
                inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return writer.transport.abort()
            await loop.sock_sendall(inner, head + body)
            if fault == "duplicate":
                await self._ask_again(head + body)
            if fault == "delay":
                await asyncio.sleep(DELAY_S)
            return await self._answer(fault, inner, writer)

    async def _answer(self, fault: ProxyFault, inner: socket.socket, writer: asyncio.StreamWriter) -> None:
        """Hand the answer back: whole, a part of it, or nothing. What is not handed back is not taken either."""
        loop = asyncio.get_running_loop()
        if fault == "cut answer":
            await loop.sock_recv(inner, 1)
            return writer.transport.abort()
        most = next(self._shares) if fault == "truncate" else None
        size = 64 if fault == "drip" or most else PIECE
        reading = Reading()
        # Nothing waits here: what was written before a reset has left.
        writer.transport.set_write_buffer_limits(0)
        while not reading.is_whole and (data := await loop.sock_recv(inner, size)):
            writer.write(reading.take(data))
            await writer.drain()
            if most and reading.size > most:
                return reset(writer)
            if fault == "drip":
                size = min(2 * size, PIECE)
                await asyncio.sleep(DRIP_S)
        return None

    async def _ask_again(self, request: bytes) -> None:
        reader, writer = await asyncio.open_connection(*self._origin)
        try:
            writer.write(request)
            await writer.drain()
            reading = Reading()
            while not reading.is_whole and (data := await reader.read(PIECE)):
                reading.take(data)
        finally:
            writer.close()


class Reading:
    """An answer that is read in pieces: knows by its framing when it is whole."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._was_headed = False

    @property
    def size(self) -> int:
        return len(self._text)

    @property
    def is_whole(self) -> bool:
        head, mark, body = bytes(self._text).partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        return bool(mark) and (len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n"))

    def take(self, data: bytes) -> bytes:
        """What goes to the caller for these bytes; its own connection ends with the answer."""
        self._text += data
        head, mark, rest = bytes(self._text).partition(b"\r\n\r\n")
        if self._was_headed or not mark:
            return data if self._was_headed else b""
        self._was_headed = True
        return close_after(head + mark) + rest


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """The body of a request as it is framed."""
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await reader.readuntil(b"\r\n")
        return body
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return await reader.readexactly(int(length[1])) if length else b""


def close_after(head: bytes) -> bytes:
    """The head, saying that the connection ends after it."""
    kept = re.sub(rb"(?i)\r\nconnection: *[^\r]*", b"", head)
    return kept[:-2] + b"Connection: close\r\n\r\n"


def is_repeatable(head: bytes) -> bool:
    return head.startswith(b"GET ") or b"\r\nidempotency-key:" in head.lower()


def reset(writer: asyncio.StreamWriter) -> None:
    """End the caller's connection with RST: an orderly end in the middle of an answer stops Node's fetch for good."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@contextmanager
def fault_proxy(origin: str, faults: Sequence[ProxyFault]) -> Iterator[FaultProxy]:
    """The proxy on a free port, in a thread of its own."""
    proxy, is_ready = FaultProxy(origin, faults), threading.Event()
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 24)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        is_ready.set()
        await over.wait()
        server.close()
        # What was accepted meanwhile begins only now.
        while rest := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="proxy")
    thread.start()
    is_ready.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        assert not thread.is_alive()
        loop.close()
