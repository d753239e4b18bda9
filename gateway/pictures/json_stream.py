"""JSON documents that are read as their bytes arrive: pictures are decoded into a Spool, the rest is parsed.

A picture in an object or a list is decoded piece by piece if its text has 4,096 bytes or more. A shorter one is parsed.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import pybase64
from pydantic_core import from_json

from gateway.ids import draw_letters
from gateway.pictures.json_text import HEAD, explain, find_base64, parse_leniently, unescape, unquote
from gateway.pictures.spool import Blob, BlobWriter, Spool

_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
"""A string's bytes up to its closing quote, the end of the bytes or an incomplete escape."""

_SLICE = 64 * 1024
"""Bytes after which the reader lets other tasks run. Each of its steps counts as 128 bytes more."""

MAX_PICTURES = 64
"""The most pictures that are read from one document. Each takes 400 bytes of memory beside its own."""

MAX_VALUES = 10_000
"""The default limit on values and names in one document, roughly counted. Tiny ones take 30 times their text."""

_SPACE = b" \t\r\n"
_URLSAFE = bytes.maketrans(b"-_", b"+/")
_BOM = b"\xef\xbb\xbf"

_PICTURE = re.compile(r"(?:[/_]9j[/_]|iVBORw0KGgo|UklGR)[A-Za-z0-9+/_=\s-]{24}")
"""The start of a JPEG, PNG or WebP in base64, and 24 more such characters: paths begin with the first of them too."""


class BadJson(Exception):
    """The document cannot be read as JSON; the message completes the sentence "the document is not valid JSON: …"."""


class BadBase64(Exception):
    """The text is not valid base64; the message has the fault."""


class TooLarge(Exception):
    """A picture, the text beside the pictures, or the number of values is over `limit`. `what` names the part."""

    def __init__(self, what: str, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"{what} is over {limit:,} {unit}")
        self.what = what
        self.limit = limit


@dataclass(frozen=True, slots=True)
class PictureFault:
    """The reason why a picture cannot be read. A JsonReader that is not lenient returns it in place of the picture."""

    reason: str
    is_too_large: bool = False


_TOO_MANY = PictureFault(f"there are more than {MAX_PICTURES} pictures in one document", is_too_large=True)


class Base64Writer:
    """Decodes base64 text into a BlobWriter. Allows white space, URL-safe letters, percent escapes, no padding."""

    def __init__(self, writer: BlobWriter, limit: int) -> None:
        self._writer = writer
        self._limit = limit
        self._rest = b""
        self._is_padded = False

    async def write(self, text: bytes) -> None:
        """Decode text and append its bytes. Raises BadBase64, TooLarge over the limit on them, StorageFullError."""
        text = self._rest + text
        whole, cut = len(text) - len(text) % 4, b""
        data = _decode_plain(text, whole)
        if data is None:
            text, cut = unquote(text)
            text = text.translate(_URLSAFE, _SPACE)
            whole = len(text) - len(text) % 4
            data = _decode(text[:whole])
        self._rest = text[whole:] + cut
        await self._put(data, is_padded=text.endswith(b"=", 0, whole))

    async def finish(self) -> Blob:
        rest = self._rest.translate(_URLSAFE, _SPACE)
        if len(rest) == 1:
            raise BadBase64("the base64 text ends in the middle of a byte")
        if rest:  # Some relays omit the padding.
            await self._put(_decode(rest + b"=" * (4 - len(rest))), is_padded=True)
        return await self._writer.finish()

    async def abort(self) -> None:
        await self._writer.abort()

    async def _put(self, data: bytes, *, is_padded: bool) -> None:
        if not data:
            return
        if self._is_padded:
            raise BadBase64("the base64 text goes on after its padding")
        self._is_padded = is_padded
        if self._writer.size + len(data) > self._limit:
            raise TooLarge("a picture", self._limit)
        await self._writer.write(data)


def _decode(text: bytes | memoryview) -> bytes:
    """Decode padded base64 text. Raises BadBase64."""
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise BadBase64("the text is not base64") from error


def _decode_plain(text: bytes, whole: int) -> bytes | None:
    """The bytes of the first `whole` characters, read as plain base64; None if they are not plain base64.

    Nearly every picture is plain base64, and this attempt costs a tenth of a translation of the text.
    """
    with suppress(BadBase64), memoryview(text)[:whole] as groups:
        return _decode(groups)
    return None


def is_web_address(text: str) -> bool:
    """True for text that begins with `http://` or `https://`, in small or capital letters, also after white space."""
    return text[:HEAD].lstrip()[:8].lower().startswith(("http://", "https://"))


class JsonReader:
    """Takes a document in pieces; `finish` returns the parsed value with a Blob in place of each picture.

    A picture is a data URL in base64, or a text under a key in `picture_keys` that is no web address. A PictureFault
    replaces a picture that is not base64 or over a limit. `max_picture` is the most bytes of one decoded picture,
    `max_rest` of the text beside them. With `is_lenient` a text that begins like the base64 of a PNG, JPEG or WebP is a
    picture too, None replaces a picture that cannot be read, and invalid characters and numbers are replaced.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        picture_keys: frozenset[str] = frozenset(),
        max_rest: int,
        max_picture: int,
        max_values: int = MAX_VALUES,
        is_lenient: bool = False,
    ) -> None:
        self._spool = spool
        self._picture_keys = picture_keys
        self._max_rest = max_rest
        self._max_picture = max_picture
        self._max_values = max_values
        self._is_lenient = is_lenient
        self._mark = ""
        self._start: bytes | None = b"" if min(max_rest, max_values) >= 2 * HEAD else None
        self._rest = bytearray()
        self._values = 0
        self._found: list[Blob | PictureFault] = []
        self._state: Literal["outside", "short", "long", "picture", "skipped"] = "outside"
        self._text = bytearray()
        self._key = b""
        self._last = b""
        self._is_escape = False
        self._cut = b""
        self._cost = 0
        self._writer: Base64Writer | None = None

    @property
    def pictures(self) -> list[Blob]:
        """The whole pictures so far, also of a document that breaks off. `finish` adds those with a short text."""
        return [one for one in self._found if isinstance(one, Blob)]

    @property
    def faults(self) -> list[str]:
        return [one.reason for one in self._found if isinstance(one, PictureFault)]

    async def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises TooLarge for too much text or too many values, and StorageFullError."""
        if self._start is not None:
            # A document with fewer bytes than HEAD has no long string and few values: it is parsed as it is.
            piece = self._start + piece
            self._start, piece = (piece, b"") if len(piece) < HEAD else (None, piece)
        # The decoding of a picture's text costs so little that a piece of it is taken as it came.
        step = max(_SLICE, len(piece)) if self._state == "picture" else _SLICE
        for start in range(0, len(piece), step):
            await self._feed(piece[start : start + step])

    async def finish(self) -> Any:
        """Parse the whole document. Raises BadJson if it is incomplete or invalid, and StorageFullError."""
        if self._start is not None:
            try:
                document = _parse_strictly(self._start)
            except ValueError:
                # The walk over its strings shows the fault.
                await self._feed(self._start)
            else:
                return await self._restore(document)
        if self._state != "outside":
            raise BadJson("it ends inside a string")
        return await self._restore(self._parse())

    async def abort(self) -> None:
        if self._writer is not None:
            await self._writer.abort()

    async def _feed(self, piece: bytes) -> None:
        at = 0
        while at < len(piece):
            await self._pause(128)
            if self._state == "outside":
                at = self._read_outside(piece, at)
                continue
            end, is_closed = self._find_end(piece, at)
            await self._take(piece[at:end], is_closed=is_closed)
            at = end + is_closed
        if len(self._rest) > self._max_rest:
            raise TooLarge("the JSON beside its pictures", self._max_rest)
        await self._pause(len(piece))

    async def _pause(self, cost: int) -> None:
        self._cost += cost
        if self._cost >= _SLICE:
            self._cost = 0
            await asyncio.sleep(0)

    def _read_outside(self, piece: bytes, at: int) -> int:
        """Take the text up to the next string or the piece's end, and return the offset behind it. Raises TooLarge."""
        quote = piece.find(b'"', at)
        between = piece[at : quote if quote >= 0 else len(piece)]
        self._rest += between
        self._last = between.rstrip(_SPACE)[-1:] or self._last
        self._values += sum(map(between.count, (b",", b"[", b"{"))) + len(between) // 64 + (quote >= 0)
        if self._values > self._max_values:
            raise TooLarge("the JSON", self._max_values, "values and names")
        if quote < 0:
            return len(piece)
        self._state = "short"
        return quote + 1

    def _find_end(self, piece: bytes, at: int) -> tuple[int, bool]:
        """Return the end of a string's text in this piece, and True where its quote follows. Notes a cut escape."""
        if not self._is_escape:
            # `find` is 200 times as fast as the pattern.
            quote = piece.find(b'"', at)
            end = quote if quote >= 0 else len(piece)
            if piece.find(b"\\", at, end) < 0:
                return end, quote >= 0
        found = _TEXT.match(piece, at + self._is_escape)
        end = found.end() if found else len(piece)
        self._is_escape = piece[end : end + 1] == b"\\"
        return (len(piece), False) if self._is_escape else (end, end < len(piece))

    async def _take(self, text: bytes, *, is_closed: bool) -> None:
        """Take a part of a string, without its quotes."""
        if self._state == "short":
            self._text += text
            if len(self._text) >= HEAD:
                await self._judge(is_closed=is_closed)
            elif is_closed:
                self._keep(bytes(self._text), is_closed=True)
        elif self._state == "long":
            self._rest += text + b'"' * is_closed
        elif self._state == "picture":
            await self._write(text, is_closed=is_closed)
        if is_closed:
            self._state = "outside"
            self._last = b'"'

    def _keep(self, text: bytes, *, is_closed: bool) -> None:
        self._rest += b'"' + text + b'"' * is_closed
        self._key = text
        self._text.clear()

    async def _judge(self, *, is_closed: bool) -> None:
        """Decide by the start of a long string if it is a picture, and begin to decode a picture."""
        raw, begin = bytes(self._text), None
        head, length = _read_head(raw)
        if self._last in (b":", b"[", b","):
            key = _read_head(self._key)[0] if self._last == b":" else ""
            begin = self._find_picture(head, key)
        if begin is None:
            self._state = "long"
            self._keep(raw, is_closed=is_closed)
            return
        self._text.clear()
        # A caller cannot guess the mark, so none of its strings can stand for a picture.
        self._mark = self._mark or f"\x00{draw_letters()}:"
        self._rest += f'"\\u0000{self._mark[1:]}{len(self._found)}"'.encode()
        self._state = "picture"
        self._open_picture()
        await self._write(head[begin:].encode(errors="replace"), is_closed=False)
        if self._state == "picture":
            await self._write(raw[length:], is_closed=is_closed)

    def _find_picture(self, text: str, key: str) -> int | None:
        """The offset of the base64 in a string that begins with this text; None if it is no picture."""
        start = text[:HEAD].lstrip()[:8].lower()
        begin = find_base64(text) if start.startswith("data:") else None
        if begin is not None or start.startswith(("http://", "https://")) or (self._is_lenient and text[:2] == "//"):
            return begin
        is_picture = key in self._picture_keys or (self._is_lenient and _PICTURE.match(text))
        return 0 if is_picture else None

    def _open_picture(self) -> None:
        self._found.append(PictureFault("it is not complete"))
        self._cut = b""
        limit = self._max_picture if len(self._found) <= MAX_PICTURES else -1
        self._writer = Base64Writer(self._spool.writer(), limit)

    async def _write(self, text: bytes, *, is_closed: bool) -> None:
        text = self._cut + text
        if b"\\" in text:
            text, self._cut = unescape(text)
        await self._decode(text + self._cut if is_closed else text, is_last=is_closed)

    async def _decode(self, text: bytes, *, is_last: bool) -> None:
        """Decode a part of a picture's text. If it cannot be read, note the fault and skip the rest of the picture."""
        assert self._writer is not None
        try:
            await self._writer.write(text)
            if is_last:
                self._found[-1] = await self._writer.finish()
                self._writer = None
        except (BadBase64, TooLarge) as error:
            await self._writer.abort()
            self._writer = None
            self._state = "skipped"
            fault = PictureFault(str(error), is_too_large=isinstance(error, TooLarge))
            self._found[-1] = _TOO_MANY if len(self._found) > MAX_PICTURES else fault

    def _parse(self) -> Any:
        data = bytes(self._rest)
        try:
            return _parse_strictly(data)
        except ValueError as error:
            if self._is_lenient:
                with suppress(ValueError, RecursionError):
                    return parse_leniently(data.removeprefix(_BOM))
            raise BadJson(explain(str(error), has_pictures=bool(self._found))) from error

    async def _restore(self, document: Any) -> Any:
        """Put the pictures in their places, in the order of the document, and return it."""
        whole = {"": document}
        walks: list[tuple[Any, Iterator[tuple[Any, Any]]]] = [(whole, iter(whole.items()))]
        while walks:
            holder, items = walks[-1]
            for place, value in items:
                await self._pause(128 + len(value) if isinstance(value, str) else 128)
                if isinstance(value, str):
                    holder[place] = await self._restore_text(value, place if isinstance(place, str) else "")
                elif isinstance(value, list):
                    walks.append((value, enumerate(value)))
                    break
                elif isinstance(value, dict):
                    if self._mark and any(name.startswith(self._mark) for name in value):
                        raise BadJson("a name in it is a picture")
                    walks.append((value, iter(value.items())))
                    break
            else:
                walks.pop()
        return whole[""]

    async def _restore_text(self, text: str, key: str) -> Any:
        if self._mark and text.startswith(self._mark):
            return self._show(self._found[int(text[len(self._mark) :])])
        begin = self._find_picture(text, key)
        if begin is None:
            # A half of a character, which UTF-8 cannot hold, costs only itself.
            return text if text.isascii() else text.encode(errors="replace").decode()
        if len(self._found) >= MAX_PICTURES:
            return self._show(_TOO_MANY)
        self._open_picture()
        await self._decode(text[begin:].encode(errors="replace"), is_last=True)
        return self._show(self._found[-1])

    def _show(self, found: Blob | PictureFault) -> Blob | PictureFault | None:
        return None if self._is_lenient and isinstance(found, PictureFault) else found


def _parse_strictly(data: bytes) -> Any:
    """The value of a document in UTF-8. Raises ValueError."""
    return from_json(data.removeprefix(_BOM), allow_inf_nan=False)


def _read_head(raw: bytes) -> tuple[str, int]:
    """The first characters of a string's raw text, up to HEAD bytes, and their bytes; "" and 0 if it is unreadable."""
    # The longest escape has 6 bytes.
    for length in range(min(len(raw), HEAD), max(0, min(len(raw), HEAD) - 7), -1):
        with suppress(ValueError):
            return json.loads(b'"' + raw[:length] + b'"', strict=False), length
    return "", 0
