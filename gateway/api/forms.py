"""The body of an image request, read into the spool as it arrives: multipart in this module, JSON in `json_form`."""

from __future__ import annotations

import asyncio
import binascii
import codecs
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MAX_BOUNDARY_LENGTH, MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from gateway import errors
from gateway.api.json_form import MAX_TEXT, Form, Source, read_json
from gateway.catalogue.document import Limits
from gateway.jobs.parameter_table import PARAMETERS, PICTURE_NAMES
from gateway.jobs.parameters import is_absent
from gateway.net.outside_text import read_charset, read_count
from gateway.pictures.json_stream import BadBase64, Base64Writer, TooLarge, is_web_address
from gateway.pictures.json_text import HEAD, find_base64
from gateway.pictures.spool import Blob, BlobWriter, MemoryBudget, Spool, StorageFullError

__all__ = ["Form", "Source", "read_form"]

_NAME = re.compile(r"([^\[\]]+)(\[(\d{0,3})\])?")
_MAX_PREAMBLE = 16 * 1024
_SLICE = 64 * 1024
"""Bytes that are parsed before the event loop runs other tasks."""

_PLAIN = ("", "7bit", "8bit", "binary")
"""The transfer encodings (RFC 2045, section 6) that change no byte."""


async def read_form(request: Request, spool: Spool, limits: Limits, in_flight: MemoryBudget) -> Form:
    """Read the whole body. Raises PublicError: 400 for a malformed body, or too many images or parts; 408 for one that
    breaks off; 413 for too many bytes or values; 503 for a full disk, or too many bytes of all uploads together.
    """
    kind, options = parse_options_header(request.headers.get("content-type", "").encode("latin-1", "replace"))
    if request.headers.get("content-encoding", "identity") != "identity":
        raise errors.InvalidValue("A compressed request body is not supported; send it without Content-Encoding.")
    body = _read_body(request, spool, limits, in_flight)
    try:
        if kind == b"multipart/form-data":
            return await _Multipart(spool, limits).read(body, options.get(b"boundary", b""))
        try:
            form = await read_json(
                body, options[b"charset"].decode("latin-1") if b"charset" in options else None, spool, limits
            )
            _check_count(len(form.images), limits)
            return form
        except errors.InvalidValue as error:
            if kind and b"json" not in kind:
                error.message += " Send application/json, or multipart/form-data with its boundary."
            raise
    except ClientDisconnect as error:
        raise errors.RequestTimeout("The request's body ended before it was complete.") from error
    except StorageFullError as error:
        raise errors.StorageFull("The gateway's disk is full.", retry_after=60) from error


async def _read_body(request: Request, spool: Spool, limits: Limits, in_flight: MemoryBudget) -> AsyncIterator[bytes]:
    """Yield the body's bytes, counted against the limits of one body and of all. Raises PublicError, 413 or 503."""
    declared = read_count(request.headers.get("content-length"))
    if declared is not None:
        _check_size(declared, limits)
        _claim(spool, in_flight, declared)
    size = 0
    async for piece in request.stream():
        size += len(piece)
        _check_size(size, limits)
        if declared is None:
            _claim(spool, in_flight, len(piece))
        yield piece


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.body_bytes:
        raise errors.RequestTooLarge(f"A request's body may have at most {limits.body_bytes:,} bytes.")


def _claim(spool: Spool, in_flight: MemoryBudget, size: int) -> None:
    if not spool.claim(in_flight, size):
        raise errors.Overloaded("The gateway is receiving too many bytes of uploads; try again shortly.", retry_after=5)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.images:
        raise errors.InvalidValue(f"An edit takes at most {limits.images} images.", param="image")


@dataclass(slots=True)
class _Part:
    """One part of a multipart body while it arrives. `index` is an image's position; None for other parts."""

    name: str = ""
    is_file: bool = False
    has_file_name: bool = False
    encoding: str = ""
    charset: str | None = None
    index: int | None = None
    writer: BlobWriter | Base64Writer | None = None
    size: int = 0

    @property
    def place(self) -> str:
        """`image` or `mask` if the part's name is one of pictures, else an empty text."""
        found = _NAME.fullmatch(self.name)
        meant = PICTURE_NAMES.get(found[1]) if found else None
        return "" if meant is None else "mask" if meant == "mask" else "image"


class _Multipart:
    """One multipart body. The parser's callbacks are synchronous: they queue events, which `_drain` handles."""

    def __init__(self, spool: Spool, limits: Limits) -> None:
        self._spool = spool
        self._limits = limits
        self._form = Form(is_text=True)
        self._events: list[tuple[str, bytes]] = []
        self._header = [b"", b""]
        self._part: _Part | None = None
        self._images: dict[int, Source] = {}
        self._charset = "utf-8"
        self._text_bytes = 0
        self._boundaries = 0
        self._spelling: str | None = None
        self._is_ended = False

    async def read(self, body: AsyncIterator[bytes], boundary: bytes) -> Form:
        if not 0 < len(boundary) <= MAX_BOUNDARY_LENGTH:
            raise errors.InvalidValue(
                f"The Content-Type multipart/form-data needs a boundary of 1 to {MAX_BOUNDARY_LENGTH} characters."
            )
        try:
            parser = MultipartParser(boundary, self._callbacks())
            async for piece in _skip_preamble(body, b"--" + boundary):
                await self._parse(parser, piece, b"\r\n--" + boundary)
            parser.finalize()
            await self._drain()
        except FormParserError as error:
            raise errors.InvalidValue(f"The body is not valid multipart/form-data: {_explain(error)}.") from error
        finally:
            if self._part and self._part.writer:
                await self._part.writer.abort()
        if not self._is_ended:
            raise errors.InvalidValue("The multipart body ends before its closing boundary.")
        self._form.images = [self._images[index] for index in sorted(self._images)]
        return self._form

    async def _parse(self, parser: MultipartParser, piece: bytes, delimiter: bytes) -> None:
        for start in range(0, len(piece), _SLICE):
            part = piece[start : start + _SLICE]
            # The parser is slow where a boundary stands inside a part, so the body's own bytes are counted too.
            self._boundaries += part.count(delimiter)
            if self._boundaries > self._limits.form_parts:
                raise errors.InvalidValue(f"A multipart body may have at most {self._limits.form_parts} parts.")
            parser.write(part)
            await self._drain()
            if len(part) == _SLICE:
                await asyncio.sleep(0)

    def _callbacks(self) -> Any:
        def on_data(kind: str) -> Any:
            def note(data: bytes, start: int, end: int) -> None:
                self._events.append((kind, data[start:end]))

            return note

        def on_mark(kind: str) -> Any:
            return lambda: self._events.append((kind, b""))

        return {
            "on_part_begin": on_mark("begin"),
            "on_header_field": on_data("field"),
            "on_header_value": on_data("value"),
            "on_header_end": on_mark("header"),
            "on_headers_finished": on_mark("headers"),
            "on_part_data": on_data("data"),
            "on_part_end": on_mark("part"),
            "on_end": on_mark("end"),
        }

    async def _drain(self) -> None:
        events, self._events = self._events, list[tuple[str, bytes]]()
        for kind, data in events:
            if kind == "data":
                await self._take(data)
            elif kind == "part":
                await self._end_part()
            else:
                self._note(kind, data)

    def _note(self, kind: str, data: bytes) -> None:
        if kind == "begin":
            self._part = _Part()
        elif kind in ("field", "value"):
            self._header[kind == "value"] += data
        elif kind == "header":
            self._read_header()
        elif kind == "headers":
            self._begin()
        elif kind == "end":
            self._is_ended = True

    def _read_header(self) -> None:
        name, value = self._header
        self._header = [b"", b""]
        assert self._part is not None
        text, options = parse_options_header(value)
        if name.lower() == b"content-disposition":
            self._part.name = _decode(options.get(b"name", b""), "utf-8", "A part's name")
            self._part.is_file = b"filename" in options
            self._part.has_file_name = bool(options.get(b"filename"))
        elif name.lower() == b"content-transfer-encoding":
            self._part.encoding = text.decode("latin-1").strip().lower()
        elif name.lower() == b"content-type" and b"charset" in options:
            self._part.charset = options[b"charset"].decode("latin-1")

    def _begin(self) -> None:
        part = self._part
        assert part is not None
        if not part.name:
            raise errors.InvalidValue("A multipart part has no name.")
        if part.encoding not in (*_PLAIN, "base64", *(() if part.place else ("quoted-printable",))):
            raise errors.InvalidValue(
                f"`{part.name[:100]}` has the Content-Transfer-Encoding {part.encoding!r:.40}, which is not read here; "
                "send its bytes as they are, without that header.",
                param=part.name[:100],
            )
        if part.place == "image":
            part.index = self._take_index(part.name)
            _check_count(len(self._images) + 1, self._limits)
        part.writer = self._spool.writer()
        if part.encoding == "base64":
            part.writer = Base64Writer(part.writer, self._limits.image_bytes if part.place else MAX_TEXT)

    def _take_index(self, name: str) -> int:
        """An image's position: the number in brackets, else one above the highest. Raises InvalidValue if taken."""
        found = _NAME.fullmatch(name)
        assert found is not None
        spelling = found[1] + ("[]" if found[2] else "")
        if self._spelling not in (None, spelling):
            raise errors.InvalidValue(f"Send `{self._spelling}` or `{spelling}`, not both.", param="image")
        self._spelling = spelling
        index = int(found[3]) if found[3] else max(self._images, default=-1) + 1
        if index in self._images:
            raise errors.InvalidValue(f"`{name}` was given twice.", param=name)
        return index

    async def _take(self, data: bytes) -> None:
        part = self._part
        assert part is not None
        assert part.writer is not None
        part.size += len(data)
        if part.place:
            # A data URL, and base64, are a third longer than their picture.
            is_longer = not part.is_file or part.encoding == "base64"
            if part.size > self._limits.image_bytes * (1.4 if is_longer else 1):
                raise errors.RequestTooLarge(
                    f"An image may have at most {self._limits.image_bytes:,} bytes.", param=part.name
                )
        elif part.is_file:
            raise errors.InvalidValue(
                f"`{part.name[:100]}` is a file, and no parameter of that name takes one. "
                "Send images as `image`, or as `image[]` where there are several, and a mask as `mask`.",
                param=part.name[:100],
            )
        else:
            self._text_bytes += len(data)
            if self._text_bytes > MAX_TEXT:
                raise errors.RequestTooLarge(f"The fields beside the images may have at most {MAX_TEXT:,} bytes.")
        with _naming(part.name):
            await part.writer.write(data)

    async def _end_part(self) -> None:
        part = self._part
        assert part is not None
        assert part.writer is not None
        with _naming(part.name):
            blob = await part.writer.finish()
        self._part = None
        if not part.place:
            if not part.is_file:
                self._add_text(part, await blob.read())
            return
        if blob.size == 0 and not part.has_file_name:
            # A browser sends such a part for a file that nobody chose. A chosen one without bytes is refused.
            return
        source = await self._picture_source(part, blob)
        if part.index is not None:
            self._images[part.index] = source
        elif self._form.mask is not None:
            raise errors.InvalidValue("`mask` was given twice.", param="mask")
        else:
            self._form.mask = source
        self._form.fields[part.name.partition("[")[0]] = "given"

    def _add_text(self, part: _Part, raw: bytes) -> None:
        name = part.name
        if part.encoding == "quoted-printable":
            raw = binascii.a2b_qp(raw)
        codec = self._charset if part.charset is None else read_charset(part.charset)
        if codec is None:
            raise errors.InvalidValue(
                f"`{name[:100]}` has the charset {part.charset!r:.40}, which is not known here; send it in UTF-8.",
                param=name[:100],
            )
        text = _decode(raw, codec, f"`{name[:100]}`", param=name[:100]).removeprefix("\ufeff")
        if name == "_charset_":
            # RFC 7578, section 4.6: the charset of the parts that declare none.
            self._charset = read_charset(text) or "utf-8"
            return
        if name in PARAMETERS and not is_absent(self._form.fields.get(name)) and not is_absent(text):
            raise errors.InvalidValue(f"`{name}` was given twice.", param=name)
        # Of an unknown field the first value stands: its name is all that is reported.
        if is_absent(self._form.fields.get(name)):
            self._form.fields[name] = text

    async def _picture_source(self, part: _Part, blob: Blob) -> Source:
        """The source of a picture: a file's bytes, a web address, a decoded data URL, or any other text as bytes."""
        if part.is_file or blob.size == 0:
            return Source(part.name, blob=blob)
        async for head in blob.chunks(HEAD):
            if blob.size <= HEAD and is_web_address(text := head.decode("utf-8", "replace")):
                return Source(part.name, url=text.strip())
            break
        with _naming(part.name):
            decoded = await decode_data_url(blob, self._spool, self._limits.image_bytes)
        return Source(part.name, blob=decoded or blob)


async def decode_data_url(blob: Blob, spool: Spool, limit: int) -> Blob | None:
    """Decode a blob's base64 data URL to a blob; None for other text. Raises BadBase64, TooLarge, StorageFullError."""
    writer: Base64Writer | None = None
    async for piece in blob.chunks():
        if writer is None:
            begin = find_base64(piece[:HEAD].decode("latin-1"))
            if begin is None:
                return None
            writer = Base64Writer(spool.writer(), limit)
            piece = piece[begin:]
        await writer.write(piece)
        await asyncio.sleep(0)
    return await writer.finish() if writer else None


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Raise BadBase64 as InvalidValue, and TooLarge as RequestTooLarge, with the name of the field."""
    try:
        yield
    except BadBase64 as error:
        raise errors.InvalidValue(f"`{name[:100]}` is not valid base64: {error}.", param=name[:100]) from error
    except TooLarge as error:
        raise errors.RequestTooLarge(f"`{name[:100]}` is too large: {error}.", param=name[:100]) from error


async def _skip_preamble(body: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[bytes]:
    """Yield the body from its first boundary on (RFC 2046, 5.1.1, allows text before). Raises InvalidValue."""
    start = b"\n"
    is_skipped = False
    async for piece in body:
        if is_skipped:
            yield piece
            continue
        start += piece
        if start.startswith(b"\n" + codecs.BOM_UTF8):
            start = b"\n" + start[1 + len(codecs.BOM_UTF8) :]
        at = start.find(b"\n" + boundary)
        if at >= 0:
            is_skipped = True
            yield start[at + 1 :]
        elif len(start) > _MAX_PREAMBLE:
            break
    if not is_skipped:
        raise errors.InvalidValue("The multipart body does not begin with the boundary that its Content-Type names.")


def _decode(raw: bytes, codec: str, what: str, param: str | None = None) -> str:
    try:
        return raw.decode(codec)
    except UnicodeError as error:
        raise errors.InvalidValue(
            f"{what} is not valid {codec.replace('_', '-').upper()}; send it in UTF-8, or name its charset in the "
            "Content-Type of the part.",
            param=param,
        ) from error


def _explain(error: FormParserError) -> str:
    """The parser's error in the gateway's own words, since the parser's message quotes the body."""
    if "eader" in str(error):
        return "the headers of a part are malformed, too many or too long"
    return "a boundary is not followed by a line break or by the end"
