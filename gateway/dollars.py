"""Amounts in dollars as text, and in micro-dollars (µ$) as integers. Pure functions, no floats."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

MICRO = 1_000_000
"""µ$ in a dollar."""

MOST_USD = 1_000_000_000
"""The largest amount in dollars that `parse_usd` takes, with either sign."""

_WRITTEN = re.compile(r"-?[0-9]{1,10}(\.[0-9]{1,6})?")


@lru_cache(maxsize=1024)
def parse_usd(text: str) -> int:
    """Return the µ$ of an amount in dollars such as `1.50` or `-0.000001`.

    Raises ValueError, with a message for a user, for any other text and for an amount beyond MOST_USD.
    """
    if not _WRITTEN.fullmatch(text) or abs(Decimal(text)) > MOST_USD:
        raise ValueError(f"{text!r} is not an amount in dollars; write digits, up to six after the point: 1.50")
    return int(Decimal(text) * MICRO)


def show_usd(micro: int) -> str:
    """Return an amount of µ$ as dollars with six digits after the point: `-0.050000`."""
    whole, rest = divmod(abs(micro), MICRO)
    return f"{'-' if micro < 0 else ''}{whole}.{rest:06d}"
