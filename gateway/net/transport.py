"""The one way in which HTTP leaves the gateway: new connections for paid requests, kept ones for the others.

It never sends a request with a body twice, never follows a redirect, never keeps a cookie, and never uses a proxy.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, Protocol

import certifi
import httpx
from typing_extensions import override

from gateway.net.connection import Connection, Content, Exchange, Origin, TimeLimits
from gateway.net.failures import prove_unsent
from gateway.net.outside_text import is_ip

KEEP_ALIVE = 15.0
"""Seconds until an idle connection closes: fewer than at the upstreams, so that they rarely close one first."""

_REPLACED = frozenset({"host", "accept-encoding", "connection", "content-length", "transfer-encoding"})
_UNSENDABLE = re.compile(r"[^\t -~]")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_PORTS = {"http": 80, "https": 443}

_NEXT_ADDRESS_S = 0.25
"""Seconds until the next address of a host is tried beside the one before (RFC 8305, section 5)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `addresses` are the only IP addresses to which it may connect for its host; None leaves it to DNS.

    A generator as `content` goes with the Content-Length of `headers`, and in chunks where they have none.
    """

    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    content: Content
    limits: TimeLimits
    addresses: tuple[str, ...] | None = None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port. Raises UnsupportedProtocol for an address that is not one of HTTP."""
        url = self.url
        if url.scheme not in _PORTS or not url.host:
            raise prove_unsent(httpx.UnsupportedProtocol(f"not an http(s) address: {url.scheme!r}"))
        return url.scheme, url.raw_host.decode("ascii"), _PORTS[url.scheme] if url.port is None else url.port

    @property
    def length(self) -> int | None:
        """Bytes of the body; None where it goes in chunks."""
        if self.content is None or isinstance(self.content, bytes):
            return len(self.content or b"")
        given = next((value for name, value in self.headers.items() if name.lower() == "content-length"), None)
        return None if given is None else int(given)

    def write_head(self, length: int | None, *, is_last: bool) -> bytes:
        """The request line and the headers; `is_last` asks the server to close the connection after its answer.

        Raises LocalProtocolError, before anything is sent, for a header that cannot be sent unchanged.
        """
        target, host = self.url.raw_path.decode("ascii"), self.url.netloc.decode("ascii")
        # Compressed answers would use memory outside every budget, and pictures do not get smaller.
        lines = [f"{self.method} {target} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity"]
        if is_last:
            lines.append("Connection: close")
        if _UNSENDABLE.search("".join([*self.headers, *self.headers.values()])):
            name = next(name for name, value in self.headers.items() if _UNSENDABLE.search(name + value))
            raise prove_unsent(httpx.LocalProtocolError(f"header {name!r} has characters that no header may have"))
        for name, value in self.headers.items():
            if name.lower() not in _REPLACED:
                lines.append(f"{name}: {value}")
        if length is None:
            lines.append("Transfer-Encoding: chunked")
        elif length or self.method in _WITH_BODY:
            lines.append(f"Content-Length: {length}")
        lines.append("\r\n")
        return "\r\n".join(lines).encode("ascii")


class Response(Protocol):
    """The head of an answer, and its body as a stream. `headers` have lower-case names."""

    status: int
    headers: list[tuple[bytes, bytes]]

    def aiter_raw(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes from the wire. Raises RequestError where it breaks off."""
        ...

    async def aclose(self) -> None:
        """End the exchange; an answer that was not read to its end ends with its connection."""
        ...


class Transport(Protocol):
    """A way to send requests."""

    async def send(self, request: Request) -> Response:
        """Send the request, and return at the head of its answer. Raises RequestError."""
        ...

    async def aclose(self) -> None:
        """Close the connections that are kept, and refuse later requests."""
        ...


async def send(
    transport: Transport,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: Content,
    limits: TimeLimits,
) -> Response:
    """Send one request, and return at the head of its answer. Raises RequestError, also for text that is no URL."""
    return await transport.send(Request(method, _read_address(url), headers, content, limits))


def find_header(response: Response, name: str) -> str:
    """A header's value, empty where there is none; repeated ones are joined, as in RFC 9110, section 5.3."""
    wanted = name.encode()
    return ", ".join([_decode(value) for key, value in response.headers if key == wanted])


def _decode(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


@lru_cache(maxsize=256)
def _read_address(text: str) -> httpx.URL:
    """The address that a text is. Raises UnsupportedProtocol where it is none."""
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise prove_unsent(httpx.UnsupportedProtocol("not a URL")) from error


@cache
def default_tls() -> ssl.SSLContext:
    """Verified TLS with the system's roots (a company's own among them) and certifi's (a slim image may have none)."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


class HttpTransport(Transport):
    """HTTP/1.1 without a limit on connections: the concurrency queue bounds the calls.

    `fresh` opens a connection for every request and sends `Connection: close`. Paid POSTs need it: on a kept connection
    that the upstream is just closing, "was it sent" has no answer. Without `fresh` a connection is kept for
    `keep_alive` seconds, and a GET is sent again, once, where a kept one ended without a byte of the answer.
    """

    def __init__(
        self, *, fresh: bool, ssl_context: ssl.SSLContext | None = None, keep_alive: float = KEEP_ALIVE
    ) -> None:
        self._tls = ssl_context
        self._keep_alive = 0 if fresh else keep_alive
        self._fresh = fresh
        self._idle: dict[Origin, dict[Connection, None]] = {}
        self._is_closed = False

    @override
    async def send(self, request: Request) -> Response:
        origin, length = request.origin, request.length
        head = request.write_head(length, is_last=self._fresh)
        if self._is_closed:
            raise prove_unsent(httpx.ConnectError("the transport is closed"))
        deadline = asyncio.get_running_loop().time() + request.limits.total
        if (kept := self._take(origin, request.addresses)) is not None:
            exchange = self._new_exchange(request, deadline)
            try:
                return await exchange.run(kept, head, request.content, length)
            except (httpx.ReadError, httpx.RemoteProtocolError):
                if request.method != "GET" or length != 0 or exchange.is_begun:
                    raise
        connection = await self._connect(origin, request, deadline)
        return await self._new_exchange(request, deadline).run(connection, head, request.content, length)

    @override
    async def aclose(self) -> None:
        self._is_closed = True
        for connection in [one for idle in self._idle.values() for one in idle]:
            connection.abort()

    def _new_exchange(self, request: Request, deadline: float) -> Exchange:
        return Exchange(request.method, request.limits, deadline, self._keep if self._keep_alive > 0 else None)

    async def _connect(self, origin: Origin, request: Request, deadline: float) -> Connection:
        """Open a connection. Raises ConnectError and ConnectTimeout: nothing was sent."""
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(loop.time() + request.limits.connect, deadline)):
                addresses: Sequence[str] | None = request.addresses
                if addresses is None:
                    addresses = (host,) if is_ip(host) else await look_up(host, port, socket.AI_ADDRCONFIG)
                connection = await _open_first([partial(self._open, origin, one) for one in _alternate(addresses)])
                if scheme == "https":
                    await connection.start_tls(self._tls or default_tls(), host.rstrip("."))
                return connection
        except TimeoutError as error:
            raise prove_unsent(httpx.ConnectTimeout("no connection in time")) from error
        except (OSError, ValueError) as error:
            # Python raises a ValueError for a host name that it cannot encode.
            raise prove_unsent(httpx.ConnectError("no connection")) from error

    async def _open(self, origin: Origin, address: str) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(origin, address, self._forget), address, origin[2], flags=socket.AI_NUMERICHOST
        )
        return connection

    def _take(self, origin: Origin, addresses: Sequence[str] | None) -> Connection | None:
        """The last used idle connection to one of the addresses."""
        for connection in reversed(self._idle.get(origin, {})):
            if not connection.wire.is_closing() and (addresses is None or connection.address in addresses):
                self._forget(connection)
                connection.stop_idling()
                return connection
        return None

    def _keep(self, connection: Connection) -> None:
        if self._is_closed:
            connection.abort()
        else:
            self._idle.setdefault(connection.origin, {})[connection] = None
            connection.idle(self._keep_alive)

    def _forget(self, connection: Connection) -> None:
        idle = self._idle.get(connection.origin, {})
        idle.pop(connection, None)
        if not idle:
            self._idle.pop(connection.origin, None)


async def look_up(host: str, port: int, flags: int = 0) -> Sequence[str]:
    """The host's IP addresses by the system's resolver. Raises OSError, and UnicodeError for what is no name."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    # getaddrinfo returns a scope ("fe80::1%2") separately; a check of the address must see it.
    return [str(a[4][0]) + (f"%{a[4][3]}" if len(a[4]) == 4 and a[4][3] else "") for a in answers]


def _alternate(addresses: Sequence[str]) -> list[str]:
    """The addresses with families in turn, the first one's first (RFC 8305, section 4)."""
    if len(addresses) < 2:
        return list(addresses)
    first = [one for one in addresses if (":" in one) == (":" in addresses[0])]
    second = [one for one in addresses if one not in first]
    return [one for pair in itertools.zip_longest(first, second) for one in pair if one is not None]


async def _open_first(openers: Sequence[Callable[[], Coroutine[Any, Any, Connection]]]) -> Connection:
    """The first connection that opens, begun in this order. Raises the last one's OSError."""
    if len(openers) == 1:
        return await openers[0]()
    error: BaseException = OSError("no address may be used")
    waiting, running = list(openers), set[asyncio.Task[Connection]]()
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(waiting.pop(0)()))
            patience = _NEXT_ADDRESS_S if waiting else None
            done, _ = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                running.discard(one)
                if (failure := one.exception()) is None:
                    return one.result()
                error = failure
    finally:
        for one in running:
            one.cancel()
            one.add_done_callback(_close_late)
    raise error


def _close_late(attempt: asyncio.Task[Connection]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()
