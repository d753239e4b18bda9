"""A client of httpx over the gateway's transport, for tests of the transport alone: the gateway has none."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
from typing_extensions import override

from gateway.net.connection import TimeLimits
from gateway.net.transport import Request, Response, Transport


def open_client(transport: Transport, **options: Any) -> httpx.AsyncClient:
    """A client that takes nothing from the environment, follows no redirect and stores no cookie."""
    cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=()))
    return httpx.AsyncClient(
        transport=Adapter(transport), cookies=cookies, trust_env=False, verify=False, follow_redirects=False, **options
    )


class Adapter(httpx.AsyncBaseTransport):
    """The gateway's transport in httpx's form."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.send(to_request(request))
        return httpx.Response(response.status, headers=response.headers, stream=Body(response))

    @override
    async def aclose(self) -> None:
        await self._transport.aclose()


class Body(httpx.AsyncByteStream):
    def __init__(self, response: Response) -> None:
        self._response = response

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._response.aiter_raw():
            yield piece

    @override
    async def aclose(self) -> None:
        await self._response.aclose()


def to_request(request: httpx.Request) -> Request:
    times = request.extensions.get("timeout", {})
    seconds = {name: math.inf if times.get(name) is None else times[name] for name in ("read", "total", "write")}
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
    content: bytes | AsyncGenerator[bytes, None] | None
    try:
        content = request.content or None
    except httpx.RequestNotRead:
        content = stream(request)
    limits = TimeLimits(connect=times.get("connect") or 60, **seconds)
    addresses = request.extensions.get("addresses")
    return Request(request.method, request.url, headers, content, limits, addresses)


async def stream(request: httpx.Request) -> AsyncGenerator[bytes, None]:
    assert isinstance(request.stream, httpx.AsyncByteStream)
    async for chunk in request.stream:
        yield chunk
