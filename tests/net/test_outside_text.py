"""Text from outside: whatever a stranger writes, a parser answers with a value within bounds or with None."""

from __future__ import annotations

import ast
import base64
import html
import json
import math
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import SplitResult, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.net import outside_text
from gateway.net.outside_text import (
    LONGEST_RETRY_AFTER,
    LONGEST_URL,
    Mask,
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
    "artifacts/objects.py",
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
    [
        ("2", 2.0),
        (" 0.5 ", 0.5),
        ("\x1f6", 6.0),
        ("-3", 0.0),
        ("1e3", 1000.0),
        ("99999999", 86_400.0),
        ("inf", 86_400.0),
    ]
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


KEY = 'vk-9f_Q2/hX7"Lm+T4=aZ0%k'
SHORT = "hunter2x"
MASK = Mask([KEY, SHORT, "sk-live-51AbCdEf99"], ["relay.corp.example", "10.9.8.7", "[fd00::5]"])

SPELLINGS = {
    "plain": KEY,
    "in capitals": KEY.upper(),
    "URL": quote(KEY, safe=""),
    "every byte": "".join(f"%{byte:02X}" for byte in KEY.encode()),
    "URL in a URL": quote(quote(KEY, safe=""), safe=""),
    "JSON": json.dumps(KEY),
    "JSON in JSON": json.dumps(json.dumps(KEY)),
    "JSON, slashes": json.dumps(KEY).replace("/", "\\/"),
    "JSON, all escapes": "".join(f"\\u{ord(char):04X}" for char in KEY),
    "hex escapes": "".join(f"\\x{ord(char):02x}" for char in KEY),
    "HTML": html.escape(KEY),
    "HTML, decimal": "".join(f"&#{ord(char)};" for char in KEY),
    "HTML, hex": "".join(f"&#x{ord(char):x};" for char in KEY),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64, offset 1": base64.b64encode(f"x{KEY} tail".encode()).decode(),
    "base64, offset 2": base64.b64encode(f"xy{KEY} tail".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(KEY.encode()).decode(),
    "base64 in lines": base64.encodebytes(b"Bearer " + KEY.encode() * 4).decode(),
    "hex": KEY.encode().hex(),
    "its start": KEY[:14],
    "its end": KEY[-14:],
    "its middle": KEY[5:19],
    "invisible": "\u200b".join(KEY),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_secret_is_hidden_in_every_spelling(spelling: str) -> None:
    """A secret, and each part of it that shows it, is hidden in plain text, URLs, JSON, HTML and base64."""
    text = SPELLINGS[spelling]
    hidden = MASK.clean(f"The key {text} is wrong.", 1000)
    assert hidden.startswith("The key ")
    assert hidden.endswith(" is wrong.")
    assert "***" in hidden
    shown = hidden.removeprefix("The key ").removesuffix(" is wrong.").replace("***", "")
    assert len(shown) < max(8, len(text) // 3)
    assert MASK.hide_secrets(f"a {text} b") != f"a {text} b"


@pytest.mark.parametrize("most", range(30, 60))
def test_cut_leaves_no_part(most: int) -> None:
    """A text is cut after its secrets are hidden: no cut leaves the half of one."""
    shown = MASK.clean(f"The key that was sent is {KEY}.", most)
    assert len(shown) <= most
    assert KEY[:4] not in shown


def test_short_secret_is_a_word() -> None:
    """A secret of fewer than twelve characters is hidden as a word of its own, not as a part of others."""
    assert MASK.clean(f"{SHORT} ({SHORT}) x-{SHORT}: {SHORT}s {quote(SHORT)} %68unter2x", 200) == (
        f"*** (***) x-***: {SHORT}s *** ***"
    )
    assert MASK.clean("51AbCdEf99", 100) == MASK.clean("live-51AbCdEf99", 100) == "***" or "AbCd" not in MASK.clean(
        "live-51AbCdEf99", 100
    )
    assert Mask(["ab", "", "   "]).clean("ab abc", 100) == "ab abc"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("igw_AbCdEfGhIjKlMnOpQrStUv", "igw_AbCd***"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("Incorrect API key: sk-proj-abcdefghijklmnop", "Incorrect API key: sk-pr***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "eyJ***"),
        ("redis://user:pass@example.com/0", "[address]"),
    ],
)
def test_keys_of_others_are_hidden(text: str, shown: str) -> None:
    """Keys that this process does not know are told by their form."""
    assert Mask().clean(text, 100) == shown


@pytest.mark.parametrize(
    "address",
    [
        *("http://127.0.0.1:8080/x?y=1", "https://10.0.0.1/", "10.9.8.7", "203.0.113.9:443", "192.168.1.1"),
        *("[::1]:8080", "::1", "fe80::1%eth0", "http://[fd00::5]/x", "::ffff:10.0.0.1", "[fd00::5]"),
        *("localhost", "localhost:6379", "http://localhost/v1", "http://redis:6379", "https://db.internal/x"),
        *("relay.corp.example", "RELAY.corp.example:8443", "https://relay.corp.example/v1", "api.example.org:9443"),
        *("redis://cache.example.org:6379/0", "unix:///run/v.sock", "https://u:p@example.org/", "http:///etc"),
        *("http%3A%2F%2F10.0.0.1%3A80%2F", "http:\\/\\/10.0.0.1\\/v1", "https://files.example.org:8443/x"),
    ],
)
def test_inner_address_is_hidden(address: str) -> None:
    """IP addresses, ports, this process's own hosts, names without a public end, and other schemes than the web's."""
    shown = MASK.clean(f"Cannot connect to {address} now", 200)
    assert shown.startswith("Cannot connect to ")
    assert shown.endswith(" now")
    assert "[address]" in shown
    rest = shown.removeprefix("Cannot connect to ").removesuffix(" now").replace("[address]", "")
    assert not any(char.isdigit() for char in rest)
    assert len(rest) < 12


@pytest.mark.parametrize(
    "text",
    [
        "Invalid size: 1024x1024 must be 16:9 or 1.5 at 12:30:45, not 3.14.15.",
        "See https://platform.example.com/docs/errors?code=1 for help.",
        "The prompt was refused (code 42, request req_0123456789abcdef).",
        "std::string, a::b and C:\\temp; 50% off & more; %zz &#; \\u12",
        "Größe ungültig: 尺寸无效",
        "",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """A vendor's reason is passed on as it is."""
    assert MASK.clean(text, 500) == text
    assert MASK.hide_secrets(text) == text


def test_text_is_one_printable_line() -> None:
    """Control characters and line breaks become spaces, and no more characters come than are wanted."""
    assert Mask().clean(" a\r\n\tb\x00\x1b[31mc\ud800 ", 100) == "a b [31mc"
    assert Mask().clean("x" * 100_000, 50) == "x" * 50


@given(st.text(max_size=300), st.integers(0, 300))
def test_any_text_is_cleaned(text: str, at: int) -> None:
    """Whatever stands around a secret, it is hidden; and hiding it twice changes nothing."""
    shown = MASK.clean(f"{text[:at]} {KEY} {text[at:]}", 1000)
    assert KEY not in shown
    assert KEY[3:17].lower() not in shown.lower()
    assert MASK.hide_secrets(shown) == MASK.hide_secrets(MASK.hide_secrets(shown))


@pytest.mark.parametrize("piece", ["//a:", "a.", "%25", "\\", "&#", ":", "1.", "http://", "a-", "sk-", "=&%2"])
def test_long_text_is_cheap(piece: str) -> None:
    """No text makes the patterns run away."""
    began = time.process_time()
    MASK.clean(piece * (200_000 // len(piece)), 2000)
    assert time.process_time() - began < 1


def test_mask_shows_nothing_of_itself() -> None:
    """Its description holds no secret."""
    assert KEY not in repr(MASK)
