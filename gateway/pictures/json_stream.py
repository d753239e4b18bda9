"""JSON documents read as their bytes arrive: base64 pictures go decoded to a Spool, and the rest is parsed.

No picture is ever held whole as a JSON string. Never decides what a field means.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from typing import Any

import pybase64
from pydantic_core import from_json

from gateway.pictures.spool import Blob, BlobWriter, Spool

_SPECIAL = re.compile(rb'["\\]')
_KEY = re.compile(rb'"((?:[^"\\]|\\.){0,64})"\s*:\s*$', re.DOTALL)
_DATA_URL = re.compile(rb"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
_PEEK = 160
"""Bytes of a string that show whether it is a picture; the head of a data URL is shorter."""

MAX_PICTURES = 64
"""Pictures in one document. Each costs 400 bytes more than its own: a few megabytes of tiny ones would cost 50."""

_SPACE = b" \t\r\n"
_ESCAPES = {rb"\/": b"/", rb"\n": b"", rb"\r": b"", rb"\t": b"", rb"\b": b"", rb"\f": b""}
_UNICODE = re.compile(rb"\\u00([0-7][0-9a-fA-F])")
_URLSAFE = bytes.maketrans(b"-_", b"+/")


class BadJson(Exception):
    """The bytes are not valid JSON, or a picture is not valid base64; the message says where."""


class TooLarge(Exception):
    """A picture, the number of pictures, or the rest of the document is over its limit; `what` names it."""

    def __init__(self, what: str, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"{what} is over {limit} {unit}")
        self.what = what
        self.limit = limit


class Base64Writer:
    """Decodes base64 text as it arrives, white space and the URL-safe alphabet allowed, into a BlobWriter."""

    def __init__(self, writer: BlobWriter, limit: int) -> None:
        self._writer = writer
        self._limit = limit
        self._rest = b""
        self._is_padded = False

    async def write(self, text: bytes) -> None:
        """Raises BadJson on other characters, TooLarge when the picture passes its limit."""
        text = self._rest + text
        whole = len(text) - len(text) % 4
        data = _decode_plain(text, whole)
        if data is None:
            text = text.translate(_URLSAFE, _SPACE)
            whole = len(text) - len(text) % 4
            data = _decode(text[:whole])
        self._rest = text[whole:]
        await self._put(data, is_padded=text.endswith(b"=", 0, whole))

    async def finish(self) -> Blob:
        rest = self._rest.translate(_URLSAFE, _SPACE)
        # Some relays omit the padding; one single character is never right.
        if len(rest) == 1:
            raise BadJson("the base64 text ends in the middle of a byte")
        if rest:
            await self._put(_decode(rest + b"=" * (4 - len(rest))), is_padded=True)
        return await self._writer.finish()

    async def abort(self) -> None:
        await self._writer.abort()

    async def _put(self, data: bytes, *, is_padded: bool) -> None:
        if not data:
            return
        if self._is_padded:
            raise BadJson("the base64 text goes on after its padding")
        self._is_padded = is_padded
        if self._writer.size + len(data) > self._limit:
            raise TooLarge("a picture", self._limit)
        await self._writer.write(data)


def _decode(text: bytes | memoryview) -> bytes:
    """Raises BadJson."""
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise BadJson("the text is not base64") from error


def _decode_plain(text: bytes, whole: int) -> bytes | None:
    """The bytes of the first `whole` characters of plain base64; None if they hold other characters.

    Nearly every picture is plain base64, and this attempt costs a tenth of a translation of the text.
    """
    with suppress(BadJson), memoryview(text)[:whole] as groups:
        return _decode(groups)
    return None


async def decode_data_url(blob: Blob, spool: Spool, limit: int) -> Blob | None:
    """The bytes of a base64 data URL in a blob; None if it is not one. Raises BadJson, TooLarge."""
    writer: Base64Writer | None = None
    async for piece in blob.chunks():
        if writer is None:
            head = _DATA_URL.match(piece[:_PEEK])
            if head is None:
                return None
            writer = Base64Writer(spool.writer(), limit)
            piece = piece[head.end() :]
        await writer.write(piece)
    return await writer.finish() if writer else None


class JsonReader:
    """Takes a document in pieces; `finish` returns the parsed value with a Blob in place of each picture.

    A picture is the string value of a key in `picture_keys`, or any string that begins as a base64 data URL.
    `max_picture` bounds one decoded picture, `max_rest` everything else, both in bytes.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        picture_keys: frozenset[str] = frozenset(),
        max_rest: int,
        max_picture: int,
    ) -> None:
        self._spool = spool
        self._picture_keys = {key.encode() for key in picture_keys}
        self._max_rest = max_rest
        self._max_picture = max_picture
        # A caller cannot guess the mark, so none of its strings can stand for a picture.
        self._mark = f"\x00{secrets.token_hex(8)}:"
        self._rest = bytearray()
        self._blobs: list[Blob] = []
        self._step = self._outside
        self._peeked = bytearray()
        self._last = b""
        self._escape = b""
        self._writer: Base64Writer | None = None

    async def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises BadJson or TooLarge as early as possible."""
        start = 0
        while start < len(piece):
            start = await self._step(piece, start)
            if len(self._rest) > self._max_rest:
                raise TooLarge("the JSON beside its pictures", self._max_rest)

    async def finish(self) -> Any:
        """The whole document. Raises BadJson if it is incomplete or invalid; NaN and Infinity are not JSON."""
        if self._writer is not None:
            raise BadJson("the document ends inside a picture")
        try:
            document = from_json(bytes(self._rest + self._peeked), allow_inf_nan=False)
        except ValueError as error:
            raise BadJson(str(error)) from error
        return self._restore(document) if self._blobs else document

    async def abort(self) -> None:
        """Discard an incomplete picture."""
        if self._writer is not None:
            await self._writer.abort()

    async def _outside(self, piece: bytes, start: int) -> int:
        quote = piece.find(b'"', start)
        between = piece[start : quote if quote >= 0 else len(piece)]
        self._rest += between
        self._last = between.rstrip(_SPACE)[-1:] or self._last
        if quote < 0:
            return len(piece)
        self._peeked = bytearray(b'"')
        self._step = self._peek
        return quote + 1

    async def _peek(self, piece: bytes, start: int) -> int:
        """Collect a string's first bytes until it ends or is known to be a picture or not."""
        stop = min(len(piece), start + _PEEK - len(self._peeked))
        end = self._string_end(piece, start, stop)
        self._peeked += piece[start : end if end >= 0 else stop]
        if end < 0 and len(self._peeked) < _PEEK:
            return stop
        begin = self._picture_begins()
        peeked, self._peeked = bytes(self._peeked), bytearray()
        if begin:
            await self._begin_picture(peeked[begin:])
        else:
            self._rest += peeked
            self._last = b'"'
            self._step = self._outside if end >= 0 else self._inside
        return end if end >= 0 else stop

    def _picture_begins(self) -> int:
        """The offset of the base64 in the peeked string; 0 if the string is not a picture."""
        if self._last not in (b":", b"[", b","):
            return 0
        if head := _DATA_URL.match(self._peeked, 1):
            return head.end()
        if self._last != b":" or not self._picture_keys:
            return 0
        key = _KEY.search(bytes(self._rest[-160:]))
        return 1 if key is not None and key[1] in self._picture_keys else 0

    async def _inside(self, piece: bytes, start: int) -> int:
        end = self._string_end(piece, start, len(piece))
        self._rest += piece[start : end if end >= 0 else len(piece)]
        if end < 0:
            return len(piece)
        self._step = self._outside
        return end

    def _string_end(self, piece: bytes, start: int, stop: int) -> int:
        """The index after the closing quote, or -1; remembers a backslash at the end of the piece."""
        while start < stop:
            if self._escape:
                self._escape = b""
                start += 1
                continue
            special = _SPECIAL.search(piece, start, stop)
            if special is None:
                return -1
            start = special.end()
            if special[0] == b'"':
                return start
            self._escape = b"\\"
        return -1

    async def _begin_picture(self, peeked: bytes) -> None:
        if len(self._blobs) == MAX_PICTURES:
            raise TooLarge("the number of pictures", MAX_PICTURES, "in one document")
        self._escape = b""
        self._writer = Base64Writer(self._spool.writer(), self._max_picture)
        self._step = self._picture
        start = 0
        while start < len(peeked):
            start = await self._picture(peeked, start)

    async def _picture(self, piece: bytes, start: int) -> int:
        assert self._writer is not None
        # Base64 has no escaped quotes, so the first quote ends the picture. `find` is 200 times as fast as a pattern
        # for quotes and backslashes.
        quote = piece.find(b'"', start)
        end = quote if quote >= 0 else len(piece)
        text, self._escape = self._escape + piece[start:end], b""
        if b"\\" in text:
            text, self._escape = _unescape(text)
        await self._writer.write(text)
        if quote < 0:
            return end
        if self._escape:
            raise BadJson("a picture's text ends inside an escape")
        self._blobs.append(await self._writer.finish())
        self._writer = None
        self._rest += f'"\\u0000{self._mark[1:]}{len(self._blobs) - 1}"'.encode()
        self._last = b'"'
        self._step = self._outside
        return end + 1

    def _restore(self, value: Any) -> Any:
        if isinstance(value, str) and value.startswith(self._mark):
            return self._blobs[int(value[len(self._mark) :])]
        if isinstance(value, list):
            return [self._restore(item) for item in value]
        if isinstance(value, dict):
            return {key: self._restore(item) for key, item in value.items()}
        return value


def _unescape(text: bytes) -> tuple[bytes, bytes]:
    """The text with JSON's escapes replaced, and an incomplete escape at its end. Raises BadJson."""
    last = text.rfind(b"\\", -5)
    tail = text[last:] if last >= 0 else b""
    is_cut = len(tail) == 1 or (len(tail) < 6 and tail[1:2] == b"u")
    text, cut = (text[:last], tail) if is_cut else (text, b"")
    for spelled, meant in _ESCAPES.items():
        text = text.replace(spelled, meant)
    if b"\\" in text:
        text = _UNICODE.sub(_read_unicode, text)
    # Every other escape, also a doubled backslash, stands for a character that base64 does not have.
    if b"\\" in text:
        raise BadJson("a picture's text holds an escape that is not base64")
    return text, cut


def _read_unicode(escape: re.Match[bytes]) -> bytes:
    return bytes.fromhex(escape[1].decode("ascii"))
