"""The client of one target: it sends requests with the target's key, reads answers as streams, and names failures.

Each paid POST has a new connection. No other module sends the key, and this one knows no dialect.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Protocol

import orjson

from gateway.catalogue.catalogue import Target
from gateway.jobs.job import FoundImage, TokenUsage, UpstreamAnswer
from gateway.net.compression import EncodingUnreadable, decode
from gateway.net.connection import TimeLimits
from gateway.net.failures import RequestError, describe_error, name_phase
from gateway.net.outside_text import Mask, read_amount, read_retry_after
from gateway.net.transport import Response, Transport, find_header, send
from gateway.pictures.json_stream import BadJson, JsonReader, TooLarge
from gateway.pictures.spool import Blob, Spool, StorageFullError
from gateway.upstreams.answer_forms import find_form, find_title, list_pictures, read_events, read_picture
from gateway.upstreams.error_facts import find_error, find_reason
from gateway.upstreams.verdict import CallFailed, Failure

MAX_TEXT = 4 * 2**20
"""The most bytes of an answer beside its pictures; a normal answer has a few thousand."""

PICTURE_KEYS = frozenset({"b64_json", "b64", "image_base64"})


KEPT = 16 * 1024
"""The most bytes of an answer's start that are kept for the operator when it cannot be read."""

_BOM = b"\xef\xbb\xbf"
_LOOK = 64
"""Bytes of an answer that show its form."""

_NO_MASK = Mask()


@dataclass(frozen=True, slots=True)
class Reply:
    """An upstream's answer of any status. `document` is None if nothing of it can be read.

    `problem` has the reason why the answer, or a part of it beside a document, cannot be read. `mask` removes secrets
    and inner addresses from its texts before they leave the module. `retry_after` is in seconds. `is_page` is True
    for a page of HTML, which a proxy wrote. `leads_to` is the address of a redirect without its query. `start` is the
    answer's first bytes, at most KEPT, and empty for an answer that is a picture.
    """

    status: int
    document: Any
    problem: str = ""
    retry_after: float | None = None
    mask: Mask = field(default=_NO_MASK, compare=False)
    is_page: bool = False
    leads_to: str = ""
    start: bytes = field(default=b"", repr=False, compare=False)

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300


class FormBody(Protocol):
    """A body that is no JSON: its type, its length in bytes, and its bytes from the first one at every call."""

    @property
    def content_type(self) -> str: ...

    @property
    def content_length(self) -> int: ...

    def chunks(self) -> AsyncGenerator[bytes, None]: ...


class UpstreamClient:
    """Sends requests to one target. `paid` must open a new connection for each request, `pooled` may keep them.

    `max_picture` bounds one picture of an answer, in bytes.
    """

    def __init__(self, target: Target, paid: Transport, pooled: Transport, max_picture: int, mask: Mask) -> None:
        self.target = target
        self.mask = mask
        self._paid = paid
        self._pooled = pooled
        self._max_picture = max_picture
        self._headers = {"accept": "*/*", "user-agent": "imagegate"}

    async def pay(self, path: str, body: dict[str, Any] | FormBody, spool: Spool) -> Reply:
        """Send the paid POST once, over a new connection. Returns an answer of any status, also an unreadable one.

        Raises CallFailed if no whole answer came, and if the disk is full. The failure's phase shows how much was sent.
        """
        limits = self.target.config.timeouts
        seconds = TimeLimits(limits.connect, limits.call, limits.call_total)
        return await self._send(self._paid, "POST", path, body, spool, seconds)

    async def ask(self, method: str, path: str, body: FormBody | None, spool: Spool) -> Reply:
        """Send a request that costs nothing: a poll, an upload, a balance. Returns an answer of any status.

        Raises CallFailed if no whole answer came, and if the disk is full.
        """
        limits = self.target.config.timeouts
        seconds = TimeLimits(limits.connect, limits.poll, limits.poll_total)
        return await self._send(self._pooled, method, path, body, spool, seconds)

    async def _send(
        self,
        transport: Transport,
        method: str,
        path: str,
        body: dict[str, Any] | FormBody | None,
        spool: Spool,
        limits: TimeLimits,
    ) -> Reply:
        headers = self._headers | {"authorization": f"Bearer {self.target.present_key}"}
        content: bytes | AsyncGenerator[bytes, None] | None = None
        if isinstance(body, dict):
            headers["content-type"] = "application/json"
            # A copy: orjson's own buffer is four kilobytes larger, and would live until the answer comes.
            content = bytes(memoryview(orjson.dumps(body)))
        elif body is not None:
            headers |= {"content-type": body.content_type, "content-length": str(body.content_length)}
            content = body.chunks()
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
            raise CallFailed(Failure("collect", message="the gateway's disk is full")) from error
        finally:
            if isinstance(content, AsyncGenerator):
                await _close(content)

    async def _read(self, response: Response, spool: Spool) -> Reply:
        reply = partial(
            Reply,
            response.status,
            retry_after=read_retry_after(find_header(response, "retry-after")),
            mask=self.mask,
            leads_to=_find_destination(find_header(response, "location"), self.mask),
        )
        kind = find_header(response, "content-type").partition(";")[0] or "no content type"
        body = response.aiter_raw()
        if (encoding := find_header(response, "content-encoding") or "identity") != "identity":
            body = decode(body, encoding)
        start = _Body(body)
        readers: list[JsonReader] = []
        try:
            head = await start.peek(_LOOK)
            form = "json" if head.lstrip()[:1] == b"{" else find_form(kind, head)
            if form == "page":
                title = find_title(await start.peek(KEPT))
                problem = f"a page of HTML{title and ': '}{title}"
                return reply(None, self.mask.clean(problem, 300), is_page=True, start=bytes(start.head))
            if form == "picture":
                return reply(await read_picture(start.pieces(), spool, self._max_picture))
            if form == "events":
                document = await read_events(start.pieces(), lambda: self._new_reader(spool, readers))
                return reply(document, start=bytes(start.head))
            reader = self._new_reader(spool, readers)
            async for piece in start.pieces():
                await reader.feed(piece)
            document = await reader.finish()
            return reply(document, "; ".join(reader.faults)[:300], start=bytes(start.head))
        except (BadJson, TooLarge, EncodingUnreadable) as error:
            problem = self.mask.clean(f"{kind}, not readable: {error}", 300)
            # Whole pictures of an answer that is damaged elsewhere are paid for.
            whole = [{"b64_json": blob} for reader in readers for blob in reader.pictures]
            document = {"data": whole} if whole and 200 <= response.status < 300 else None
            return reply(document, problem, start=bytes(start.head))
        finally:
            for reader in readers:
                await reader.abort()

    def _new_reader(self, spool: Spool, readers: list[JsonReader]) -> JsonReader:
        reader = JsonReader(
            spool, picture_keys=PICTURE_KEYS, max_rest=MAX_TEXT, max_picture=self._max_picture, is_lenient=True
        )
        readers.append(reader)
        return reader


class _Body:
    """A body whose first bytes can be read ahead. `head` has the first KEPT bytes that are read, without a BOM."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._looked = b""
        self.head = bytearray()

    async def peek(self, size: int) -> bytes:
        """Read ahead, and return the first bytes without a byte order mark: `size` or more, fewer in a short body."""
        while len(self._looked) < size and (piece := await anext(self._body, b"")):
            self._looked = (self._looked + piece).removeprefix(_BOM)
        self.head[:] = self._looked[:KEPT]
        return self._looked

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield all pieces of the body, those first that were read ahead."""
        if self._looked:
            yield self._looked
        self._looked = b""
        async for piece in self._body:
            if len(self.head) < KEPT:
                self.head += piece[: KEPT - len(self.head)]
            yield piece


def _find_destination(location: str, mask: Mask) -> str:
    """The address in a Location header, cleaned and without its query, which may hold a credential."""
    return mask.clean(location.partition("?")[0], 200) if location else ""


async def _close(body: AsyncGenerator[bytes, None]) -> None:
    """Close the file of an interrupted upload."""
    # While a piece is being read, the generator refuses to close: then the cancellation of its writer closes it.
    with suppress(RuntimeError):
        await body.aclose()


def _failure(error: RequestError) -> Failure:
    # Never the library's text: it quotes addresses and bytes.
    return Failure(name_phase(error), message=describe_error(error))


_PICTURES = ("b64_json", "b64", "image_base64", "base64", "url", "image_url", "image")

MOST_PROMPT = 32_000
"""The most characters of a revised prompt; a caller's own prompt has no more."""

_LINK = re.compile(r"https?:|/", re.IGNORECASE)

_CREDITS = ("charged", "settled", "used", "consumed", "reserved")
_MOST_CREDITS = 10**15


def read_answer(reply: Reply) -> UpstreamAnswer:
    """The images, usage and credits of a 2xx answer. Raises CallFailed for any other, an error inside, or no image.

    Its phase is `status` for another status, else `body`.
    """
    fail_on_error(reply)
    images = find_images(reply.document, reply.mask)
    if not images:
        raise CallFailed(fail_without_image(reply, reply.problem or "no image in it"))
    return UpstreamAnswer(tuple(images), find_usage(reply.document), find_credits(reply.document))


def fail_without_image(reply: Reply, message: str) -> Failure:
    """The failure of a 2xx answer without a usable image; it holds the answer's start for the operator."""
    return Failure("body", status=reply.status, message=message, start=reply.start)


def fail_on_error(reply: Reply) -> None:
    """Raise CallFailed for a status other than 2xx (phase `status`), and for an `error` in a 2xx (phase `body`)."""
    document = reply.document if isinstance(reply.document, dict) else {}
    if reply.is_ok and not document.get("error"):
        return
    error = find_error(document, reply.mask)
    if reply.is_ok and error is None:
        return
    code, kind, message, param = error or find_reason(document, reply.mask) or (None, None, reply.problem, None)
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
            is_page=reply.is_page,
            leads_to=reply.leads_to,
        )
    )


def find_images(document: Any, mask: Mask = _NO_MASK) -> list[FoundImage]:
    """The images of the first field that holds any, among the fields in which vendors send images.

    If none does, every decoded picture in other fields, except in those whose names are of inputs or previews.
    """
    if not isinstance(document, dict):
        document = {"data": document}
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
        # A task's own fields may be those of its order.
        None if "task_id" in document else document,
    ):
        if found := list(_read_place(place, mask)):
            return found
    return [FoundImage(blob=blob) for blob in list_pictures(document)]


def _read_place(place: Any, mask: Mask) -> Iterator[FoundImage]:
    if isinstance(place, list):
        for item in place:
            yield from _read_place(item, mask)
    elif isinstance(place, Blob):
        if place.size:
            yield FoundImage(blob=place)
    elif isinstance(place, str):
        if _LINK.match(place):
            yield FoundImage(url=place)
    elif isinstance(place, dict):
        yield from _read_item(place, mask)


def _read_item(item: dict[str, Any], mask: Mask) -> Iterator[FoundImage]:
    prompt = item.get("revised_prompt")
    revised = mask.clean(prompt, MOST_PROMPT) if isinstance(prompt, str) and prompt else None
    for name in _PICTURES:
        if found := list(_read_place(item.get(name), mask)):
            for one in found:
                yield FoundImage(blob=one.blob, url=one.url, revised_prompt=revised)
            return


def find_usage(document: Any) -> TokenUsage | None:
    """The token counts of an answer; None unless input, output and total are whole numbers of 0 or more."""
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
    """The credits of an answer: the first that it reports of `_CREDITS`, reserved ones last; None without any."""
    reported = document.get("credits") if isinstance(document, dict) else None
    if not isinstance(reported, dict):
        return None
    amounts = (read_amount(reported.get(name), _MOST_CREDITS) for name in _CREDITS)
    return next((amount for amount in amounts if amount is not None), None)


def is_failed_task_billed(document: dict[str, Any]) -> bool | None:
    """True if the answer reports that a failed task was billed, False if it reports the contrary, None if neither.

    `refunded: true` and credits of zero mean False, credits above zero True. Reserved credits do not count.
    """
    reported = document.get("credits")
    if document.get("refunded") is True:
        return False
    if not isinstance(reported, dict):
        return None
    # Reserved ones may be given back.
    amounts = [read_amount(reported.get(name), _MOST_CREDITS) for name in _CREDITS if name != "reserved"]
    known = [amount for amount in amounts if amount is not None]
    return any(amount > 0 for amount in known) if known else None


def find_balance(document: Any) -> Decimal | None:
    """The credits that are left, from a number or a text of digits; None if the answer has neither."""
    return read_amount(document.get("credits"), _MOST_CREDITS) if isinstance(document, dict) else None


def _read_count(value: Any) -> int | None:
    # Some encoders write each number as a float.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
