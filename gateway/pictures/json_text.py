"""The escapes of JSON's strings, and the faults of a document in the gateway's own words."""

from __future__ import annotations

import json
import re
from contextlib import suppress

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
