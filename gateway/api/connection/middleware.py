"""The ASGI middleware: `Edge` around every route, and `DirectRoutes` in front of the framework's router.

Plain ASGI, so that answers are streamed as they are made. Reads no body.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

from gateway import errors
from gateway.api.connection.error_handlers import render
from gateway.api.connection.request_line import read_route, send_head
from gateway.api.connection.request_log import log_request
from gateway.api.request import DirectRequest, get_caller, get_services
from gateway.callers.auth import Caller
from gateway.errors import PublicError
from gateway.ids import new_id
from gateway.process.admission import AdmittedRequest
from gateway.services import Services
from gateway.tasks.wait import CallerConnection, Refusal

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_ONCE = frozenset(
    b"host authorization content-length transfer-encoding content-type content-encoding idempotency-key".split()
)
_HOST = re.compile(rb"([A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-fvV:.%]+\])(:[0-9]{0,5})?")

_log = structlog.get_logger(__name__)


class Edge:
    """The outermost layer: it adds `x-request-id` and `x-gateway-simulated`, and logs each request but health checks.

    It answers 400 to a head that two readers could read in two ways. An exception before the answer's first byte
    becomes a 500; a later one is raised again. A caller's own `x-request-id` stays if it has 1 to 100 letters and
    digits of ASCII, `.`, `_` and `-`.
    """

    def __init__(self, app: ASGIApp, *, is_simulated: bool) -> None:
        self._app = app
        self._own = [(b"x-gateway-simulated", b"1")] if is_simulated else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _read_request_id(scope) or new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0
        is_whole = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode()), *self._own]
            await send(message)
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        bound = structlog.contextvars.bind_contextvars(request=request_id)
        try:
            if fault := _find_fault(scope):
                await render(errors.InvalidValue(fault))(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except Exception:
            _log.exception("request failed")
            if status == 0:
                fault = errors.InternalError("The gateway failed; the request id finds it in its log.")
                fault.should_retry = False
                await render(fault)(scope, receive, send_with_headers)
            else:
                # The answer has begun: only a broken connection shows the caller that it is incomplete.
                raise
        finally:
            if (presence := scope["state"].get("presence")) is not None:
                is_whole = await _finish(presence, scope["state"].get("handover"), is_whole=is_whole)
            log_request(scope, status, started, is_whole=is_whole)
            structlog.contextvars.reset_contextvars(**bound)


async def _finish(presence: CallerConnection, handover: Handover | None, *, is_whole: bool) -> bool:
    """Wait until the answer has arrived or its connection has ended, then end the request's wait for its task.

    Return True if the answer arrived, as far as this side can see.
    """
    is_refused = False
    if handover is not None and is_whole and presence.waiting is not None:
        is_whole = await handover.arrive()
        handover.patient_until, handover.on_refusal = presence.patient_until, presence.refuse
        is_refused = is_whole and handover.is_late and handover.transport.is_closing()
    await presence.finish(is_whole=is_whole)
    if is_refused:
        presence.refuse("unread")
    return is_whole and not is_refused


def _find_fault(scope: Scope) -> str | None:
    """The reason to refuse a head that two readers could read in two ways (RFC 9112 3.2); None if there is none."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _ONCE or name.startswith(b"x-gateway-"):
            if name in found:
                return f"The header `{name.decode().title()}` was sent twice; send it once."
            found[name] = value
    host = found.get(b"host")
    if host is None:
        return "The header `Host` is missing; HTTP/1.1 requires it." if scope["http_version"] == "1.1" else None
    if not _HOST.fullmatch(host):
        return "The header `Host` must be the name or the address of this server, and its port if it is not the usual."
    return None


def _read_request_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            return text if _REQUEST_ID.fullmatch(text) else None
    return None


Endpoint = Callable[[Request, Services, Caller], Awaitable[Response]]


class DirectRoutes:
    """Calls the endpoints of some POST paths directly: the framework's router costs half as much as their own work.

    `read_route` rewrites every other method and path first; the result may be one of these paths. Every other request
    goes to the router, which also lists these routes. A direct request over the limit of running requests, of this
    process or of its key, is refused before its body is read.
    """

    def __init__(self, app: ASGIApp, *, routes: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._routes = dict(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_direct(scope):
            if scope["method"] == "HEAD":
                send = send_head(send)
            try:
                scope = read_route(scope)
            except PublicError as error:
                await render(error)(scope, receive, send)
                return
        if not self._is_direct(scope):
            await self._app(scope, receive, send)
            return
        request = DirectRequest(scope, receive, send)
        services = get_services(request)
        with AdmittedRequest(services.admission) as admitted:
            try:
                admitted.enter(len(services.running))
                caller = await get_caller(request, services)
                admitted.enter_key(caller.key.id)
                response = await self._routes[scope["path"]](request, services, caller)
            except PublicError as error:
                response = render(error)
            await response(scope, receive, send)

    def _is_direct(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._routes


REFUSED_WITHIN_S = 5.0
"""Seconds after the last byte in which a reset means that the answer was not read. A later reset comes from a proxy,
which ends an idle connection with a reset."""

CLOSED_WITHIN_S = 2.0
"""Seconds after the last byte in which a close without a reset may mean that the caller gave up with the answer in its
buffers. Clients keep an idle connection longer: undici for 4 s, httpx for 5 s."""


@dataclass(slots=True, eq=False)
class Handover:
    """The handover of one answer.

    `on_refusal` is called when the client ends the connection so soon after the answer that it perhaps did not read it,
    and has sent no other request. The client's kernel resets a connection that is closed with unread bytes. It closes
    one without a reset if the client's event loop had read the bytes when the caller gave up. A caller can give up from
    `patient_until` on; this time is infinite for a client that announced no time-out. `ended` is the time at which the
    kernel had the whole answer; both are the loop's times. `is_written` means that the transport has the whole answer,
    `is_disconnected` that the client closed before it could have the answer, `is_ended_here` that this process closed
    the connection, so that its end shows nothing.
    """

    transport: asyncio.Transport
    flow: FlowControl
    on_refusal: Callable[[Refusal], None] | None = None
    ended: float | None = None
    patient_until: float = math.inf
    is_written: bool = False
    is_disconnected: bool = False
    is_ended_here: bool = False
    _on_disconnect: Callable[[], None] | None = None
    _lost: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_late(self) -> bool:
        """True when `patient_until` has passed, so that the client may have given up."""
        return asyncio.get_running_loop().time() > self.patient_until

    @property
    def shows_refusal(self) -> bool:
        """True when the end of the connection can show that the client did not read its answer."""
        return self._on_disconnect is not None and self.transport.can_write_eof()

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` if the client disconnects before the answer is written. Call this after the body was read.

        An end of the client's input is a disconnect: TCP shows no difference between a client that left and one that
        still reads, and a retry of the one that left must find its task free to join.
        """
        # Reading stays paused after a large body, and asyncio sees no end of a connection that it does not read.
        self.flow.resume_reading()
        self._on_disconnect = callback
        if self.is_disconnected or self._lost.done():
            callback()

    def end_input(self) -> None:
        """Record the end of the client's input: it is a disconnect unless the kernel has the whole answer.

        Before the answer is written, it runs the callback of `on_disconnect`.
        """
        self.is_disconnected = self.is_disconnected or not self.is_written or self.transport.get_write_buffer_size() > 0
        self._note_disconnect()

    def _note_disconnect(self) -> None:
        if not self.is_written and self._on_disconnect is not None:
            self._on_disconnect()

    async def arrive(self) -> bool:
        """Record that the transport has the whole answer, wait until the kernel has its last byte, and return True.

        Returns False when the connection broke or the client closed before that.
        """
        self.is_written = True
        if not self.transport.is_closing():
            # With a limit of 0 `drain` waits for every byte.
            self.transport.set_write_buffer_limits(0)
            await self.flow.drain()
            self.ended = asyncio.get_running_loop().time()
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits()
            return not self.is_disconnected
        # A closing connection ends once all bytes are sent, or when it breaks.
        return await asyncio.shield(self._lost) and not self.is_disconnected

    def lose(self, exc: Exception | None) -> None:
        """Record the end of the connection; `exc` is its error, None for a close without one.

        Before the answer is written, it runs the callback of `on_disconnect`. It runs `on_refusal` if the client
        perhaps did not read the answer.
        """
        if not self._lost.done():
            self._lost.set_result(exc is None)
            self._note_disconnect()
        refusal = self._find_refusal(exc)
        if refusal is not None and self.on_refusal is not None:
            self.on_refusal(refusal)

    def _find_refusal(self, exc: Exception | None) -> Refusal | None:
        """The refusal that the end of the connection shows; None if it shows none, or the answer was not written."""
        if self.ended is None or self.is_ended_here:
            return None
        seconds = asyncio.get_running_loop().time() - self.ended
        if seconds < REFUSED_WITHIN_S and (isinstance(exc, ConnectionError) or (exc is None and self.is_late)):
            return "unread"
        is_unannounced = math.isinf(self.patient_until)
        return "closed" if exc is None and is_unannounced and seconds < CLOSED_WITHIN_S else None
