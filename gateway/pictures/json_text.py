"""The text of JSON documents: escapes, data URLs, lenient parsing, and faults in the gateway's own words."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

_FAULTS = {
    "EOF": "it ends before it is complete",
    "trailing char": "something follows its end",
    "trailing comma": "a comma stands before a closing bracket",
    "control char": "a control character in a string is not escaped",
    "key must": "a name is not in double quotes",
    "recursion": "it is nested too deeply",
    "number out": "a number is too large",
    "invalid number": "a number is malformed",
    "invalid unicode": "it is not valid UTF-8",
    "invalid escape": "an escape is malformed",
    "lone": "half of a surrogate pair stands alone",
    "unexpected end of hex": "half of a surrogate pair stands alone",
}
# RFC 2397 quotes a comma in a parameter; browsers end the head at the first comma (WHATWG Fetch, "data: URLs").
_DATA_URLS = (
    re.compile(r'\s*+data:[^,"]*+(?:"[^"]*+"[^,"]*+)*+,', re.IGNORECASE),
    re.compile(r"\s*+data:[^,]*+,", re.IGNORECASE),
)
_IS_BASE64 = re.compile(r";\s*base64\s*,\Z", re.IGNORECASE)
HEAD = 4096
"""Bytes of a string's start by which it counts as a picture or not. A data URL with a longer head is no picture."""

_PERCENT = {b"%2B": b"+", b"%2F": b"/", b"%3D": b"=", b"%20": b"", b"%09": b"", b"%0A": b"", b"%0D": b""}

_POSITION = re.compile(r" at (line [0-9]{1,9} column [0-9]{1,9})\Z")


def explain(message: str, *, has_pictures: bool) -> str:
    """The fault of a document in the gateway's own words. The parser's message may quote the document.

    The position follows if the parser states one and the document has no pictures, which would shift it.
    """
    fault = next((ours for start, ours in _FAULTS.items() if message.startswith(start)), "it cannot be read")
    position = _POSITION.search(message)
    # Each picture before it would shift the column.
    return f"{fault}, at {position[1]}" if position and not has_pictures else fault


def unescape(text: bytes) -> tuple[bytes, bytes]:
    """The text with JSON's escapes replaced, and the incomplete escape at its end or b"".

    If an escape is wrong, none is replaced.
    """
    last = text.rfind(b"\\", -6)
    tail = text[last:] if last >= 0 else b""
    is_cut = len(tail) == 1 or (len(tail) < 6 and tail[1:2] == b"u")
    text, cut = (text[:last], tail) if is_cut else (text, b"")
    with suppress(ValueError):
        text = json.loads(b'"' + text + b'"', strict=False).encode(errors="replace")
    return text, cut


def unquote(text: bytes) -> tuple[bytes, bytes]:
    """The text without percent escapes of base64 and white space, and the incomplete escape at its end or b""."""
    last = text.rfind(b"%", -2)
    text, cut = (text[:last], text[last:]) if last >= 0 else (text, b"")
    if b"%" in text:
        for spelled, meant in _PERCENT.items():
            text = text.replace(spelled, meant).replace(spelled.lower(), meant)
    return text, cut


def find_base64(text: str) -> int | None:
    """The offset of the base64 in a data URL; None for other text, or if the first 4,096 characters show no base64."""
    if text[:HEAD].lstrip()[:5].lower() != "data:":
        return None
    heads = (pattern.match(text, 0, HEAD) for pattern in _DATA_URLS)
    return next((head.end() for head in heads if head and _IS_BASE64.search(head[0])), None)


def parse_leniently(data: bytes) -> Any:
    """The value of a document whose wrong characters are replaced, and NaN and infinity by None.

    Raises ValueError and RecursionError.
    """
    text = data.decode("utf-8", "replace")
    # Python reads no integer of more than 4,300 digits.
    return json.loads(text, strict=False, parse_constant=lambda _: None, parse_int=lambda digits: int(digits[:4000]))
