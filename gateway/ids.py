"""The ids of everything that this gateway creates, and their times.

An id is a prefix, `_` and a UUIDv7 (RFC 9562) in Crockford's base32. Ids of one prefix sort by their time, to the
millisecond. An id is never a secret.
"""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime, timedelta

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TO_PYTHONS = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
"""To the digits that `int` reads."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 2**48 - 1
_LOW = 2**62 - 1
_SHIFTS = range(120, -1, -10)
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)

BODY = f"[0-7][{_ALPHABET}]{{25}}"
"""A regular expression for the part of an id after `<prefix>_`: 26 characters of Crockford's base32.

These are digits and lower-case letters. They hold 128 bits, so the first character has only three of them.
"""

_LETTERS = re.compile(BODY)


def new_id(prefix: str, *, at: float | None = None) -> str:
    """Make a new id: `<prefix>_` and 26 characters of Crockford's base32, which are digits and lower-case letters.

    The id keeps its time to the millisecond. The time is now, unless `at` gives it in unix seconds.
    """
    milliseconds = time.time_ns() // 1_000_000 if at is None else round(at * 1000)
    chance = secrets.randbits(74)
    value = milliseconds << 80 | 7 << 76 | (chance >> 62) << 64 | 2 << 62 | chance & _LOW
    return _spell(prefix, value)


def first_id(prefix: str, at: int) -> str:
    """Return the lower bound of all ids of the prefix from the time `at` (ms since 1970) on. It is no id itself."""
    return _spell(prefix, min(max(at, 0), _LATEST) << 80)


def time_of(identifier: str) -> datetime:
    """Return the time of an id, in UTC, to the millisecond. The prefix and any text after a dot are ignored.

    Raises ValueError for other text than an id.
    """
    letters = identifier.partition(".")[0].rpartition("_")[2]
    if _LETTERS.fullmatch(letters) is None:
        raise ValueError("not an id of this gateway")
    # The first ten letters: 26 of them have two bits more than an id, and these come first.
    milliseconds = int(letters[:10].translate(_TO_PYTHONS), 32)
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError as error:
        raise ValueError("not an id of this gateway") from error


def _spell(prefix: str, value: int) -> str:
    return f"{prefix}_{''.join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])}"
