"""The only code that opens an address from outside: result links, picture references, webhooks.

It never sends an upstream key. It connects only to the addresses of its own look-up, which must be public unless the
origin is allowed by configuration. It counts a body's bytes itself, whatever their stated length.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import httpx

from gateway.net.compression import EncodingUnreadable, decode
from gateway.net.connection import TimeLimits
from gateway.net.outside_text import is_ip, read_count
from gateway.net.transport import HttpTransport, Request, Response, Transport, find_header, look_up
from gateway.pictures.spool import Blob, Spool

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns all IP addresses of a host; the second argument is the port. Raises OSError when there is none."""

FetchKind = Literal["status", "timeout", "network", "too_large", "encoding"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_NUMBER = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.?")
_ISATAP = (0x00005EFE, 0x02005EFE)

_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""All IPv6 unicast that IANA has assigned ("IPv6 Global Unicast Address Assignments")."""

# `is_global` of Python 3.11 is true for many of these; IANA's special-purpose registries and the clouds name them.
_DENIED = tuple(
    ipaddress.ip_network(network)
    for network in [
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        "168.63.129.16/32",  # Azure's host agent
        "100.100.100.200/32",  # Alibaba's metadata
        *("64:ff9b::/96", "64:ff9b:1::/48"),  # NAT64: an IPv4 address behind a translator
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48", "fec0::/10"),
    ]
)


class FetchRefused(Exception):
    """The address, or one to which it redirects, is not allowed. `reason` is for the caller to read."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FetchFailed(Exception):
    """The address gave no usable answer. `status` is set for kind "status"."""

    def __init__(self, kind: FetchKind, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status


def is_public(address: str) -> bool:
    """True for the text of an IP address of the public internet. An IPv4 address within IPv6 must be public too."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:
            return False
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))  # the kernel connects to the IPv4 address
        if ip not in _GLOBAL_V6:
            return False
        if (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP and not is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))):
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _DENIED)


@dataclass(frozen=True)
class FetchPolicy:
    """Limits of one kind of request. `timeout_s` is for the whole, `idle_s` for connecting and for each read or write.

    `allowed_origins` (scheme://host[:port]) come from the operator. For these alone http, another port and a private
    address are allowed, unless a redirect from another origin leads there. `https_port` is the only port of all other
    addresses.
    """

    max_bytes: int
    timeout_s: float
    idle_s: float
    allowed_origins: frozenset[str] = field(default_factory=frozenset)
    max_redirects: int = 3
    https_port: int = 443


@dataclass(frozen=True, slots=True)
class Posted:
    """The head of an answer to a POST; `retry_after` is that header as it came."""

    status: int
    retry_after: str | None


@dataclass(frozen=True)
class _Target:
    url: httpx.URL
    host: str
    port: int
    is_configured: bool


class Fetcher:
    """Downloads into a Spool, and sends POSTs, within one policy. `aclose` closes its connections."""

    def __init__(
        self,
        policy: FetchPolicy,
        *,
        transport: Transport | None = None,
        resolve: Resolve | None = None,
        is_allowed: Callable[[str], bool] = is_public,
    ) -> None:
        self._policy = policy
        self._transport = transport or HttpTransport(fresh=False)
        self._resolve = resolve or look_up
        self._is_allowed = is_allowed
        self._origins = {_origin(httpx.URL(origin)) for origin in policy.allowed_origins}

    async def fetch(self, url: str, spool: Spool, *, max_bytes: int | None = None) -> Blob:
        """Download the body of a 200 answer into the spool; follow redirects. `max_bytes` replaces the policy's.

        Raises FetchRefused, FetchFailed (also for another status), and the spool's StorageFullError. Then it leaves
        nothing in the spool.
        """
        cap = self._policy.max_bytes if max_bytes is None else max_bytes
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                answer = await self._follow(url)
                try:
                    return await _read_body(answer, spool, cap)
                finally:
                    await answer.aclose()
        except (TimeoutError, httpx.TimeoutException) as error:
            raise FetchFailed("timeout", "the download took too long") from error
        except httpx.TransportError as error:
            raise FetchFailed("network", "the connection failed") from error

    async def check(self, url: str) -> None:
        """Check an address and look up its host, without a connection. A later request checks the address again.

        Raises FetchRefused if it is not allowed, FetchFailed if its host is not found, or not within `idle_s`.
        """
        try:
            async with asyncio.timeout(self._policy.idle_s):
                await self._addresses(self._check_text(_parse(url), may_be_configured=True))
        except TimeoutError as error:
            raise FetchFailed("timeout", "the host's name took too long to look up") from error

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Posted:
        """Send one POST once, follow no redirect, and leave the answer's body unread. Returns the head of any answer.

        Raises FetchRefused, FetchFailed.
        """
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                target = self._check_text(_parse(url), may_be_configured=True)
                answer = await self._open(target, "POST", headers, body)
                await answer.aclose()
        except (TimeoutError, httpx.TimeoutException) as error:
            raise FetchFailed("timeout", "the receiver took too long") from error
        except httpx.TransportError as error:
            raise FetchFailed("network", "the connection failed") from error
        return Posted(answer.status, find_header(answer, "retry-after") or None)

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _follow(self, url: str) -> Response:
        target = self._check_text(_parse(url), may_be_configured=True)
        for _ in range(self._policy.max_redirects + 1):
            answer = await self._open(target, "GET", {"accept": "*/*"})
            if answer.status not in _REDIRECTS:
                return answer
            await answer.aclose()
            location = find_header(answer, "location")
            if not location:
                raise FetchFailed("status", "a redirect without a location", answer.status)
            target = self._check_text(_parse(location, target.url), may_be_configured=target.is_configured)
        raise FetchRefused(f"more than {self._policy.max_redirects} redirects; give the final address")

    def _check_text(self, url: httpx.URL, *, may_be_configured: bool) -> _Target:
        """Check the URL's text, and raise FetchRefused for a fault. `_addresses` checks the host's addresses later."""
        host = url.raw_host.decode("ascii")
        if url.userinfo:
            raise FetchRefused("an address may not carry a user name or password")
        if not host:
            raise FetchRefused("not a web address; it must start with https://")
        port = _port(url)
        if may_be_configured and _origin(url) in self._origins:
            return _Target(url, host, port, is_configured=True)
        if url.scheme != "https":
            raise FetchRefused("only https:// addresses are opened")
        if port != self._policy.https_port:
            raise FetchRefused(f"only port {self._policy.https_port} is opened; leave the port out")
        if not is_ip(host) and (_NUMBER.fullmatch(host) or not _NAME.fullmatch(host)):
            raise FetchRefused("the host is neither a name nor an IP address in its usual form")
        return _Target(url, host, port, is_configured=False)

    async def _addresses(self, target: _Target) -> tuple[str, ...]:
        """Look up all addresses of the host. Raises FetchRefused if one is not allowed, FetchFailed without any."""
        if is_ip(target.host):
            addresses: tuple[str, ...] = (target.host,)
        else:
            try:
                addresses = tuple(await self._resolve(target.host, target.port))
            except (OSError, UnicodeError) as error:
                raise FetchFailed("network", "there is no such host") from error
        if not addresses:
            raise FetchFailed("network", "there is no such host")
        if not target.is_configured and not all(self._is_allowed(address) for address in addresses):
            # The message does not name the address: it would describe the operator's network to a caller.
            raise FetchRefused("the host is not on the public internet")
        return addresses

    async def _open(
        self, target: _Target, method: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        idle = self._policy.idle_s
        addresses = await self._addresses(target)
        limits = TimeLimits(connect=idle, read=idle, total=math.inf, write=idle)
        headers = {"user-agent": "imagegate", **headers}
        return await self._transport.send(Request(method, target.url, headers, body, limits, addresses))


async def _read_body(answer: Response, spool: Spool, cap: int) -> Blob:
    """Write the decoded body of a 200 to the spool as it arrives. Raises FetchFailed, also above `cap` bytes."""
    if answer.status != 200:
        raise FetchFailed("status", f"the host answered {answer.status}", answer.status)
    encoding = find_header(answer, "content-encoding") or "identity"
    length = read_count(find_header(answer, "content-length"))
    too_large = FetchFailed("too_large", f"the file is larger than {cap} bytes")
    if length is not None and length > cap:
        raise too_large
    body = answer.aiter_raw()
    writer = spool.writer()
    try:
        # It was asked not to compress.
        async for chunk in body if encoding == "identity" else decode(body, encoding):
            if writer.size + len(chunk) > cap:
                raise too_large
            await writer.write(chunk)
        return await writer.finish()
    except EncodingUnreadable as error:
        await writer.abort()
        raise FetchFailed("encoding", f"the host compressed the file, and {error}") from error
    except BaseException:
        await writer.abort()
        raise


def _parse(text: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        return httpx.URL(text) if base is None else base.join(text)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise FetchRefused("not a web address; it must start with https://") from error


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.raw_host.decode("ascii"), _port(url)


def _port(url: httpx.URL) -> int:
    return _PORTS.get(url.scheme, 0) if url.port is None else url.port
