"""One connection of HTTP/1.1, and one request with its answer on it, on asyncio's protocols and httptools' parser.

It never opens a connection, and never calls a request "not sent" once its last byte was passed on to be written.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

import httptools
from typing_extensions import override

from gateway.net.failures import RequestError, Sent, explain

MOST_SILENT = 64 * 1024
"""Bytes of an answer's head, and of all that may come between two bytes of its body."""

_AT_ONCE, _PIECE = 64 * 1024, 192 * 1024
"""Bytes of the longest body that goes with its head in one write, and of one write of a longer body."""

_MOST_HELD = 128 * 1024
"""Bytes of a body that wait for their reader before the connection reads no more."""

Origin = tuple[str, str, int]
"""Scheme, host and port."""

Content = bytes | AsyncGenerator[bytes, None] | None


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds: to connect, for one write to be taken, between two reads, and from the start to the last read."""

    connect: float
    read: float
    total: float
    write: float = 60.0


class Connection(asyncio.Protocol):
    """Passes bytes to the exchange that has it, and holds up a writer while the peer takes none.

    `address` is the peer's IP address, as it was given. `on_end` is called once, when the connection has ended.
    """

    wire: asyncio.Transport
    """There once the connection is made."""

    def __init__(self, origin: Origin, address: str, on_end: Callable[[Connection], None]) -> None:
        self.origin = origin
        self.address = address
        self.exchange: Exchange | None = None
        self._on_end = on_end
        self._timer: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._is_full = False
        # Bytes that came before the exchange did.
        self._early = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self.exchange is not None:
            self.exchange.feed(data)
        elif self._timer is None:
            self._early += data
        else:
            # Nobody has asked.
            self.abort()

    @override
    def eof_received(self) -> None:
        # At once: the loop's own close would wait until a stalled peer has taken the bytes written to it.
        if self.exchange is not None:
            self.exchange.end(None)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_idling()
        self._on_end(self)
        if self.exchange is not None:
            self.exchange.end(exc)

    @override
    def pause_writing(self) -> None:
        self._is_full = True

    @override
    def resume_writing(self) -> None:
        self._is_full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Go on over TLS with a peer that proves to be this host. Raises OSError, and ValueError for an odd name."""
        try:
            wire = await asyncio.get_running_loop().start_tls(self.wire, self, context, server_hostname=host)
            assert wire is not None
            self.wire = wire
        except BaseException:
            self.abort()
            raise

    def begin(self, exchange: Exchange) -> None:
        """Give all bytes to this exchange from now on."""
        self.exchange = exchange
        if self._early:
            early, self._early = self._early, b""
            exchange.feed(early)

    async def drain(self) -> None:
        """Return when the peer has taken most of the bytes that were written."""
        if self._is_full:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def idle(self, seconds: float) -> None:
        """Close after so many seconds, unless `stop_idling` comes first."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)

    def stop_idling(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        """Close at once: a normal close waits without end for a peer that takes no bytes."""
        self.exchange = None
        self.wire.abort()


class Exchange:
    """One request on one connection, and its Response. httptools calls the `on_` methods.

    `deadline` is the time of the loop at which it fails. `on_whole` gets the connection back, once, when request and
    answer are whole and the connection can take another request.
    """

    def __init__(
        self, method: str, limits: TimeLimits, deadline: float, on_whole: Callable[[Connection], None] | None
    ) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_begun = False
        """True when a byte of the answer has come."""
        self._method = method
        self._limits = limits
        self._deadline = deadline
        self._on_whole = on_whole
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._upload: asyncio.Task[None] | None = None
        self._sent: Sent = "nothing"
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # As other clients do: a picture that was paid for is read, whatever is odd about its head.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._has_head = self._has_end = self._is_over = self._is_reusable = self._is_paused = False
        self._error: RequestError | None = None
        self._pieces: list[bytes] = []
        self._held = self._silent = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = self._due = math.inf

    async def run(self, connection: Connection, head: bytes, content: Content, length: int | None) -> Exchange:
        """Send the request, and return at the head of its answer. Raises RequestError."""
        self._connection = connection
        try:
            connection.begin(self)
            self._start(connection.wire, head, content, length)
            while not self._has_head:
                await self._wait()
        except BaseException:
            self._drop()
            raise
        return self

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes from the wire. Raises RequestError where it breaks off."""
        while True:
            if self._pieces:
                data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
                self._pieces.clear()
                self._held = 0
                if self._is_paused and self._connection is not None and not self._connection.wire.is_closing():
                    self._connection.wire.resume_reading()
                    self._expect(self._limits.read)
                self._is_paused = False
                yield data
            elif self._is_over:
                return
            else:
                await self._wait()

    async def aclose(self) -> None:
        """End the exchange; an answer that was not read to its end ends with its connection."""
        self._fail(None)

    def feed(self, data: bytes) -> None:
        """Read bytes of the answer."""
        parser = self._parser
        if parser is None:
            return
        self.is_begun = True
        self._silent += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._is_reusable = False
            if not self._is_over:
                self._fail(error, "the answer is not HTTP")
                return
        if self._is_over:
            self._finish()
        elif self._silent > MOST_SILENT:
            self._fail(None, "the answer's head or framing is too long")
        elif not self._is_paused and (self._has_head or self._sent == "whole"):
            self._expect(self._limits.read)

    def end(self, cause: Exception | None) -> None:
        """Take the end of the connection: with an error, or with the last byte of the peer."""
        if self._has_head and not self._has_end and cause is None and not self._is_over:
            self._is_over = True
            self._finish()
        elif not self._is_over:
            self._fail(cause)

    def on_message_begin(self) -> None:
        # Bytes after the answer belong to nobody.
        self._is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:
            # A trailer, or bytes after the answer.
            return
        name = name.lower()
        if name == b"content-length" or (name == b"transfer-encoding" and value.lower().rstrip().endswith(b"chunked")):
            self._has_end = True
        self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self._has_head or self._parser is None:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200 and self.status != 101:
            # More answers to the same request follow.
            self.headers.clear()
            self._has_end = False
            return
        self._has_head = True
        self._is_over = self._method == "HEAD"
        self._wake()

    def on_body(self, data: bytes) -> None:
        if self._is_over:
            return
        self._silent = 0
        self._pieces.append(data)
        self._held += len(data)
        if self._held > _MOST_HELD and not self._is_paused and self._connection is not None:
            self._is_paused = True
            self._connection.wire.pause_reading()
            self._expect(math.inf)
        self._wake()

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._has_head and not self._is_over:
            self._is_over = True
            self._is_reusable = self._parser.should_keep_alive()

    def _start(self, wire: asyncio.Transport, head: bytes, content: Content, length: int | None) -> None:
        if self._error is None and wire.is_closing():
            self._fail(None)
        elif self._error is None and not self._is_over:
            if length == 0 or (isinstance(content, bytes) and len(content) <= _AT_ONCE):
                # Set before the write: a failed write proves nothing.
                self._sent = "whole"
                wire.write(head + content if isinstance(content, bytes) else head)
                self._expect(self._limits.read)
            else:
                assert content is not None
                self._upload = self._loop.create_task(self._write(head, content, length))
                self._upload.add_done_callback(self._end_upload)

    async def _write(self, head: bytes, content: bytes | AsyncGenerator[bytes, None], length: int | None) -> None:
        """Write a long body; without a length, in chunks."""
        count = 0
        self._sent = "part"
        await self._write_piece(head)
        async for chunk in _one(content) if isinstance(content, bytes) else content:
            view = memoryview(chunk)
            for start in range(0, len(view), _PIECE):
                piece = view[start : start + _PIECE]
                count += len(piece)
                if length is None:
                    await self._write_piece(b"%x\r\n%b\r\n" % (len(piece), piece))
                    continue
                if count > length:
                    raise ValueError(f"the body is longer than its {length} bytes")
                if count == length:
                    # The upstream may have the whole request. Set before the write: a failed write proves nothing.
                    self._sent = "whole"
                await self._write_piece(piece)
        if length is None:
            self._sent = "whole"
            await self._write_piece(b"0\r\n\r\n")
        elif count != length:
            raise ValueError(f"the body ended after {count} of {length} bytes")

    async def _write_piece(self, piece: bytes | memoryview) -> None:
        assert self._connection is not None
        if not self._has_head:
            self._expect(self._limits.write)
        self._connection.wire.write(piece)
        await self._connection.drain()
        if not self._has_head:
            self._expect(self._limits.read if self._sent == "whole" else math.inf)
        if self._sent != "whole":
            # If the upstream answers early and closes, the gateway must read its answer before the next piece meets the
            # reset: the loop polls its sockets in the first turn and reads in the second. With one turn, asyncio lost
            # the answer.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _end_upload(self, upload: asyncio.Task[None]) -> None:
        if not upload.cancelled() and (error := upload.exception()) is not None:
            self._fail(error)

    async def _wait(self) -> None:
        """Return when something has changed. Raises the error with which the exchange ended."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expect(self, seconds: float) -> None:
        """Fail after so many seconds, at the deadline at the latest, unless something else is expected before."""
        self._due = min(self._loop.time() + seconds, self._deadline)
        if self._due < self._rings_at:
            if self._timer is not None:
                self._timer.cancel()
            self._rings_at = self._due
            self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._rings_at, self._timer = math.inf, None
        left = self._due - self._loop.time()
        if left > 0:
            self._expect(left)
        else:
            self._fail(TimeoutError())

    def _fail(self, cause: BaseException | None, fault: str = "") -> None:
        """End with an error that states the proof; `fault` names what is no HTTP."""
        if self._error is None and not self._is_over:
            self._error = explain(self._sent, cause, is_answered=self._has_head, fault=fault)
        self._drop()

    def _finish(self) -> None:
        """Give the connection back, or close it: the answer is whole."""
        connection = self._connection
        is_sent = self._sent == "whole" and (self._upload is None or self._upload.done())
        if connection is not None and self._is_reusable and is_sent and self._on_whole is not None:
            if self._is_paused:
                connection.wire.resume_reading()
            self._connection = connection.exchange = None
            self._on_whole(connection)
        self._drop()

    def _drop(self) -> None:
        """Close the connection, if it is still this one's, and let go of all that refers back here."""
        if self._connection is not None:
            self._connection.abort()
        if self._upload is not None:
            self._upload.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._connection = self._upload = self._timer = self._parser = None
        self._wake()


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content
