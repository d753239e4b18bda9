"""Text from outside: URLs, numbers and dates that others wrote, and messages cleared of secrets and inner addresses.

The reading functions return None for text that they cannot read, and raise nothing. Overlong text is not read, except
digits: `read_count` limits their number.
"""

from __future__ import annotations

import base64
import ipaddress
import math
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache
from urllib.parse import SplitResult, parse_qsl, urljoin, urlsplit

LONGEST_URL = 65_536
"""The most characters of a URL; httpx refuses a longer one."""

LONGEST_RETRY_AFTER = 86_400.0
"""The most seconds of a Retry-After; a longer one is read as this."""

_LONGEST_NUMBER = 40
_LONGEST_DATE = 100
_LONGEST_QUERY = 2000
_MOST_FIELDS = 100
_MOST_DIGITS = 18
"""The most digits of a whole number, which then fits 64 bits, and so every store and every format."""

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
    """Python's name of the charset that a label names; None for a charset that is not in `_CHARSETS`.

    ASCII is read as UTF-8, which contains it.
    """
    if not _LABEL.fullmatch(label):
        return None
    name = normalize_encoding(label).lower()
    name = aliases.get(name, name)
    if name in ("ascii", "utf_8"):
        return "utf-8"
    return name if name in _CHARSETS else None


def read_count(text: object, most: int = 10**_MOST_DIGITS) -> int | None:
    """A text of ASCII digits as a whole number, and `most` for a larger number; None for any other value."""
    if not isinstance(text, str) or not _DIGITS.fullmatch(text):
        return None
    digits = text.lstrip("0")
    return most if len(digits) > _MOST_DIGITS else min(int(digits or "0"), most)


def read_number(text: object) -> float | None:
    """A decimal number, such as `2`, `0.5` or `1e3`; None for other text, and where it is not finite."""
    if not isinstance(text, str) or len(text) > _LONGEST_NUMBER:
        return None
    # `float` strips fewer characters.
    stripped = text.strip()
    if not _NUMBER.fullmatch(stripped):
        return None
    number = float(stripped)
    return number if math.isfinite(number) else None


def read_amount(value: object, most: int) -> Decimal | None:
    """An amount from a JSON number, or from a text such as `12.5`; None for other values, and outside 0 to `most`."""
    if isinstance(value, str) and _AMOUNT.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        return None
    return Decimal(str(value))


def read_http_date(text: object) -> datetime | None:
    """The date of an HTTP header, in UTC; None for other text, and for a date without a zone."""
    if not isinstance(text, str) or len(text) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def read_retry_after(text: object) -> float | None:
    """The seconds of a Retry-After header, a number or a date, limited to 0 to a day; None for other text."""
    if not isinstance(text, str) or not text:
        return None
    seconds = math.inf if text.strip().lower() == "inf" else read_number(text)
    if seconds is None:
        moment = read_http_date(text)
        if moment is None:
            return None
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def read_url(text: object, longest: int = LONGEST_URL) -> SplitResult | None:
    """The parts of a URL or of a relative reference; None for a text that is neither, or longer than `longest`.

    A text with control characters is None too: `urlsplit` drops some of them, and so would read another URL.
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
    """The URL of a reference that is relative to `base` or whole; None for a text that is no reference."""
    if not isinstance(reference, str) or read_url(reference) is None:
        return None
    try:
        joined = urljoin(base, reference)
    except ValueError:
        return None
    return joined if read_url(joined) else None


def read_query(text: str) -> list[tuple[str, str]] | None:
    """The fields of a query string in order, empty ones too; None above 2,000 characters or 100 fields."""
    if len(text) > _LONGEST_QUERY:
        return None
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return None


HIDDEN = "***"
"""The text in place of a secret."""

HIDDEN_ADDRESS = "[address]"
"""The text in place of an inner address."""

_RUN = 12
"""Characters of a run by which a longer secret is found: any such run of the secret is hidden in a text."""

_HALF = _RUN // 2

_SHORTEST = 4
"""Characters of the shortest secret that is hidden; shorter ones are parts of ordinary words."""

_MOST_READ = 20_000
"""The most characters of an outside text that `clean` reads; it drops the rest."""

_Span = tuple[int, int]

_ESCAPE = re.compile(
    r"%(?:25)*([0-9a-fA-F]{2})|\\+(?:u00|x)([0-9a-fA-F]{2})|&#0*([0-9]{2,3});|&#[xX]0*([0-9a-fA-F]{2});"
    r"|&(amp|lt|gt|quot|apos);|\\+([^a-zA-Z0-9])|\\+[nrtbf]|[\x00-\x1f\x7f\u00ad\u200b-\u200f\u2060\ufeff]"
)
"""The spellings of one character in URLs, JSON and HTML, and characters that a reader does not see."""

_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}

_KEY_FORMS = re.compile(
    r"\b(igw_[0-9A-Za-z]{4})[0-9A-Za-z]{10,}|\b(whsec_)[\w+/=-]{10,}|(?i:\b((?:bearer|basic)\s+))[^\s\"',<>]{6,}"
    r"|\b((?:sk|rk|pk)-[\w-]{2})[\w-]{10,}|\b(eyJ)[\w-]{10,}\.[\w-]+(?:\.[\w-]+)?"
    r"|(//)[^\s/@\"'<>]{1,256}:[^\s/@\"'<>]{1,256}@"
)
"""Keys that this process does not know: callers' keys, others' keys, logins in URLs. A match's group stays readable."""

_KEY_SIGNS = ("igw/", "whsec/", "bearer", "basic", "sk+", "rk+", "pk+", "eyj", "//")
"""Parts of these keys, one in each, as `_fold` writes them."""

_URL = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]{1,20}):/{2,}([^\s/?#\"'<>]*)([^\s\"'<>)\]}]*)")
_HOST_AND_PORT = re.compile(
    r"(?<![\w.@/-])(?:localhost|[\w-]+(?:\.[\w-]+)+(?=:[0-9]{2,5}(?![0-9])))(?::[0-9]{1,5}(?![0-9]))?(?![\w-])"
)
_IPV4 = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]{1,5})?(?![0-9]|\.[0-9])")
_IPV6 = re.compile(r"\[?(?<![\w:.])((?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F.]*)(?:%\w+)?(?:\](?::[0-9]{1,5})?)?")
_INNER_NAME = re.compile(r"[^.]*|.*\.(?:internal|local|localhost|localdomain|lan|corp|intranet|home|svc|arpa)")


class Mask:
    """Hides this process's secrets, and other keys of a known form, in texts. `clean` hides inner addresses too.

    Any 12 characters in a row of a longer secret are hidden, also in base64 and hex. A secret of 4 to 11 characters is
    hidden as a word of its own, a shorter one never. Escapes of URLs, JSON and HTML are read as their characters.
    `hosts` are inner ones, as names or IP addresses.
    """

    def __init__(self, secrets: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
        self._runs: frozenset[str] = frozenset()
        self._short: frozenset[str] = frozenset()
        self.learn(*secrets)
        self._hosts = frozenset(host.lower().strip("[]") for host in hosts if host)
        self._host_words = _words(sorted(self._hosts, key=len, reverse=True), r"(?::[0-9]{1,5})?")

    def __repr__(self) -> str:
        return "Mask(…)"

    def learn(self, *secrets: str) -> None:
        """Hide these secrets too, from now on."""
        known = [_fold(spelled) for secret in secrets for spelled in _spellings(secret.strip())]
        self._runs |= {one[start : start + _RUN] for one in known for start in range(len(one) - _RUN + 1)}
        self._halves = frozenset(run[start : start + _HALF] for run in self._runs for start in range(_HALF + 1))
        self._short |= {one for one in known if _SHORTEST <= len(one) < _RUN}
        self._words = _words(sorted(self._short, key=len, reverse=True))

    def hide_secrets(self, text: str) -> str:
        """The text without this process's secrets, and without other keys of a known form."""
        spans = list(self._find_secrets(text))
        plain, offsets = _unescape(text)
        if offsets is not None:
            spans += [(offsets[start], offsets[end]) for start, end in self._find_secrets(plain)]
        return _replace(text, spans, HIDDEN)

    def clean(self, text: str, most: int) -> str:
        """An outside text on one line, without secrets and possible inner addresses, cut after `most` characters."""
        # Cut last: a secret that is cut in two would be found by neither part.
        text = self.hide_secrets(text[:_MOST_READ])
        spans = list(self._find_addresses(text))
        plain, offsets = _unescape(text)
        if offsets is not None:
            spans += [(offsets[start], offsets[end]) for start, end in self._find_addresses(plain)]
        return " ".join(_UNPRINTABLE.sub(" ", _replace(text, spans, HIDDEN_ADDRESS)).split())[:most]

    def _find_secrets(self, text: str) -> Iterator[_Span]:
        folded = _fold(text)
        # Each run holds a whole half that begins at a multiple of its length.
        if not self._halves.isdisjoint([folded[start : start + _HALF] for start in range(0, len(folded), _HALF)]):
            for start in range(len(folded) - _RUN + 1):
                if folded[start : start + _RUN] in self._runs:
                    yield start, start + _RUN
        for match in self._words.finditer(folded) if self._words else ():
            yield match.span()
        # The pattern costs ten times as much as a search for its signs. It ignores case as Unicode does.
        if not text.isascii() or any(sign in folded for sign in _KEY_SIGNS):
            for match in _KEY_FORMS.finditer(text):
                yield match.end(match.lastindex or 0), match.end()

    def _find_addresses(self, text: str) -> Iterator[_Span]:
        for match in _URL.finditer(text):
            if self._is_inner_url(match[1], match[2]):
                yield match.span()
        for pattern in (_HOST_AND_PORT, _IPV4, self._host_words):
            for match in pattern.finditer(text.lower() if pattern is self._host_words else text) if pattern else ():
                yield match.span()
        for match in _IPV6.finditer(text):
            # Programs write `a::b` for names.
            if is_ip(match[1]) and any(char.isdigit() for char in match[1]):
                yield match.span()

    def _is_inner_url(self, scheme: str, authority: str) -> bool:
        """True for every URL but http(s) at a public name that has no port."""
        host = authority.lower().rstrip(".")
        return (
            scheme.lower() not in ("http", "https")
            or not re.fullmatch(r"[a-z0-9.-]+", host)
            or host in self._hosts
            or _INNER_NAME.fullmatch(host) is not None
            or is_ip(host)
        )


def _spellings(secret: str) -> Iterator[str]:
    """The forms in which a text may hold a secret, beside escapes; none for a secret of less than 4 characters."""
    if len(secret) < _SHORTEST:
        return
    yield secret
    head, _, rest = secret.partition("-")
    if len(head) <= 3 and len(rest) >= 6:
        yield rest
    data = secret.encode(errors="surrogatepass")
    if not secret.isascii():
        # Escapes in URLs stand for its bytes.
        yield data.decode("latin-1")
    if len(data) < _RUN:
        return
    yield data.hex()
    for shift in range(3):
        # A longer text in base64 holds it at one of three offsets; the first and the last characters hold neighbours.
        padded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        yield padded[(shift * 8 + 5) // 6 : len(padded) - 1]


def _fold(text: str) -> str:
    """The text in small letters and in base64's usual alphabet, with the same number of characters."""
    low = text.lower()
    if len(low) != len(text):
        low = "".join(char.lower() if len(char.lower()) == 1 else char for char in text)
    return low.replace("-", "+").replace("_", "/")


def _words(words: Iterable[str], more: str = "") -> re.Pattern[str] | None:
    """A pattern for any of the words where it is not part of a longer one, with `more` after it; None without words."""
    choices = "|".join(map(re.escape, words))
    return re.compile(rf"(?<![0-9a-z.])(?:{choices}){more}(?![0-9a-z]|\.[0-9a-z])") if choices else None


def _unescape(text: str) -> tuple[str, list[int] | None]:
    """The text without escapes, and the position of each character, and of the end, in the original.

    Without an escape the positions are None.
    """
    # Only these characters, and those that show nothing, begin an escape.
    if text.isascii() and text.isprintable() and not any(sign in text for sign in "%\\&"):
        return text, None
    pieces: list[str] = []
    offsets: list[int] = []
    last = 0
    for match in _ESCAPE.finditer(text):
        pieces.append(text[last : match.start()])
        offsets += range(last, match.start())
        found = match[1] or match[2] or match[4]
        char = chr(int(found, 16)) if found else chr(int(match[3])) if match[3] else match[6] or ""
        if match[5]:
            char = _NAMED[match[5]]
        pieces.append(char)
        offsets += [match.start()] * len(char)
        last = match.end()
    if not pieces:
        return text, None
    pieces.append(text[last:])
    offsets += range(last, len(text) + 1)
    return "".join(pieces), offsets


def _replace(text: str, spans: list[_Span], by: str) -> str:
    """The text with each of the spans replaced; spans that touch are replaced as one."""
    if not spans:
        return text
    pieces: list[str] = []
    end = 0
    begun = -1
    for start, stop in sorted(spans):
        if begun < 0 or start > end:
            pieces += [text[end:start], by]
            begun = start
        end = max(end, stop)
    return "".join([*pieces, text[end:]])


# Each paid call asks for its upstream's host, and the answer takes longer than the rest of the look-up.
@lru_cache(maxsize=256)
def is_ip(text: str) -> bool:
    """True for an IP address in its usual form."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
