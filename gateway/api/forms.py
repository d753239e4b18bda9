"""The body of an image request, read as it arrives: JSON or multipart; `image`, `image[]`, `image[0]`, data URLs.

Pictures go straight to the spool. Never decides what a field means.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from gateway import errors
from gateway.catalogue.document import Limits
from gateway.jobs.parameter_table import PARAMETERS, PICTURE_NAMES
from gateway.jobs.parameters import is_absent
from gateway.net.outside_text import read_count
from gateway.pictures.json_stream import BadJson, JsonReader, TooLarge, decode_data_url
from gateway.pictures.spool import Blob, BlobWriter, MemoryBudget, Spool, StorageFullError

MAX_TEXT = 4 * 2**20
"""Bytes of a body beside its pictures; the longest prompt has 128 KiB."""

_INDEX = re.compile(r"([^\[\]]+)(\[\d{0,3}\])?")
_MAX_PARTS = 200


@dataclass(frozen=True, slots=True)
class Source:
    """The source of one picture: bytes of the body, or a URL. `name` is the field, for messages."""

    name: str
    blob: Blob | None = None
    url: str | None = None


@dataclass(slots=True)
class Form:
    """The fields and pictures of one body. `is_text`: the fields came as multipart text."""

    fields: dict[str, Any] = field(default_factory=dict)
    images: list[Source] = field(default_factory=list)
    mask: Source | None = None
    is_text: bool = False


async def read_form(request: Request, spool: Spool, limits: Limits, in_flight: MemoryBudget) -> Form:
    """Read the whole body. Raises PublicError: 400 if it is malformed, 413 over a limit, 503 without space."""
    kind, options = parse_options_header(request.headers.get("content-type", "").encode("latin-1", "replace"))
    if request.headers.get("content-encoding", "identity") != "identity":
        raise errors.InvalidValue("A compressed request body is not supported; send it without Content-Encoding.")
    body = _read_body(request, spool, limits, in_flight)
    try:
        if kind == b"multipart/form-data":
            return await _Multipart(spool, limits).read(body, options.get(b"boundary", b""))
        try:
            return await _read_json(body, spool, limits)
        except errors.InvalidValue as error:
            if kind and b"json" not in kind:
                error.message += " Send application/json, or multipart/form-data with its boundary."
            raise
    except ClientDisconnect as error:
        raise errors.RequestTimeout("The request's body ended before it was complete.") from error
    except StorageFullError as error:
        raise errors.StorageFull("The gateway's disk is full.", retry_after=60) from error


async def _read_body(request: Request, spool: Spool, limits: Limits, in_flight: MemoryBudget) -> AsyncIterator[bytes]:
    """The body's bytes, counted against its own limit and against that of all bodies together."""
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


async def _read_json(body: AsyncIterator[bytes], spool: Spool, limits: Limits) -> Form:
    reader = JsonReader(spool, max_rest=MAX_TEXT, max_picture=limits.image_bytes)
    try:
        async for piece in body:
            await reader.feed(piece)
        document = await reader.finish()
    except BadJson as error:
        raise errors.InvalidValue(f"The body is not valid JSON: {_short(error)}.") from error
    except TooLarge as error:
        raise errors.RequestTooLarge(f"The request is too large: {error}.") from error
    finally:
        await reader.abort()
    if not isinstance(document, dict):
        raise errors.InvalidValue("The body must be a JSON object.")
    form = Form()
    taken: dict[str, str] = {}
    for name, value in document.items():
        kind = PICTURE_NAMES.get(name)
        if kind is None:
            form.fields[name] = value
        elif not is_absent(value):
            _check_once(taken, name)
            # The name stays among the fields: generations refuse it.
            form.fields[name] = True
            found = _json_sources(name, value)
            if kind != "mask":
                form.images += found
            elif len(found) > 1:
                raise errors.InvalidValue(f"`{name}` must be one image.", param=name)
            else:
                form.mask = next(iter(found), None)
    _check_count(len(form.images), limits)
    return form


def _check_once(taken: dict[str, str], name: str) -> None:
    """Note a name under which pictures come. Raises InvalidValue when the same ones came under another name."""
    other = taken.setdefault(_place_of(name) or name, name)
    if other != name:
        raise errors.InvalidValue(f"Send `{other}` or `{name}`, not both.", param=name)


def _json_sources(name: str, value: Any) -> list[Source]:
    """The images of one field: one, or a list of them, whose items must not be empty."""
    if isinstance(value, list):
        return [_json_source(f"{name}[{index}]", item) for index, item in enumerate(value)]
    if name == "images":
        raise errors.InvalidValue('`images` must be an array such as [{"image_url": "https://..."}].', param="images")
    return [_json_source(name, value)]


def _json_source(name: str, value: Any) -> Source:
    """One image reference: `{"image_url": ...}`, or the URL itself."""
    if isinstance(value, dict):
        if value.get("file_id") is not None:
            raise errors.InvalidValue(
                "This gateway has no files; instead of `file_id` send `image_url`, an https URL or a base64 data URL.",
                param=f"{name}.file_id",
            )
        name, value = f"{name}.image_url", value.get("image_url")
    if isinstance(value, Blob):
        return Source(name, blob=value)
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        return Source(name, url=value)
    raise errors.InvalidValue(f"`{name}` must be an https URL or a base64 data URL of an image.", param=name)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.images:
        raise errors.InvalidValue(f"An edit takes at most {limits.images} images.", param="image")


@dataclass(slots=True)
class _Part:
    """One part of a multipart body while it arrives."""

    name: str = ""
    is_file: bool = False
    has_file_name: bool = False
    writer: BlobWriter | None = None


class _Multipart:
    """Makes parts of the parser's synchronous callbacks, which are queued and handled after each piece."""

    def __init__(self, spool: Spool, limits: Limits) -> None:
        self._spool = spool
        self._limits = limits
        self._form = Form(is_text=True)
        self._events: list[tuple[str, bytes]] = []
        self._header = [b"", b""]
        self._part: _Part | None = None
        self._text_bytes = 0
        self._parts = 0
        self._spelling: str | None = None
        self._is_ended = False

    async def read(self, body: AsyncIterator[bytes], boundary: bytes) -> Form:
        if not boundary:
            raise errors.InvalidValue("The Content-Type multipart/form-data needs a boundary.")
        try:
            parser = MultipartParser(boundary, self._callbacks())
            async for piece in body:
                parser.write(piece)
                await self._drain()
            parser.finalize()
            await self._drain()
        except (FormParserError, UnicodeDecodeError) as error:
            raise errors.InvalidValue(f"The body is not valid multipart/form-data: {_short(error)}.") from error
        finally:
            if self._part and self._part.writer:
                await self._part.writer.abort()
        if not self._is_ended:
            raise errors.InvalidValue("The multipart body ends before its closing boundary.")
        return self._form

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
            self._parts += 1
            if self._parts > _MAX_PARTS:
                raise errors.InvalidValue(f"A multipart body may have at most {_MAX_PARTS} parts.")
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
        if name.lower() != b"content-disposition" or self._part is None:
            return
        _, options = parse_options_header(value)
        self._part.name = options.get(b"name", b"").decode("utf-8")
        self._part.is_file = b"filename" in options
        self._part.has_file_name = bool(options.get(b"filename"))

    def _begin(self) -> None:
        assert self._part is not None
        name = self._part.name
        if not name:
            raise errors.InvalidValue("A multipart part has no name.")
        if self._is_picture(self._part) and _place_of(name) == "image":
            spelling = re.sub(r"\[\d*\]$", "[]", name)
            if self._spelling not in (None, spelling):
                raise errors.InvalidValue(f"Send `{self._spelling}` or `{spelling}`, not both.", param="image")
            self._spelling = spelling
            _check_count(len(self._form.images) + 1, self._limits)
        self._part.writer = self._spool.writer()

    async def _take(self, data: bytes) -> None:
        assert self._part is not None
        assert self._part.writer is not None
        if self._is_picture(self._part):
            # A data URL is a third longer than its picture.
            if self._part.writer.size + len(data) > self._limits.image_bytes * (1 if self._part.is_file else 1.4):
                raise errors.RequestTooLarge(
                    f"An image may have at most {self._limits.image_bytes:,} bytes.", param=self._part.name
                )
        else:
            self._text_bytes += len(data)
            if self._text_bytes > MAX_TEXT:
                raise errors.RequestTooLarge(f"The fields beside the images may have at most {MAX_TEXT:,} bytes.")
        await self._part.writer.write(data)

    def _is_picture(self, part: _Part) -> bool:
        return _place_of(part.name) is not None

    async def _end_part(self) -> None:
        part = self._part
        assert part is not None
        assert part.writer is not None
        blob = await part.writer.finish()
        self._part = None
        if not self._is_picture(part):
            self._add_text(part.name, (await blob.read()).decode("utf-8"))
            return
        if blob.size == 0 and not part.has_file_name:
            # A browser sends such a part for a file that nobody chose. A chosen one without bytes is refused.
            return
        source = await self._picture_source(part, blob)
        if _place_of(part.name) == "image":
            self._form.images.append(source)
        elif self._form.mask is not None:
            raise errors.InvalidValue("`mask` was given twice.", param="mask")
        else:
            self._form.mask = source
        self._form.fields[part.name.partition("[")[0]] = "given"

    def _add_text(self, name: str, text: str) -> None:
        if name in PARAMETERS and not is_absent(self._form.fields.get(name)) and not is_absent(text):
            raise errors.InvalidValue(f"`{name}` was given twice.", param=name)
        # Of an unknown field the first value stands: its name is all that is reported.
        if is_absent(self._form.fields.get(name)):
            self._form.fields[name] = text

    async def _picture_source(self, part: _Part, blob: Blob) -> Source:
        """A file, or text that is a URL or a data URL."""
        if part.is_file or blob.size == 0:
            return Source(part.name, blob=blob)
        async for head in blob.chunks(4096):
            if blob.size <= 4096 and head.startswith((b"https://", b"http://")):
                return Source(part.name, url=head.decode("utf-8"))
            break
        try:
            decoded = await decode_data_url(blob, self._spool, self._limits.image_bytes)
        except BadJson as error:
            raise errors.InvalidValue(
                f"`{part.name}` is not a valid data URL: {_short(error)}.", param=part.name
            ) from error
        except TooLarge as error:
            raise errors.RequestTooLarge(f"`{part.name}` is too large: {error}.", param=part.name) from error
        return Source(part.name, blob=decoded or blob)


def _place_of(name: str) -> str | None:
    """`mask` or `image` for the name of a picture's part, with or without an index; None for other names."""
    match = _INDEX.fullmatch(name)
    kind = PICTURE_NAMES.get(match[1]) if match else None
    return None if kind is None else "mask" if kind == "mask" else "image"


def _short(error: Exception) -> str:
    """A parser's message without the bytes of the request."""
    text = str(error).partition("\n")[0]
    return "".join(char for char in text if char.isprintable())[:160].rstrip(".")
