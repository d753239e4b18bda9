"""The ids of everything that this gateway creates, and their times.

An id is a UUIDv7 (RFC 9562) in Crockford's base32, so that ids sort by time. It is never a secret.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 2**48 - 1
_LOW = 2**62 - 1
_SHIFTS = range(120, -1, -10)
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)

BODY = f"[0-7][{_ALPHABET}]{{25}}"
"""A regular expression for an id after its prefix: 128 bits in 26 letters, so the first letter has three bits."""


def new_id(prefix: str, *, at: float | None = None) -> str:
    """Make a new id, `<prefix>_<26 letters>`, of now or of the unix time `at` in seconds."""
    milliseconds = time.time_ns() // 1_000_000 if at is None else round(at * 1000)
    chance = secrets.randbits(74)
    value = milliseconds << 80 | 7 << 76 | (chance >> 62) << 64 | 2 << 62 | chance & _LOW
    return _spell(prefix, value)


def first_id(prefix: str, at: int) -> str:
    """The lower bound of all ids made at `at` (ms since 1970) or later. It is never an id itself."""
    return _spell(prefix, min(max(at, 0), _LATEST) << 80)


def time_of(identifier: str) -> datetime:
    """The time of an id, in UTC, to the millisecond. Text after a dot is ignored. Raises ValueError."""
    letters = identifier.partition(".")[0].rpartition("_")[2]
    if len(letters) != 26 or letters[0] > "7" or not all(letter in _VALUES for letter in letters):
        raise ValueError("not an id of this gateway")
    value = 0
    for letter in letters:
        value = value << 5 | _VALUES[letter]
    try:
        return _EPOCH + timedelta(milliseconds=value >> 80)
    except OverflowError as error:
        raise ValueError("not an id of this gateway") from error


def _spell(prefix: str, value: int) -> str:
    return f"{prefix}_{''.join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])}"
