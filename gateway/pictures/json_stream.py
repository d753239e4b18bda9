"""JSON documents read as their bytes arrive: base64 pictures go decoded to a Spool, and the rest is parsed.

No picture is ever held whole as a JSON string. This module never decides what a field means.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import pybase64
from pydantic_core import from_json

from gateway.pictures.json_text import explain, unescape
from gateway.pictures.spool import Blob, BlobWriter, Spool

_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
"""A string's bytes up to its closing quote, the end of the bytes or an incomplete escape."""

# RFC 2397 quotes a comma in a parameter; browsers end the head at the first comma (WHATWG Fetch, "data: URLs").
_DATA_URLS = (
    re.compile(r'\s*+data:[^,"]*+(?:"[^"]*+"[^,"]*+)*+,', re.IGNORECASE),
    re.compile(r"\s*+data:[^,]*+,", re.IGNORECASE),
)
_IS_BASE64 = re.compile(r";\s*base64\s*,\Z", re.IGNORECASE)
HEAD = 4096
"""Bytes of a string that show whether it is a picture; the head of a data URL is shorter."""

_SLICE = 64 * 1024
"""Bytes that are read before other work has its turn. A value costs as much as 128 more."""

MAX_PICTURES = 64
"""Pictures in one document. Each costs 400 bytes more than its own: a few megabytes of tiny ones would cost 50."""

MAX_VALUES = 10_000
"""Values and names in one document: many tiny ones take 30 times their text in memory, long numbers much time."""

_SPACE = b" \t\r\n"
_URLSAFE = bytes.maketrans(b"-_", b"+/")
_BOM = b"\xef\xbb\xbf"

_PERCENT = {b"%2B": b"+", b"%2F": b"/", b"%3D": b"=", b"%20": b"", b"%09": b"", b"%0A": b"", b"%0D": b""}

_PICTURE = re.compile(r"(?:[/_]9j[/_]|iVBORw0KGgo|UklGR)[A-Za-z0-9+/_=\s-]{24}")
"""The first base64 of a JPEG, a PNG or a WebP: more of it than a path would hold."""


class BadJson(Exception):
    """The bytes are not valid JSON; the message completes the sentence "the document is not valid JSON: …"."""


class BadBase64(Exception):
    """The text is not valid base64; the message has the fault."""


class TooLarge(Exception):
    """A picture, the number of values, or the rest of the document is over its limit; `what` names it."""

    def __init__(self, what: str, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"{what} is over {limit:,} {unit}")
        self.what = what
        self.limit = limit


@dataclass(frozen=True, slots=True)
class PictureFault:
    """The reason why a picture cannot be read. It stands in the document in the picture's place."""

    reason: str
    is_too_large: bool = False


_TOO_MANY = PictureFault(f"there are more than {MAX_PICTURES} pictures in one document", is_too_large=True)


class Base64Writer:
    """Decodes base64 text as it arrives, white space and the URL-safe alphabet allowed, into a BlobWriter."""

    def __init__(self, writer: BlobWriter, limit: int) -> None:
        self._writer = writer
        self._limit = limit
        self._rest = b""
        self._is_padded = False

    async def write(self, text: bytes) -> None:
        """Decode text and append its bytes. Raises BadBase64, TooLarge over the picture's limit, StorageFullError."""
        text = self._rest + text
        whole, cut = len(text) - len(text) % 4, b""
        data = _decode_plain(text, whole)
        if data is None:
            text, cut = _unquote(text)
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
    """The bytes of the first `whole` characters of plain base64; None if they hold other characters.

    Nearly every picture is plain base64, and this attempt costs a tenth of a translation of the text.
    """
    with suppress(BadBase64), memoryview(text)[:whole] as groups:
        return _decode(groups)
    return None


def _unquote(text: bytes) -> tuple[bytes, bytes]:
    """The text with a URL's percent escapes replaced, and an incomplete one at its end."""
    last = text.rfind(b"%", -2)
    text, cut = (text[:last], text[last:]) if last >= 0 else (text, b"")
    if b"%" in text:
        for spelled, meant in _PERCENT.items():
            text = text.replace(spelled, meant).replace(spelled.lower(), meant)
    return text, cut


def find_base64(text: str) -> int | None:
    """The offset of the base64 in a data URL, by the URL's first 4,096 characters; None for other text."""
    if text[:HEAD].lstrip()[:5].lower() != "data:":
        return None
    heads = (pattern.match(text, 0, HEAD) for pattern in _DATA_URLS)
    return next((head.end() for head in heads if head and _IS_BASE64.search(head[0])), None)


def is_web_address(text: str) -> bool:
    """True for text that begins as an http or https URL, in any case, after white space too."""
    return text[:HEAD].lstrip()[:8].lower().startswith(("http://", "https://"))


class JsonReader:
    """Takes a document in pieces; `finish` returns the parsed value with a Blob in place of each picture.

    A picture is a data URL in base64, or the value of a key in `picture_keys` that is no web address. A PictureFault
    stands for a picture that is no base64 or over a limit. `max_picture` bounds one decoded picture, `max_rest` all
    else, in bytes. With `is_lenient` a string that begins like the base64 of a PNG, JPEG or WebP is a picture too, None
    stands for a picture that cannot be read, and characters or numbers that JSON forbids cost only themselves.
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
        # A caller cannot guess the mark, so none of its strings can stand for a picture.
        self._mark = f"\x00{secrets.token_hex(8)}:"
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
        """The pictures that were read so far, also of a document that breaks off or is too large."""
        return [one for one in self._found if isinstance(one, Blob)]

    @property
    def faults(self) -> list[str]:
        return [one.reason for one in self._found if isinstance(one, PictureFault)]

    async def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises TooLarge as early as possible."""
        for start in range(0, len(piece), _SLICE):
            await self._feed(piece[start : start + _SLICE] if len(piece) > _SLICE else piece)

    async def finish(self) -> Any:
        """Parse the whole document. Raises BadJson if it is incomplete or invalid; NaN and Infinity are not JSON."""
        if self._state != "outside":
            raise BadJson("it ends inside a string")
        return await self._restore(self._parse(), "")

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
        """The offset behind the next opening quote."""
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
        """The end of a string's text in this piece, and True where its closing quote follows."""
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
        """Decide by a long string's first bytes if it is a picture. A short one waits until the document is parsed."""
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
        self._rest += f'"\\u0000{self._mark[1:]}{len(self._found)}"'.encode()
        self._state = "picture"
        self._open_picture()
        await self._write(head[begin:].encode(errors="replace"), is_closed=False)
        if self._state == "picture":
            await self._write(raw[length:], is_closed=is_closed)

    def _find_picture(self, text: str, key: str) -> int | None:
        """The offset of the base64 in a string that begins with this text; None if it is no picture."""
        begin = find_base64(text)
        if begin is not None or is_web_address(text) or (self._is_lenient and text.startswith("//")):
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
        """Decode a part of a picture's text. A picture that cannot be read is skipped to its end."""
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
        data = bytes(self._rest).removeprefix(_BOM)
        try:
            return from_json(data, allow_inf_nan=False)
        except ValueError as error:
            if self._is_lenient:
                with suppress(ValueError, RecursionError):
                    text = data.decode("utf-8", "replace")
                    # Python reads no integer of more than 4,300 digits.
                    return json.loads(
                        text, strict=False, parse_constant=lambda _: None, parse_int=lambda digits: int(digits[:4000])
                    )
            raise BadJson(explain(str(error), has_pictures=bool(self._found))) from error

    async def _restore(self, value: Any, key: str) -> Any:
        await self._pause(128 + len(value) if isinstance(value, str) else 128)
        if isinstance(value, str):
            return await self._restore_text(value, key)
        if isinstance(value, list):
            return [await self._restore(item, "") for item in value]
        if isinstance(value, dict):
            if any(name.startswith(self._mark) for name in value):
                raise BadJson("a name in it is a picture")
            return {name: await self._restore(item, name) for name, item in value.items()}
        return value

    async def _restore_text(self, text: str, key: str) -> Any:
        if text.startswith(self._mark):
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


def _read_head(raw: bytes) -> tuple[str, int]:
    """The first characters of a string's raw text, and how many bytes of it they are."""
    # The longest escape has 6 bytes.
    for length in range(min(len(raw), HEAD), max(0, min(len(raw), HEAD) - 7), -1):
        with suppress(ValueError):
            return json.loads(b'"' + raw[:length] + b'"', strict=False), length
    return "", 0
