"""The client of one credential at one upstream: it sends with the key, reads the answer as a stream, names failures.

Paid POSTs go over fresh connections. No other module sets the key, and this one knows no dialect.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.catalogue.catalogue import Target
from gateway.net.multipart import MultipartBody
from gateway.net.outside_text import read_retry_after
from gateway.net.transport import RequestError, Response, TimeLimits, Transport, name_phase, send
from gateway.pictures.json_stream import BadJson, JsonReader, TooLarge
from gateway.pictures.spool import Spool, StorageFullError
from gateway.upstreams.verdict import CallFailed, Failure

MAX_TEXT = 4 * 2**20
"""Bytes of an answer beside its pictures; a normal one has a few thousand."""

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

    def __init__(self, target: Target, paid: Transport, pooled: Transport, max_picture: int) -> None:
        self.target = target
        self._paid = paid
        self._pooled = pooled
        self._max_picture = max_picture
        self._headers = {"accept": "*/*", "authorization": f"Bearer {target.key}", "user-agent": "imagegate"}

    async def pay(self, path: str, body: dict[str, Any] | MultipartBody, spool: Spool) -> Reply:
        """Send the paid POST once, over a fresh connection. Raises CallFailed; its phase shows how much was sent."""
        limits = self.target.config.timeouts
        return await self._send(self._paid, "POST", path, body, spool, TimeLimits(limits.connect, limits.call))

    async def ask(self, method: str, path: str, body: MultipartBody | None, spool: Spool) -> Reply:
        """Send a request that costs nothing: a poll, an upload, a balance. Raises CallFailed."""
        limits = self.target.config.timeouts
        return await self._send(self._pooled, method, path, body, spool, TimeLimits(limits.connect, limits.poll))

    async def _send(
        self,
        transport: Transport,
        method: str,
        path: str,
        body: dict[str, Any] | MultipartBody | None,
        spool: Spool,
        limits: TimeLimits,
    ) -> Reply:
        headers = dict(self._headers)
        content: bytes | AsyncGenerator[bytes, None] | None = None
        if isinstance(body, MultipartBody):
            headers |= {"content-type": body.content_type, "content-length": str(body.content_length)}
            content = body.chunks()
        elif body is not None:
            headers["content-type"] = "application/json"
            # A copy: orjson's own buffer is four kilobytes larger, and would live until the answer comes.
            content = bytes(memoryview(orjson.dumps(body)))
        url = self.target.config.base_url + path
        try:
            response = await send(transport, method, url, headers, content, limits)
            try:
                return await self._read(response, spool)
            finally:
                await response.aclose()
        except RequestError as error:
            raise CallFailed(_failure(error)) from error
        except StorageFullError as error:
            raise CallFailed(Failure("collect", message=f"the gateway's disk is full: {error}")) from error
        finally:
            if isinstance(content, AsyncGenerator):
                await _close(content)

    async def _read(self, response: Response, spool: Spool) -> Reply:
        retry_after = read_retry_after(response.headers.get("retry-after"))
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
    """Close the file of an interrupted upload."""
    # While a piece is being read, the generator refuses to close: then the cancellation of its writer closes it.
    with suppress(RuntimeError):
        await body.aclose()


def _failure(error: RequestError) -> Failure:
    return Failure(name_phase(error), message=f"{type(error).__name__}: {error}"[:300])
