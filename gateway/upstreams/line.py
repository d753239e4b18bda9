"""One credential's line to one upstream: sends with its key, reads the answer as a stream, names failures.

Used by the adapters, which write and read the dialect. Paid POSTs go over fresh connections; the key is set here and
nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import orjson

from gateway.catalogue.catalogue import Target
from gateway.net.http_client import (
    URL,
    AsyncBaseTransport,
    ConnectError,
    ConnectTimeout,
    PoolTimeout,
    Request,
    RequestError,
    Response,
    Timeout,
)
from gateway.net.multipart import MultipartBody
from gateway.net.transport import was_sent
from gateway.pictures.json_stream import BadJson, JsonReader, TooLarge
from gateway.pictures.spool import Spool, StorageFullError
from gateway.upstreams.verdict import CallFailed, Failure

MAX_TEXT = 4 * 2**20
"""Bytes of an answer beside its pictures; an honest one has a few thousand."""

_LONGEST_RETRY_AFTER = 86_400.0

PICTURE_KEYS = frozenset({"b64_json", "b64", "image_base64"})


@dataclass(frozen=True, slots=True)
class Reply:
    """An upstream's answer of any status. `document` is None when it was not JSON, and `problem` then says why."""

    status: int
    document: Any
    problem: str = ""
    retry_after: float | None = None

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300


class UpstreamClient:
    """Sends requests of one target. `paid` must open a fresh connection each time, `pooled` may keep them."""

    def __init__(self, target: Target, paid: AsyncBaseTransport, pooled: AsyncBaseTransport, max_picture: int) -> None:
        self.target = target
        self._paid = paid
        self._pooled = pooled
        self._max_picture = max_picture
        self._headers = {"accept": "*/*", "authorization": f"Bearer {target.key}", "user-agent": "imagegate"}

    async def pay(self, path: str, body: dict[str, Any] | MultipartBody, spool: Spool) -> Reply:
        """The paid POST, once, over a fresh connection. Raises CallFailed with the phase that proves what was sent."""
        limits = self.target.config.timeouts
        timeout = Timeout(limits.call, connect=limits.connect, write=60)
        return await self._send(self._paid, "POST", path, body, spool, timeout)

    async def ask(self, method: str, path: str, body: MultipartBody | None, spool: Spool) -> Reply:
        """A request that costs nothing: polls, uploads, balances. Raises CallFailed."""
        limits = self.target.config.timeouts
        timeout = Timeout(limits.poll, connect=limits.connect, write=60)
        return await self._send(self._pooled, method, path, body, spool, timeout)

    async def _send(
        self,
        transport: AsyncBaseTransport,
        method: str,
        path: str,
        body: dict[str, Any] | MultipartBody | None,
        spool: Spool,
        timeout: Timeout,
    ) -> Reply:
        headers = dict(self._headers)
        content: bytes | AsyncGenerator[bytes, None] | None = None
        if isinstance(body, MultipartBody):
            headers |= {"content-type": body.content_type, "content-length": str(body.content_length)}
            content = body.chunks()
        elif body is not None:
            headers["content-type"] = "application/json"
            # A copy: orjson keeps the four kilobytes in which it wrote them, for as long as an answer takes.
            content = bytes(memoryview(orjson.dumps(body)))
        # Straight to the transport: httpx's client would add redirects, cookies and defaults, none of which is wanted
        # here, for as much time as the sending takes.
        url, limits = _read_url(self.target.config.base_url + path), {"timeout": timeout.as_dict()}
        request = Request(method, url, headers=headers, content=content, extensions=limits)
        try:
            response = await transport.handle_async_request(request)
            try:
                return await self._read(response, spool)
            finally:
                await response.aclose()
        except RequestError as error:
            raise CallFailed(_failure(error)) from error
        except StorageFullError as error:
            raise CallFailed(Failure("collect", message=f"the gateway's disk takes no more: {error}")) from error
        finally:
            if isinstance(content, AsyncGenerator):
                await _close(content)

    async def _read(self, response: Response, spool: Spool) -> Reply:
        retry_after = parse_retry_after(response.headers.get("retry-after"))
        reader = JsonReader(spool, picture_keys=PICTURE_KEYS, max_rest=MAX_TEXT, max_picture=self._max_picture)
        try:
            async for piece in response.aiter_raw():
                await reader.feed(piece)
            document = await reader.finish()
        except (BadJson, TooLarge) as error:
            kind = response.headers.get("content-type", "no content type").partition(";")[0]
            return Reply(response.status_code, None, f"{kind}, not readable: {error}"[:300], retry_after)
        finally:
            await reader.abort()
        return Reply(response.status_code, document, retry_after=retry_after)


async def _close(body: AsyncGenerator[bytes, None]) -> None:
    """Close the file of an upload that was broken off; its writer has nobody who would."""
    # While a piece is being read, the generator cannot be closed: then its writer is being cancelled, which closes it.
    with suppress(RuntimeError):
        await body.aclose()


@lru_cache(maxsize=256)
def _read_url(text: str) -> URL:
    return URL(text)


def parse_retry_after(text: str | None) -> float | None:
    """Seconds from a Retry-After header, given as seconds or as a date; None when absent or unreadable."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        # "inf" and "nan" are floats too.
        return None if math.isnan(seconds) else min(max(0.0, seconds), _LONGEST_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until.tzinfo else None


def _failure(error: RequestError) -> Failure:
    what = f"{type(error).__name__}: {error}"[:300]
    if was_sent(error):
        return Failure("read", message=what)
    is_connect = isinstance(error, ConnectError | ConnectTimeout | PoolTimeout)
    return Failure("connect" if is_connect else "write", message=what)
