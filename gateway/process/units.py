"""Sizes and durations as operators write them: a bare number of bytes or seconds, or a text with a unit. Pure."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)\s*")

_BYTES = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "t": 10**12,
    "tb": 10**12,
    "ki": 2**10,
    "kib": 2**10,
    "mi": 2**20,
    "mib": 2**20,
    "gi": 2**30,
    "gib": 2**30,
    "ti": 2**40,
    "tib": 2**40,
}
_SECONDS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def read_bytes(value: object) -> object:
    """Convert a text such as `256`, `256MB` (10⁶) or `256MiB` (2²⁰) to bytes. Raises ValueError for other texts.

    A value that is not a text is returned as it is.
    """
    if not isinstance(value, str):
        return value
    found = _NUMBER.fullmatch(value)
    if found is None or found[2].lower() not in _BYTES:
        raise ValueError("must be a number of bytes, such as 1048576, or a text such as 256MB or 4GiB")
    return round(float(found[1]) * _BYTES[found[2].lower()])


def read_seconds(value: object) -> object:
    """Convert a text such as `30`, `500ms`, `30s`, `5m`, `2h` or `1d` to seconds. Raises ValueError for other texts.

    A value that is not a text is returned as it is.
    """
    if not isinstance(value, str):
        return value
    found = _NUMBER.fullmatch(value)
    if found is None or found[2] not in _SECONDS:
        raise ValueError("must be a number of seconds, such as 30, or a text such as 90s, 5m, 2h or 1d")
    seconds = float(found[1]) * _SECONDS[found[2]]
    return int(seconds) if seconds.is_integer() else seconds
