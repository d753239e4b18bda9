"""The one way in which HTTP leaves the gateway: an httpx transport over aiohttp, and the answer to "was it sent".

It is used without an httpx client. It never retries a request with a body, never follows a redirect, never keeps a
cookie, and never calls a request "not sent" without proof.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import aiohttp
import certifi
import httpx
import yarl
from aiohttp.abc import AbstractStreamWriter, ResolveResult
from typing_extensions import override

KEEP_ALIVE = 15.0
"""Seconds until an idle connection closes: fewer than at the upstreams, so that they rarely close one first."""

_PIECE = 64 * 1024
_REPLACED = frozenset({b"accept-encoding", b"connection", b"transfer-encoding"})
_NEVER_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_pinned: ContextVar[tuple[str, ...] | None] = ContextVar("pinned", default=None)


Transport = httpx.AsyncBaseTransport
Response = httpx.Response
RequestError = httpx.RequestError
"""The names that code outside `net` needs to send a request."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds: to connect, for one write to be taken, between two reads, and from the start to the last read."""

    connect: float
    read: float
    total: float
    write: float = 60.0


async def send(
    transport: Transport,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes | AsyncGenerator[bytes, None] | None,
    limits: TimeLimits,
) -> Response:
    """Send one request, and return at the head of its answer. Raises RequestError, also for text that is no URL.

    The request goes straight to the transport: httpx's client would add redirects, cookies and defaults, for as much
    time as the sending takes.
    """
    address = _read_url(url)
    if address is None:
        raise _proof(httpx.UnsupportedProtocol(f"not a URL: {url[:100]!r}"))
    timeout = {"connect": limits.connect, "read": limits.read, "write": limits.write, "total": limits.total}
    request = httpx.Request(method, address, headers=headers, content=content, extensions={"timeout": timeout})
    return await transport.handle_async_request(request)


def was_sent(error: BaseException) -> bool:
    """False only with proof that the upstream never had the whole request, and so cannot have billed it.

    The proof is `sent_whole`, which only this transport sets. Every other exception, known or not, counts as sent.
    """
    return getattr(error, "sent_whole", True) is not False


def name_phase(error: RequestError) -> Literal["connect", "write", "read"]:
    """The step in which a request failed. It is `read` if the upstream may have had the whole request."""
    if was_sent(error):
        return "read"
    is_connect = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return "connect" if is_connect else "write"


def describe_error(error: RequestError) -> str:
    """A failed request in the gateway's words. The library's text would quote inner addresses, and answered bytes."""
    if isinstance(error, httpx.TimeoutException):
        return "the connection took too long" if not was_sent(error) else "no answer came in time"
    if isinstance(error, httpx.RemoteProtocolError):
        return "the answer broke off, or was not HTTP"
    return "the connection broke" if was_sent(error) else "the connection failed"


@cache
def default_tls() -> ssl.SSLContext:
    """Verified TLS with the system's roots (a company's own among them) and certifi's (a slim image may have none)."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


class AiohttpTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 without a limit on connections: the concurrency queue bounds the calls.

    `fresh` opens a connection for every request and sends `Connection: close`. Paid POSTs need it: on a kept connection
    that the upstream is just closing, "was it sent" has no answer. A pooled transport sends a GET again, once, after
    such a connection. Time-outs are httpx's (`connect`, `write`, `read`) and `total`, in seconds, from the request. The
    request extension `addresses` names the only IP addresses to which it may connect for its host.
    """

    def __init__(
        self, *, fresh: bool, ssl_context: ssl.SSLContext | None = None, keep_alive: float = KEEP_ALIVE
    ) -> None:
        self._fresh = fresh
        self._tls = ssl_context
        self._keep_alive = keep_alive
        self._opened: aiohttp.ClientSession | None = None
        self._is_closed = False

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return at the head of its answer. The body is read from the wire as the caller reads it.

        Raises httpx.RequestError.
        """
        limits = request.extensions.get("timeout", {})
        target = _target(request)
        upload = _upload(request, limits.get("write"))
        token = _pinned.set(request.extensions.get("addresses"))
        response = None
        try:
            async with asyncio.timeout(None) as guard:
                if upload is not None:
                    upload.guard = guard
                response = await self._session(request).request(
                    request.method,
                    target,
                    # Not in a variable, which would keep them in memory until the answer comes.
                    headers=_headers(request),
                    data=upload,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        total=limits.get("total"), connect=limits.get("connect"), sock_read=limits.get("read")
                    ),
                )
        except (aiohttp.ClientError, OSError) as error:
            raise _translate(error, request, upload) from error
        finally:
            _pinned.reset(token)
            if upload is not None:
                upload.guard = None
                if response is None:
                    upload.abort()
        assert isinstance(response, _Answer)
        return httpx.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=_Body(response, request),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (response.reason or "").encode()},
        )

    @override
    async def aclose(self) -> None:
        self._is_closed = True
        if self._opened is not None:
            await self._opened.close()

    def _session(self, request: httpx.Request) -> aiohttp.ClientSession:
        if self._is_closed:
            raise _proof(httpx.ConnectError("the transport is closed", request=request))
        if self._opened is None:
            connector = aiohttp.TCPConnector(
                limit=0,
                ssl=self._tls or default_tls(),
                resolver=_Resolver(),
                use_dns_cache=False,
                force_close=self._fresh,
                keepalive_timeout=None if self._fresh else self._keep_alive,
            )
            self._opened = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                response_class=_Answer,
                skip_auto_headers=_NEVER_ADDED,
            )
            if self._fresh:
                # aiohttp sends GET, PUT and DELETE a second time after a lost connection, even a fresh one. It has no
                # public switch; its own test client uses this attribute.
                self._opened._retry_connection = False
        return self._opened


class _Upload(aiohttp.Payload):
    """The request's body: it counts the bytes that it passes on, and aborts a write that stalls."""

    def __init__(self, chunks: AsyncIterator[bytes], length: int | None, stall: float | None) -> None:
        super().__init__(chunks)
        self._chunks = chunks
        self._length = length
        self._stall = stall
        self._sent = 0
        self._transport: asyncio.WriteTransport | None = None
        self.guard: asyncio.Timeout | None = None
        self.is_whole = False

    @override
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a streamed body has no text")

    @override
    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    @override
    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._consumed = True
        self._transport = writer.transport
        try:
            async for chunk in self._chunks:
                view = memoryview(chunk)
                for start in range(0, len(view), _PIECE):
                    await self._write_piece(writer, view[start : start + _PIECE])
            if self._length is not None and self._sent != self._length:
                raise ValueError(f"the body ended after {self._sent} of {self._length} bytes")
            self.is_whole = True
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Drop the connection with its unsent bytes: a normal close waits without end for a stalled peer."""
        if self._transport is not None:
            self._transport.abort()

    async def _write_piece(self, writer: AbstractStreamWriter, piece: memoryview) -> None:
        self._sent += len(piece)
        if self._length is not None and self._sent > self._length:
            raise ValueError(f"the body is longer than its {self._length} bytes")
        # From here on the upstream may have the whole request. Set before the write: a failed write proves nothing.
        self.is_whole = self._sent == self._length
        self._watch(self._stall)
        await writer.write(piece)
        await writer.drain()
        self._watch(None)
        if not self.is_whole:
            # If the upstream answers early and closes, the gateway must read its answer before the next piece meets the
            # reset: the loop polls its sockets in the first turn and reads in the second. With one turn, asyncio lost
            # the answer.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _watch(self, seconds: float | None) -> None:
        if self.guard is not None and not self.guard.expired():
            self.guard.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


class _Answer(aiohttp.ClientResponse):
    """aiohttp's response, which keeps its connection's protocol after the connection is released."""

    handler: Any = None

    @override
    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        self.handler = connection.protocol
        return await super().start(connection)


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: _Answer, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise _translate(error, self._request, None) from error
        # Without a length the body ends with the connection, and aiohttp reports a reset as such an end.
        headers = self._answer.headers
        if "content-length" not in headers and "transfer-encoding" not in headers:
            cause = self._answer.handler.exception()
            if isinstance(cause, OSError):
                raise _translate(cause, self._request, None) from cause

    @override
    async def aclose(self) -> None:
        self._answer.close()


class _Resolver(aiohttp.ThreadedResolver):
    """The system's resolver, unless the request names its addresses."""

    @override
    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        addresses = _pinned.get()
        if addresses is None:
            try:
                return await super().resolve(host, port, family)
            except UnicodeError as error:
                # Python raises this for a label that it cannot encode; other resolvers report an unknown name.
                raise OSError(f"not a host name: {host}") from error
        if not addresses:
            raise OSError(f"no address may be used for {host}")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in addresses
        ]


def _translate(error: Exception, request: httpx.Request, upload: _Upload | None) -> httpx.RequestError:
    """The exception that states the proof: Connect*, Write*: not sent whole; Read*, RemoteProtocol*: may be billed."""
    message = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return _proof(httpx.ConnectTimeout(message, request=request))
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL):
        return _proof(httpx.ConnectError(message, request=request))
    is_timeout = isinstance(error, TimeoutError)
    if upload is not None and not upload.is_whole:
        return _proof((httpx.WriteTimeout if is_timeout else httpx.WriteError)(message, request=request))
    if is_timeout:
        return httpx.ReadTimeout(message, request=request)
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ServerDisconnectedError):
        return httpx.RemoteProtocolError(message, request=request)
    return httpx.ReadError(message, request=request)


def _proof(error: httpx.RequestError) -> httpx.RequestError:
    error.__dict__["sent_whole"] = False
    return error


def _target(request: httpx.Request) -> yarl.URL:
    target = _read_target(request.url)
    if isinstance(target, str):
        raise _proof(httpx.UnsupportedProtocol(target, request=request))
    return target


@lru_cache(maxsize=256)
def _read_url(text: str) -> httpx.URL | None:
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        return None


@lru_cache(maxsize=256)
def _read_target(url: httpx.URL) -> yarl.URL | str:
    """The address in aiohttp's form, or the reason why it is not usable."""
    if url.scheme not in ("http", "https") or not url.host:
        return f"not an http(s) address: {url!r}"
    target = yarl.URL(str(url.copy_with(username="", password="", fragment="")), encoded=True)
    # The check of this address used httpx's reading: aiohttp must not read another host from the same text.
    if target.raw_host != url.raw_host.decode("ascii") or target.explicit_port != url.port:
        return f"an ambiguous address: {url!r}"
    return target


def _headers(request: httpx.Request) -> Iterable[tuple[str, str]]:
    """The request's headers as text. Raises before anything is sent if one cannot be sent unchanged."""
    # Compressed answers would use memory outside every budget, and pictures do not get smaller.
    headers = [("Accept-Encoding", "identity")]
    for name, value in request.headers.raw:
        try:
            pair = name.decode("ascii"), value.decode()
        except UnicodeDecodeError as error:
            raise _proof(httpx.LocalProtocolError(f"header {name!r} is not text", request=request)) from error
        if _FORBIDDEN.search(pair[0]) or _FORBIDDEN.search(pair[1]):
            raise _proof(httpx.LocalProtocolError(f"header {name!r} has control characters", request=request))
        if name.lower() not in _REPLACED:
            headers.append(pair)
    return headers


def _upload(request: httpx.Request, stall: float | None) -> _Upload | None:
    """The body, if there is one; with a Content-Length it is never chunked."""
    given = request.headers.get("content-length")
    length = None if given is None else int(given)
    if length == 0 or (length is None and "transfer-encoding" not in request.headers):
        return None
    assert isinstance(request.stream, httpx.AsyncByteStream)
    return _Upload(aiter(request.stream), length, stall)
