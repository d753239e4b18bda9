"""Reads URLs, numbers and dates that a caller, an upstream or a receiver wrote. Pure functions.

Each function returns None for text that it cannot read, and raises nothing. Each refuses overlong text at once.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from encodings import normalize_encoding
from encodings.aliases import aliases
from urllib.parse import SplitResult, parse_qsl, urljoin, urlsplit

LONGEST_URL = 65_536
"""Characters; httpx refuses a longer URL."""

LONGEST_RETRY_AFTER = 86_400.0
"""Seconds; a longer Retry-After is read as this."""

_LONGEST_NUMBER = 40
_LONGEST_DATE = 100
_LONGEST_QUERY = 2000
_MOST_FIELDS = 100
_MOST_DIGITS = 18
"""Digits of a whole number: it fits 64 bits, and so every store and every format."""

_DIGITS = re.compile(r"[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_AMOUNT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,6})?")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,39}")
# Python has codecs of other kinds too, such as the ones that unpack an archive.
_CHARSETS = frozenset(
    {"utf_8", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"}
    | {f"iso8859_{part}" for part in (*range(2, 12), 13, 14, 15, 16)}
    | {
        f"cp{page}"
        for page in (437, 850, 866, 874, 932, 949, 950, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258)
    }
    | {"latin_1", "koi8_r", "koi8_u", "mac_roman", "gb2312", "gbk", "gb18030", "big5", "big5hkscs"}
    | {"shift_jis", "euc_jp", "iso2022_jp", "euc_kr"}
)


def read_charset(label: str) -> str | None:
    """Python's name of the charset that a label stands for; ASCII is read as UTF-8, which contains it."""
    if not _LABEL.fullmatch(label):
        return None
    name = normalize_encoding(label).lower()
    name = aliases.get(name, name)
    if name in ("ascii", "utf_8"):
        return "utf-8"
    return name if name in _CHARSETS else None


def read_count(text: object, most: int = 10**_MOST_DIGITS) -> int | None:
    """Digits as a whole number; one above `most` is read as `most`. None for anything but ASCII digits."""
    if not isinstance(text, str) or not _DIGITS.fullmatch(text):
        return None
    digits = text.lstrip("0")
    return most if len(digits) > _MOST_DIGITS else min(int(digits or "0"), most)


def read_number(text: object) -> float | None:
    """A decimal number, such as `2`, `0.5` or `1e3`; None where it is not finite."""
    if not isinstance(text, str) or len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text.strip()):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def read_amount(value: object, most: int) -> Decimal | None:
    """An amount that is a number of JSON or a text of digits; None where it is negative or above `most`."""
    if isinstance(value, str) and _AMOUNT.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        return None
    return Decimal(str(value))


def read_http_date(text: object) -> datetime | None:
    """A date of an HTTP header; None where it has no zone."""
    if not isinstance(text, str) or len(text) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def read_retry_after(text: object) -> float | None:
    """Seconds that a Retry-After header asks for, at most a day. It is a number or a date."""
    if not isinstance(text, str):
        return None
    seconds = math.inf if text.strip().lower() == "inf" else read_number(text)
    if seconds is None:
        moment = read_http_date(text)
        if moment is None:
            return None
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def read_url(text: object, longest: int = LONGEST_URL) -> SplitResult | None:
    """A URL, or a reference relative to one, in its parts; host and port are readable.

    None for control characters: `urlsplit` drops some of them, and so would read another URL.
    """
    if not isinstance(text, str) or len(text) > longest or _UNPRINTABLE.search(text):
        return None
    try:
        parts = urlsplit(text)
        _ = parts.hostname, parts.port
    except ValueError:
        return None
    return parts


def join_url(base: str, reference: object) -> str | None:
    """The URL that a reference stands for at `base`."""
    if not isinstance(reference, str) or read_url(reference) is None:
        return None
    try:
        joined = urljoin(base, reference)
    except ValueError:
        return None
    return joined if read_url(joined) else None


def read_query(text: str) -> list[tuple[str, str]] | None:
    """The fields of a query string, in order, empty ones too."""
    if len(text) > _LONGEST_QUERY:
        return None
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return None
