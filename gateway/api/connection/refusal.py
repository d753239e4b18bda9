"""The refusal of a request whose bytes break a limit or HTTP itself, and the end of its connection.

The answer must arrive although the client may still send. Knows no route, key or image.
"""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.api.connection.error_handlers import write_last_answer
from gateway.api.connection.limits import WireLimits
from gateway.errors import InvalidValue, PublicError
from gateway.ids import new_id

log: Final = logging.getLogger(__name__)

# uvloop and asyncio hand over at most so many bytes at once. Reading stops that much before a limit.
READ_BYTES: Final = 256 * 1024


def not_http(data: bytes) -> InvalidValue:
    """The refusal of bytes that are not HTTP/1.1. A TLS handshake begins with 22 and 3 (RFC 8446, section 5.1)."""
    if data.startswith(b"\x16\x03"):
        return InvalidValue("The client speaks TLS, and this port speaks plain HTTP: use http:// in place of https://.")
    return InvalidValue("This is not valid HTTP/1.1.")


class RefusingProtocol(HttpToolsProtocol):
    """One connection. `_running` is the request whose application runs; uvicorn's `cycle` is the newest one parsed.

    They differ only when a client pipelines, and only the newest can have an unfinished body.
    """

    limits: ClassVar[WireLimits] = WireLimits()

    _running: RequestResponseCycle | None
    _head_timer: asyncio.TimerHandle | None
    _linger_timer: asyncio.TimerHandle | None
    _linger_until: float
    _is_discarding: bool
    _unread: int

    def _is_uploading(self) -> bool:
        running = self._running
        return running is not None and running is self.cycle and running.more_body and not running.response_complete

    @staticmethod
    def _disconnect(cycle: RequestResponseCycle) -> None:
        """Make `receive()` return `http.disconnect` from now on, and drop the rest of the application's answer."""
        if not cycle.response_complete:
            cycle.disconnected = True
        cycle.message_event.set()

    def _refuse(self, error: PublicError) -> None:
        """Answer the request that is being read with an error, and read no other request.

        The request gets no error if its own answer has begun, or if the application still serves an earlier request.
        Answers to earlier, whole requests are sent before the connection ends.
        """
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
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
        """End this side of the connection, and read on for a while before closing it.

        So a client that still sends gets the answer and no reset.
        """
        self._is_discarding = True
        if self.cycle is not None:
            self._unread = len(self.cycle.body)
            self.cycle.body = bytearray()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._linger_until = self.loop.time() + self.limits.linger_total_s
        self._start_linger_timer()
        self._discard(0)

    def _discard(self, size: int) -> None:
        self._unread += size
        if size and self._linger_timer is not None:
            self._linger_timer.cancel()
            self._start_linger_timer()
        if self._unread + READ_BYTES <= self.limits.linger_bytes:
            return
        if self._linger_timer is None:
            self.transport.close()
        else:
            self.flow.pause_reading()

    def _start_linger_timer(self) -> None:
        """Close the connection after `linger_s` seconds without a byte, and at the end of `linger_total_s`.

        A busy client sends slowly, and reads its answer late.
        """
        seconds = min(self.limits.linger_s, self._linger_until - self.loop.time())
        self._linger_timer = self.loop.call_later(max(0.0, seconds), self._end_linger)

    def _end_linger(self) -> None:
        self.transport.close()
