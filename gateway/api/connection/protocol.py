"""The limits of one HTTP connection: sizes of headers, and time-outs of headers, bodies and answers.

uvicorn has no read time-out and httptools no header limit. Knows no route, key or image.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

import httptools
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.api.connection.error_handlers import write_last_answer
from gateway.api.connection.middleware import Handover
from gateway.errors import HeadersTooLarge, InvalidValue, PublicError, RequestTimeout, shutting_down
from gateway.ids import new_id

if TYPE_CHECKING:
    from uvicorn import _types as asgi

log: Final = logging.getLogger(__name__)

# uvloop and asyncio hand over at most so many bytes at once. Reading stops that much before a limit.
READ_BYTES: Final = 256 * 1024
# An empty queue takes 700 bytes, and few clients pipeline: connections share this one until they do.
_NO_PIPELINE: Final[deque[Any]] = deque(maxlen=0)


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Times in seconds, sizes in bytes.

    `header_timeout_s` counts from connecting, or from a later request's first byte, to the end of its headers.
    `body_idle_s` bounds the wait for the body's next byte, `answer_idle_s` the wait until the client reads on. When an
    answer ends before its request's body, at most `linger_bytes` of that body are read, for at most `linger_s`.
    """

    header_timeout_s: float = 10
    header_bytes: int = 32 * 1024
    header_count: int = 100
    url_bytes: int = 8 * 1024
    body_idle_s: float = 30
    answer_idle_s: float = 120
    linger_bytes: int = 1024 * 1024
    linger_s: float = 2


class ConnectionPhase(Enum):
    BETWEEN = "between messages"
    HEAD = "in a message's head"
    BODY = "in a message's body"


class Latch(asyncio.Event):
    """An asyncio.Event that makes its queue of waiters, which takes 700 bytes, only while somebody waits."""

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


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `_running` is the request whose application runs; uvicorn's `cycle` is the newest one parsed.

    They differ only when a client pipelines, and only the newest can have an unfinished body.
    """

    # Python shares the names of few attributes between instances: in a dict these cost 1.5 KB more a connection.
    __slots__ = (
        "_bytes_without_content",
        "_handover",
        "_head_bytes",
        "_head_count",
        "_head_timer",
        "_is_discarding",
        "_linger_timer",
        "_phase",
        "_reader_timer",
        "_running",
        "_unread",
    )

    limits: ClassVar[WireLimits] = WireLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pipeline = _NO_PIPELINE
        self._phase = ConnectionPhase.BETWEEN
        self._running: RequestResponseCycle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._handover: Handover | None = None
        self._is_discarding = False
        self._unread = self._bytes_without_content = 0
        self._head_bytes = self._head_count = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self.flow._is_writable_event = Latch(is_set=True)
        self._watch_head()

    @override
    def eof_received(self) -> None:
        if self._handover is not None:
            self._handover.end_input()

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
        """Refuse an unfinished upload: it has cost nothing, and another replica can take the retry."""
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
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request was served as a plain one: so HTTP declines an upgrade.
            log.debug("an upgrade was declined")
        except httptools.HttpParserError as error:
            # An error that a callback raised is the context of httptools' own error.
            refusal = error.__context__
            self._refuse(refusal if isinstance(refusal, PublicError) else InvalidValue("This is not valid HTTP/1.1."))
            return
        if self._bytes_without_content > self.limits.header_bytes:
            self._refuse(self._too_many_bytes())
        elif self._phase is ConnectionPhase.HEAD or (self._phase is ConnectionPhase.BETWEEN and self._running is None):
            self._watch_head()

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
        if self._phase is ConnectionPhase.HEAD:
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        former = self.cycle
        if former is not None and not former.response_complete and self.pipeline is _NO_PIPELINE:
            self.pipeline = deque()
        super().on_headers_complete()
        if self.cycle is not former:
            # The application does not wait for it yet.
            self.cycle.message_event = Latch()
        self._phase = ConnectionPhase.BODY
        self._bytes_without_content = 0
        self._forget_head()

    @override
    def on_body(self, body: bytes) -> None:
        self._bytes_without_content = 0
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
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
            self._reader_timer = self.loop.call_later(self.limits.answer_idle_s, self._end_slow_reader)

    def _forget_reader(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _end_slow_reader(self) -> None:
        self._reader_timer = None
        if self.transport.get_write_buffer_size():
            log.info("closed a connection: no read for %g s (from %s)", self.limits.answer_idle_s, self.client)
            self.eof_received()  # as if it had disconnected: its retry gets the rest
            self.transport.abort()

    # The application's side

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: asgi.ASGI3Application) -> None:
        self._running = cycle
        self._handover = Handover(self.transport, self.flow)
        cycle.scope["state"]["handover"] = self._handover

        async def guarded(scope: asgi.Scope, receive: asgi.ASGIReceiveCallable, send: asgi.ASGISendCallable) -> None:
            await app(scope, partial(self._receive, cycle, receive), partial(self._send, cycle, send))

        super()._start_asgi_task(cycle, guarded)

    async def _receive(self, cycle: RequestResponseCycle, receive: asgi.ASGIReceiveCallable) -> asgi.ASGIReceiveEvent:
        """Time the wait for the body's bytes, not the application's pauses or its watch for a disconnect."""
        if not cycle.more_body:
            return await receive()
        timer = self.loop.call_later(self.limits.body_idle_s, self._end_idle_body, cycle)
        try:
            return await receive()
        finally:
            timer.cancel()

    async def _send(
        self, cycle: RequestResponseCycle, send: asgi.ASGISendCallable, message: asgi.ASGISendEvent
    ) -> None:
        if cycle.more_body:
            # The answer says `connection: close`. If uvicorn closed with unread bytes in the socket, the kernel would
            # reset the connection, and a client that still sends would lose the answer.
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            cycle.keep_alive = is_last
        await send(message)

    @override
    def on_response_complete(self) -> None:
        cycle, self._running = self._running, None
        # Nobody waits while the rest is flushed.
        self._watch_reader()
        if cycle is not None and cycle.more_body and not self.transport.is_closing():
            self.server_state.total_requests += 1
            self._linger()
        else:
            super().on_response_complete()

    def _is_uploading(self) -> bool:
        running = self._running
        return running is not None and running is self.cycle and running.more_body and not running.response_complete

    def _end_idle_body(self, cycle: RequestResponseCycle) -> None:
        if cycle is self.cycle and self._is_uploading():
            self._refuse(RequestTimeout(f"The body stopped arriving for {self.limits.body_idle_s:g} s."))

    @staticmethod
    def _disconnect(cycle: RequestResponseCycle) -> None:
        """From now on `receive()` answers `http.disconnect`, and what the application sends goes nowhere."""
        if not cycle.response_complete:
            cycle.disconnected = True
        cycle.message_event.set()

    # Refusing and closing

    def _refuse(self, error: PublicError) -> None:
        """Answer the request that is being read with an error, unless its answer has begun, and read no other.

        Answers to earlier, whole requests are sent before the connection ends.
        """
        self._forget_head()
        if self._is_discarding or self.transport.is_closing():
            return
        self._is_discarding = True
        if self._is_uploading():
            self._disconnect(self.cycle)
            if self.cycle.response_started:
                self.transport.close()
                return
        elif self._running is not None:
            if self.pipeline and self.pipeline[0][0].more_body:
                self.pipeline.popleft()
            last = self.pipeline[0][0] if self.pipeline else self._running
            last.keep_alive = False
            return
        self._answer(error)
        self._linger()

    def _answer(self, error: PublicError) -> None:
        request_id = new_id("req")
        log.info("refused a request: %d %s (%s, from %s)", error.status, error.message, request_id, self.client)
        self.transport.write(write_last_answer(error, request_id, self.server_state.default_headers))

    def _linger(self) -> None:
        """Read on for a while before closing, so that a client that still sends gets the answer and no reset."""
        self._is_discarding = True
        if self.cycle is not None:
            self._unread = len(self.cycle.body)
            self.cycle.body = bytearray()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._linger_timer = self.loop.call_later(self.limits.linger_s, self.transport.close)
        self._discard(0)

    def _discard(self, size: int) -> None:
        self._unread += size
        if self._unread + READ_BYTES <= self.limits.linger_bytes:
            return
        if self._linger_timer is None:
            self.transport.close()
        else:
            self.flow.pause_reading()


def protocol(limits: WireLimits) -> type[HttpToolsProtocol]:
    """A class for uvicorn's `http=`, which makes one instance a connection and passes no arguments of ours."""
    return type("LimitedProtocol", (GuardedProtocol,), {"limits": limits})
