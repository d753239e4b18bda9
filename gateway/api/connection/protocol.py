"""The limits of one HTTP connection: sizes of headers, and time-outs of headers, bodies and answers.

uvicorn has no read time-out and httptools no header limit. Knows no route, key or image.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import httptools
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.api.connection.limits import WireLimits
from gateway.api.connection.middleware import Handover
from gateway.api.connection.refusal import RefusingProtocol, not_http
from gateway.errors import HeadersTooLarge, InvalidValue, PublicError, RequestTimeout, shutting_down

if TYPE_CHECKING:
    from uvicorn import _types as asgi

log: Final = logging.getLogger(__name__)

# An empty queue takes 700 bytes, and few clients pipeline: connections share this one until they do.
_NO_PIPELINE: Final[deque[Any]] = deque(maxlen=0)


class ConnectionPhase(Enum):
    BETWEEN = "between messages"
    HEAD = "in a message's head"
    BODY = "in a message's body"


class Latch(asyncio.Event):
    """An asyncio.Event that makes its queue of waiters, which takes 700 bytes, only while a task waits."""

    _waiters: Any = ()

    @override
    def __init__(self, *, is_set: bool = False) -> None:
        self._value = is_set

    @override
    async def wait(self) -> Literal[True]:
        if self._value:
            return True
        if not self._waiters:
            self._waiters = deque()
        try:
            return await super().wait()
        finally:
            if not self._waiters:
                self._waiters = ()


class GuardedProtocol(RefusingProtocol):
    """One connection within its limits."""

    # Python shares the names of few attributes between instances: in a dict these cost 1.5 KB more a connection.
    __slots__ = (
        "_body_until",
        "_bytes_without_content",
        "_closes_slowly",
        "_handover",
        "_head_bytes",
        "_head_count",
        "_head_timer",
        "_is_body_read",
        "_is_discarding",
        "_is_input_ended",
        "_is_unframed",
        "_linger_timer",
        "_linger_until",
        "_phase",
        "_reader_began",
        "_reader_timer",
        "_reader_waited",
        "_running",
        "_unread",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pipeline = _NO_PIPELINE
        self._phase = ConnectionPhase.BETWEEN
        self._running = None
        self._head_timer = self._linger_timer = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._handover: Handover | None = None
        self._is_body_read = self._is_discarding = self._is_input_ended = self._is_unframed = False
        self._closes_slowly = False
        self._body_until = self._reader_began = self._reader_waited = self._linger_until = 0.0
        self._unread = self._bytes_without_content = 0
        self._head_bytes = self._head_count = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self.flow._is_writable_event = Latch(is_set=True)
        self._watch_head()

    @override
    def eof_received(self) -> Any:
        """Keep the connection for the answer of a running request whose body is whole; close any other connection.

        The application sees a disconnect, since TCP shows no difference to a client that has left.
        """
        if self._handover is not None:
            self._handover.end_input()
        if self._running is None or self.cycle.more_body or self._is_discarding:
            return False
        self._is_input_ended = True
        self.cycle.keep_alive = False
        self._running.message_event.set()
        return True

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        self._forget_reader()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        if self._handover is not None:
            self._handover.lose(exc)
        # uvicorn disconnects only the newest request: an earlier one would wait on.
        if self._running is not None:
            self._disconnect(self._running)
        super().connection_lost(exc)

    @override
    def shutdown(self) -> None:
        """Refuse an unfinished upload without an answer yet: another replica can take its retry. Else do as uvicorn."""
        if self._is_uploading() and not self.cycle.response_started:
            self._refuse(shutting_down())
        else:
            super().shutdown()

    @override
    def _should_upgrade_to_ws(self) -> bool:
        # A WebSocket would escape the limits of this class, and no route has one.
        return False

    # Bytes in

    @override
    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._is_discarding:
            self._discard(len(data))
            return
        self._bytes_without_content += len(data)
        try:
            self._parse(memoryview(data))
        except httptools.HttpParserError as error:
            # An error that a callback raised is the context of httptools' own error.
            refusal = error.__context__
            self._refuse(refusal if isinstance(refusal, PublicError) else not_http(data))
            return
        if self._bytes_without_content > self.limits.header_bytes:
            self._refuse(self._too_many_bytes())
        elif self._phase is ConnectionPhase.HEAD or (self._phase is ConnectionPhase.BETWEEN and self._running is None):
            self._watch_head()

    def _parse(self, data: memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
            # llhttp leaves all that follows an offered upgrade to the other protocol. RFC 9110 7.8 lets a server ignore
            # the offer: a new parser reads the head without it, and then the body that the head declares.
            start = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
            fields = [b"%s: %s" % field for field in self.headers if field[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(b"\r\n".join([start, *fields, b"", b""]))

    @override
    def on_message_begin(self) -> None:
        self._phase = ConnectionPhase.HEAD
        self._head_bytes = self._head_count = 0
        if self._running is None:
            # A client that sends another request has read its answer.
            self._handover = None
            self._forget_reader()
        super().on_message_begin()

    @override
    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.url_bytes:
            raise HeadersTooLarge(f"The URL is longer than {self.limits.url_bytes} bytes.")

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        self._head_count += 1
        if self._head_bytes > self.limits.header_bytes:
            raise self._too_many_bytes()
        if self._head_count > self.limits.header_count:
            raise HeadersTooLarge(f"There are more than {self.limits.header_count} headers.")
        # Trailers arrive here too. As headers they would pass by the checks of a proxy in front.
        if self._phase is not ConnectionPhase.HEAD:
            return
        super().on_header(name, value)
        if name.lower() == b"transfer-encoding" and value.lower() != b"chunked":
            raise InvalidValue("`Transfer-Encoding` may only be `chunked`; send the body as it is.")

    @override
    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1") or self.parser.get_method() == b"CONNECT":
            raise InvalidValue("This server speaks HTTP/1.1 and HTTP/1.0, and connects to no other host.")
        if self.parser.should_upgrade():
            # Its next parser calls again.
            return
        if version == "1.0":
            self._check_old_head()
        former = self.cycle
        if former is not None and not former.response_complete and self.pipeline is _NO_PIPELINE:
            self.pipeline = deque()
        super().on_headers_complete()
        if self.cycle is not former:
            # The application does not wait for it yet.
            self.cycle.message_event = Latch()
        self._phase = ConnectionPhase.BODY
        self._body_until = self.loop.time() + self.limits.body_total_s
        self._bytes_without_content = 0
        self._forget_head()

    @override
    def on_body(self, body: bytes) -> None:
        self._bytes_without_content = 0
        super().on_body(body)

    def _check_old_head(self) -> None:
        """Refuse chunks (RFC 9112 6.1) and send no `100 Continue` (RFC 9110 10.1.1): HTTP/1.0 has neither."""
        if any(name == b"transfer-encoding" for name, _ in self.headers):
            raise InvalidValue("HTTP/1.0 has no `Transfer-Encoding`; send a `Content-Length`.")
        self.expect_100_continue = False

    @override
    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._phase = ConnectionPhase.BETWEEN
        self._bytes_without_content = 0
        super().on_message_complete()

    def _too_many_bytes(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"The headers are larger than {self.limits.header_bytes} bytes.")

    # The time a head may take

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_timeout_s, self._end_slow_head)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_slow_head(self) -> None:
        self._head_timer = None
        if self.flow.read_paused:
            # This side stopped reading, behind a pipelined request.
            self._watch_head()
        elif self._phase is ConnectionPhase.HEAD:
            self._refuse(RequestTimeout(f"The headers took longer than {self.limits.header_timeout_s:g} s to arrive."))
        else:
            self.transport.close()

    # The time a reader may take

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_reader()

    def _watch_reader(self) -> None:
        if self._reader_timer is None:
            self._reader_began = self.loop.time()
            seconds = min(self.limits.answer_idle_s, self.limits.answer_total_s - self._reader_waited)
            self._reader_timer = self.loop.call_later(seconds, self._end_slow_reader)

    def _forget_reader(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None
            self._reader_waited += self.loop.time() - self._reader_began

    def _end_slow_reader(self) -> None:
        self._reader_timer = None
        if self.transport.get_write_buffer_size():
            log.info("closed a connection: its client reads too slowly (from %s)", self.client)
            if self._handover is not None:
                self._handover.end_input()  # as if it had disconnected: its retry gets the rest
            self.transport.abort()

    # The application's side

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: asgi.ASGI3Application) -> None:
        self._running = cycle
        self._is_body_read = False
        self._reader_waited = 0.0
        self._handover = Handover(self.transport, self.flow)
        if self._is_input_ended:
            self._handover.end_input()
        cycle.scope["state"]["handover"] = self._handover

        async def guarded(scope: asgi.Scope, receive: asgi.ASGIReceiveCallable, send: asgi.ASGISendCallable) -> None:
            await app(scope, partial(self._receive, cycle, receive), partial(self._send, cycle, send))
            if self._is_input_ended and not cycle.response_complete:
                # The application took the end of the input for a disconnect.
                self._disconnect(cycle)
                self.transport.close()

        super()._start_asgi_task(cycle, guarded)

    async def _receive(self, cycle: RequestResponseCycle, receive: asgi.ASGIReceiveCallable) -> asgi.ASGIReceiveEvent:
        """Return the application's next event. Only its wait for bytes of the body counts against the limits."""
        timer = None
        if cycle.more_body:
            idle, left = self.limits.body_idle_s, self._body_until - self.loop.time()
            timer = self.loop.call_later(min(idle, left), self._end_slow_body, cycle, left < idle)
        try:
            message = await receive()
        finally:
            if timer is not None:
                timer.cancel()
        if self._is_input_ended and self._is_body_read:
            return {"type": "http.disconnect"}
        self._is_body_read = not message.get("more_body", False)
        return message

    async def _send(
        self, cycle: RequestResponseCycle, send: asgi.ASGISendCallable, message: asgi.ASGISendEvent
    ) -> None:
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if cycle.more_body:
            # The answer says `connection: close`. If uvicorn closed with unread bytes in the socket, the kernel would
            # reset the connection, and a client that still sends would lose the answer.
            cycle.keep_alive = is_last
        elif is_last and not cycle.keep_alive and self._handover is not None and self._handover.shows_refusal:
            # A client that does not read its answer closes with a reset, which a closed socket would not show.
            cycle.keep_alive = self._closes_slowly = True
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            self._is_unframed = cycle.scope["http_version"] == "1.0" and b"content-length" not in names
            # uvicorn would send chunks. HTTP/1.0 has none: the answer ends with the connection.
            cycle.chunked_encoding = False if self._is_unframed else None
        elif self._is_unframed and message["type"] == "http.response.body":
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    @override
    def on_response_complete(self) -> None:
        cycle, self._running = self._running, None
        # Nobody waits while the rest is flushed.
        self._watch_reader()
        is_slow = self._closes_slowly or (cycle is not None and cycle.more_body)
        if is_slow and not self.transport.is_closing():
            self.server_state.total_requests += 1
            self._linger()
        else:
            super().on_response_complete()

    @override
    def _end_linger(self) -> None:
        if self._handover is not None:
            self._handover.is_ended_here = True
        super()._end_linger()

    def _end_slow_body(self, cycle: RequestResponseCycle, is_total: bool) -> None:
        if cycle is self.cycle and self._is_uploading():
            idle, total = f"{self.limits.body_idle_s:g} s", f"{self.limits.body_total_s:g} s"
            message = f"took longer than {total} to arrive" if is_total else f"stopped arriving for {idle}"
            self._refuse(RequestTimeout(f"The body {message}."))


def protocol(limits: WireLimits) -> type[HttpToolsProtocol]:
    """Return a class for uvicorn's `http=` that carries the limits.

    Uvicorn makes an instance for each connection, and cannot pass the limits to it.
    """
    return type("LimitedProtocol", (GuardedProtocol,), {"limits": limits})
