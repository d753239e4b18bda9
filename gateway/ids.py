"""The ids of everything that this gateway creates, and their times.

An id is a prefix, `_` and a UUIDv7 (RFC 9562) in Crockford's base32. Ids of one prefix sort by their time, to the
millisecond. An id is never a secret.
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TO_PYTHONS = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
"""To the digits that `int` reads."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 2**48 - 1
_END = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
"""The last millisecond that a datetime can have."""

_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_BYTE_TO_LETTER = (_ALPHABET * 8).encode()
"""For `bytes.translate`: each letter stands for eight bytes, so that random bytes make random letters."""

_VERSIONS = "ef"
"""The letters of UUID version 7: four bits 0111, and one random bit."""

_VARIANTS = "89abrstv"
"""The letters of the variant in RFC 9562: the bits 10 in the middle of three random ones."""

BODY = f"[0-7][{_ALPHABET}]{{25}}"
"""A regular expression for the part of an id after `<prefix>_`: 26 characters of Crockford's base32.

These are digits and lower-case letters. They hold 128 bits, so the first character has only three of them.
"""

_LETTERS = re.compile(BODY)

_DRAW = 16
_DRAWS_AT_ONCE = 256
_draws: list[bytes] = []
"""Random bytes that nobody has used. `pop` takes from it, so no two threads get the same ones."""

# Otherwise a forked process would make its parent's ids.
os.register_at_fork(after_in_child=_draws.clear)


def new_id(prefix: str, *, at: float | None = None) -> str:
    """Make a new id: `<prefix>_` and 26 characters of Crockford's base32, which are digits and lower-case letters.

    The id keeps its time to the millisecond. The time is now, unless `at` gives it in unix seconds.
    """
    milliseconds = time.time_ns() // 1_000_000 if at is None else round(at * 1000)
    draw = _draw()
    letters = draw.translate(_BYTE_TO_LETTER).decode()
    version, variant = _VERSIONS[draw[0] & 1], _VARIANTS[draw[3] & 7]
    return f"{prefix}_{_spell_time(milliseconds)}{version}{letters[1:3]}{variant}{letters[4:]}"


def draw_letters() -> str:
    """Return 16 random digits and lower-case letters, 80 bits of the system's randomness that nobody can guess."""
    return _draw().translate(_BYTE_TO_LETTER).decode()


def first_id(prefix: str, at: int) -> str:
    """Return the lower bound of all ids of the prefix from the time `at` (ms since 1970) on. It is no id itself."""
    return f"{prefix}_{_spell_time(min(max(at, 0), _LATEST))}{'0' * 16}"


def time_of(identifier: str) -> datetime:
    """Return the time of an id, in UTC, to the millisecond. The prefix and any text after a dot are ignored.

    Raises ValueError for other text than an id.
    """
    return _EPOCH + timedelta(milliseconds=milliseconds_of(identifier))


def milliseconds_of(identifier: str) -> int:
    """Return the time of an id in milliseconds since 1970. The prefix and any text after a dot are ignored.

    Raises ValueError for other text than an id.
    """
    letters = identifier.partition(".")[0].rpartition("_")[2]
    if _LETTERS.fullmatch(letters) is None:
        raise ValueError("not an id of this gateway")
    # The first ten letters: 26 of them have two bits more than an id, and these come first.
    milliseconds = int(letters[:10].translate(_TO_PYTHONS), 32)
    if milliseconds > _END:
        raise ValueError("not an id of this gateway")
    return milliseconds


def _spell_time(at: int) -> str:
    first = f"{_PAIRS[at >> 40]}{_PAIRS[at >> 30 & 1023]}{_PAIRS[at >> 20 & 1023]}"
    return f"{first}{_PAIRS[at >> 10 & 1023]}{_PAIRS[at & 1023]}"


def _draw() -> bytes:
    try:
        return _draws.pop()
    except IndexError:
        chance = os.urandom(_DRAW * _DRAWS_AT_ONCE)
        _draws.extend(chance[start : start + _DRAW] for start in range(_DRAW, len(chance), _DRAW))
        return chance[:_DRAW]
