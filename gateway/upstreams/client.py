"""The client of one credential at one upstream: it sends with the key, reads the answer as a stream, names failures.

Paid POSTs go over fresh connections. No other module sets the key, and this one knows no dialect.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from gateway.catalogue.catalogue import Target
from gateway.jobs.job import FoundImage, TokenUsage, UpstreamAnswer
from gateway.net.multipart import MultipartBody
from gateway.net.outside_text import read_amount, read_retry_after
from gateway.net.transport import RequestError, Response, TimeLimits, Transport, name_phase, send
from gateway.pictures.json_stream import BadJson, JsonReader, TooLarge
from gateway.pictures.spool import Blob, Spool, StorageFullError
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
        seconds = TimeLimits(limits.connect, limits.call, limits.call_total)
        return await self._send(self._paid, "POST", path, body, spool, seconds)

    async def ask(self, method: str, path: str, body: MultipartBody | None, spool: Spool) -> Reply:
        """Send a request that costs nothing: a poll, an upload, a balance. Raises CallFailed."""
        limits = self.target.config.timeouts
        seconds = TimeLimits(limits.connect, limits.poll, limits.poll_total)
        return await self._send(self._pooled, method, path, body, spool, seconds)

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
        reader = JsonReader(
            spool, picture_keys=PICTURE_KEYS, max_rest=MAX_TEXT, max_picture=self._max_picture, is_lenient=True
        )
        try:
            async for piece in response.aiter_raw():
                await reader.feed(piece)
            document = await reader.finish()
        except (BadJson, TooLarge) as error:
            kind = response.headers.get("content-type", "no content type").partition(";")[0]
            return Reply(response.status_code, None, f"{kind}, not readable: {error}"[:300], retry_after)
        finally:
            await reader.abort()
        return Reply(response.status_code, document, "; ".join(reader.faults)[:300], retry_after)


async def _close(body: AsyncGenerator[bytes, None]) -> None:
    """Close the file of an interrupted upload."""
    # While a piece is being read, the generator refuses to close: then the cancellation of its writer closes it.
    with suppress(RuntimeError):
        await body.aclose()


def _failure(error: RequestError) -> Failure:
    return Failure(name_phase(error), message=f"{type(error).__name__}: {error}"[:300])


_PICTURES = ("b64_json", "b64", "image_base64", "url", "image_url", "image")

_CREDITS = ("charged", "settled", "used", "consumed", "reserved")
_MOST_CREDITS = 1_000_000_000

_MAX_MESSAGE = 2000
"""Characters of a vendor's message that an error keeps; it may reach the caller."""


def read_answer(reply: Reply) -> UpstreamAnswer:
    """The images of a 2xx answer. Raises CallFailed: `status` for an error inside, `body` when there is no image."""
    fail_on_error(reply)
    images = find_images(reply.document)
    if not images:
        what = reply.problem or "no image in it"
        raise CallFailed(Failure("body", status=reply.status, message=what))
    return UpstreamAnswer(tuple(images), find_usage(reply.document), find_credits(reply.document))


def fail_on_error(reply: Reply) -> None:
    """Raise CallFailed for any answer that is an error: by its status, or by an error object inside a 2xx."""
    error = find_error(reply.document)
    if reply.is_ok and error is None:
        return
    code, kind, message, param = error or (None, None, reply.problem, None)
    raise CallFailed(
        Failure(
            # Inside a 200, the error says what happened; the status says nothing.
            "status" if not reply.is_ok else "body",
            status=reply.status,
            spoke=error is not None,
            code=code,
            type=kind,
            message=message,
            param=param,
            retry_after=reply.retry_after,
        )
    )


def find_images(document: Any) -> list[FoundImage]:
    """The images of the first place that holds any, newest shape first."""
    if not isinstance(document, dict):
        return []
    inner = document.get("result")
    nested = inner if isinstance(inner, dict) else {}
    for place in (
        nested.get("data"),
        nested.get("urls"),
        nested.get("images"),
        inner if isinstance(inner, list) else None,
        document.get("results"),
        document.get("data"),
        document.get("images"),
        document.get("urls"),
    ):
        if found := list(_read_place(place)):
            return found
    return []


def _read_place(place: Any) -> Iterator[FoundImage]:
    if isinstance(place, list):
        for item in place:
            yield from _read_place(item)
    elif isinstance(place, Blob):
        if place.size:
            yield FoundImage(blob=place)
    elif isinstance(place, str):
        if place.startswith(("http://", "https://", "/")):
            yield FoundImage(url=place)
    elif isinstance(place, dict):
        yield from _read_item(place)


def _read_item(item: dict[str, Any]) -> Iterator[FoundImage]:
    prompt = item.get("revised_prompt")
    revised = prompt if isinstance(prompt, str) and prompt else None
    for name in _PICTURES:
        if found := list(_read_place(item.get(name))):
            for one in found:
                yield FoundImage(blob=one.blob, url=one.url, revised_prompt=revised)
            return


def find_error(document: Any) -> tuple[str | None, str | None, str, str | None] | None:
    """Code, type, message and param of an error object in an answer of any kind; None when there is none."""
    if not isinstance(document, dict):
        return None
    error = document.get("error")
    if isinstance(error, str) and error:
        return None, None, error[:_MAX_MESSAGE], None
    if not isinstance(error, dict) or not error:
        return None
    message = error.get("message")
    return (
        _read_text(error.get("code")),
        _read_text(error.get("type")),
        (message if isinstance(message, str) else str(message or ""))[:_MAX_MESSAGE],
        _read_text(error.get("param")),
    )


def find_usage(document: Any) -> TokenUsage | None:
    """The token counts of an answer; None unless all three are whole, because a guess must not look like a count."""
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return None
    details = usage.get("input_tokens_details")
    details = details if isinstance(details, dict) else {}
    taken, made, total = (_read_count(usage.get(name)) for name in ("input_tokens", "output_tokens", "total_tokens"))
    if taken is None or made is None or total is None:
        return None
    return TokenUsage(
        taken, made, total, _read_count(details.get("text_tokens")), _read_count(details.get("image_tokens"))
    )


def find_credits(document: Any) -> Decimal | None:
    """The credits that an ended task took: the charged ones, else the reserved ones."""
    reported = document.get("credits") if isinstance(document, dict) else None
    if not isinstance(reported, dict):
        return None
    amounts = (read_amount(reported.get(name), _MOST_CREDITS) for name in _CREDITS)
    return next((amount for amount in amounts if amount is not None), None)


def find_balance(document: Any) -> Decimal | None:
    """The credits that are left. A text of digits is a number too."""
    return read_amount(document.get("credits"), _MOST_CREDITS) if isinstance(document, dict) else None


def _read_count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _read_text(value: Any) -> str | None:
    # Relays of this family send numbers and nulls as codes too.
    return None if value is None or value == "" else str(value)[:100]
