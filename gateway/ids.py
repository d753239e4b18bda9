"""Identifiers: a prefix and a UUIDv7 in 26 letters and digits, so that they sort by the time they were made.

Made by whoever creates a key, a task, a call or a request. Never a secret: most of an identifier is its time.
"""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: without i, l, o, u


def new_id(prefix: str) -> str:
    """A new identifier such as `key_01k9x3…`."""
    return f"{prefix}_{_base32(_uuid7())}"


def _uuid7() -> int:
    """RFC 9562, section 5.7: 48 bits of milliseconds, version, 12 random bits, variant, 62 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    return (
        (milliseconds & (1 << 48) - 1) << 80
        | 0x7 << 76
        | secrets.randbits(12) << 64
        | 0b10 << 62
        | secrets.randbits(62)
    )


def _base32(number: int) -> str:
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
