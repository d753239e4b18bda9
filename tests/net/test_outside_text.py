"""Text from outside: whatever a stranger writes, a parser answers with a value within bounds or with None."""

from __future__ import annotations

import ast
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import SplitResult

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.net import outside_text
from gateway.net.outside_text import (
    LONGEST_RETRY_AFTER,
    LONGEST_URL,
    join_url,
    read_amount,
    read_count,
    read_http_date,
    read_number,
    read_query,
    read_retry_after,
    read_url,
)

GATEWAY = Path(outside_text.__file__).parent.parent

OPERATORS_TEXT = {
    "artifacts/storage.py",
    "process/redis_url.py",
    "process/settings.py",
}
"""Modules that read a URL of the operator's with the standard library, and refuse to start over one that is wrong."""

PARSERS = {"parse_qs", "parse_qsl", "parsedate_to_datetime", "urljoin", "urlparse", "urlsplit"}

DIGITS = st.text("0123456789", max_size=5000)
ODD = st.one_of(
    st.text(),
    DIGITS,
    st.from_regex(r"(https?|HTTP|ftp)?:?/{0,3}[\[\]@:a-z0-9.%?#&=/-]*", fullmatch=True),
    st.from_regex(r"[+-]?[0-9]{0,30}\.?[0-9]{0,30}(e[+-]?[0-9]{0,5})?", fullmatch=True),
    st.builds(
        lambda day, year, hour, zone: f"Wed, {day} Oct {year} {hour}:28:00 {zone}",
        DIGITS.map(lambda text: text[:12]),
        DIGITS.map(lambda text: text[:12]),
        DIGITS.map(lambda text: text[:4]),
        st.sampled_from(["GMT", "+9999", "-99999999999", "", "EST", "\ud800"]),
    ),
)
OTHER = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), st.lists(st.integers()))


@given(st.one_of(ODD, OTHER))
def test_nothing_is_raised(text: object) -> None:
    """Random text, and values that are no text, give None or a value of the right kind."""
    assert isinstance(read_count(text), int | None)
    assert isinstance(read_number(text), float | None)
    assert isinstance(read_amount(text, 10**9), Decimal | None)
    assert isinstance(read_http_date(text), datetime | None)
    assert isinstance(read_retry_after(text), float | None)
    assert isinstance(read_url(text), SplitResult | None)
    assert isinstance(join_url("https://api.example.com/", text), str | None)
    if isinstance(text, str):
        assert isinstance(read_query(text), list | None)


@given(ODD)
def test_values_are_within_bounds(text: str) -> None:
    """A number is finite, a wait is 0 to a day, a count is at most what it may be, a URL has a port or none."""
    number, wait, count, url = read_number(text), read_retry_after(text), read_count(text, 1000), read_url(text)
    assert number is None or math.isfinite(number)
    assert wait is None or 0 <= wait <= LONGEST_RETRY_AFTER
    assert count is None or 0 <= count <= 1000
    assert url is None or url.port is None or 0 <= url.port <= 65_535


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("007", 7), ("12", 12), ("1001", 1000), ("9" * 4301, 1000), ("0" * 4301 + "5", 5)]
    + [(wrong, None) for wrong in ("", " 1", "-1", "+1", "1.0", "1_0", "٣", "x", None, 3)],
)
def test_count_is_digits(text: object, count: int | None) -> None:
    """Only ASCII digits count, however many there are; a larger number is the largest."""
    assert read_count(text, 1000) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2", 2.0), (" 0.5 ", 0.5), ("-3", 0.0), ("1e3", 1000.0), ("99999999", 86_400.0), ("inf", 86_400.0)]
    + [(wrong, None) for wrong in ("", "nan", "soon", "1" * 41, "Wed, 21 Oct 2099 07:28:00")]
    + [("Wed, 21 Oct 99999999999 07:28:00 GMT", None), ("Wed, 21 Oct 2099 07:28:00 +9999", None), (None, None)],
)
def test_retry_after_is_seconds_or_a_date(text: object, seconds: float | None) -> None:
    """A date that overflows or has a bad zone is no date, and so asks for no wait."""
    assert read_retry_after(text) == seconds


def test_retry_after_by_date() -> None:
    """A date is so long from now; one that is past is now."""
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert 80 < (read_retry_after(f"{soon:%a, %d %b %Y %H:%M:%S} GMT") or 0) <= 90
    assert read_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize(
    ("value", "amount"),
    [(3, "3"), (2.5, "2.5"), ("12", "12"), ("0.5", "0.5"), (0, "0"), (1000, "1000")]
    + [(wrong, None) for wrong in (True, -1, 1001, math.nan, math.inf, "", "1e3", "-1", "9" * 11, None, [])],
)
def test_amount_is_a_number_or_its_digits(value: object, amount: str | None) -> None:
    """A number that no amount can be is none."""
    assert read_amount(value, 1000) == (None if amount is None else Decimal(amount))


@pytest.mark.parametrize(
    "text", ["http://[bad", "http://x:99999", "http://x:y/", "a\x00b", "a\nb", "x" * (LONGEST_URL + 1), "\ud800", None]
)
def test_what_is_no_url(text: object) -> None:
    """A URL with a broken host or port, with control characters, or too long, is none, alone or at a base."""
    assert read_url(text) is None
    assert join_url("https://api.example.com/", text) is None


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("/a/b?c", "https://api.example.com/a/b?c"),
        ("https://cdn.example/x", "https://cdn.example/x"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("a b", "https://api.example.com/a b"),
    ],
)
def test_reference_is_joined(reference: str, url: str) -> None:
    """A reference is read as its base's."""
    assert join_url("https://api.example.com/", reference) == url


def test_query_has_bounds() -> None:
    """A query is read in order, with empty values; one that is too long, or has too many fields, is none."""
    assert read_query("a=1&b=&a=%20") == [("a", "1"), ("b", ""), ("a", " ")]
    assert read_query("a" * 2001) is None
    assert read_query("a=&" * 200) is None


def test_nothing_else_parses_urls_and_dates() -> None:
    """The standard library's parsers, which raise, are called here alone, and for what an operator wrote."""
    found: dict[str, set[str]] = {}
    for path in GATEWAY.rglob("*.py"):
        where = path.relative_to(GATEWAY).as_posix()
        if where.startswith("simulator/") or where == "net/outside_text.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in ("urllib.parse", "email.utils"):
                found.setdefault(where, set()).update(PARSERS & {name.name for name in node.names})
    assert {where for where, names in found.items() if names} == OPERATORS_TEXT
