"""The mask at its edges: the shortest secret, the first and the last character, every spelling and every offset."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest

from gateway.net.outside_text import Mask

SECRET = "Zx9kQ2wL7mP4vT8bN1cR5dF3"
RUN = 12


@pytest.mark.parametrize(
    ("length", "text", "shown"),
    [
        # Shorter ones are parts of ordinary words.
        (3, "a {} b", "a {} b"),
        (4, "a {} b", "a *** b"),
        (11, "a {} b", "a *** b"),
        (11, "a_{}, b", "a_***, b"),
        (11, "a{} b", "a{} b"),
        (11, "{}b", "{}b"),
        (11, "{}.b", "{}.b"),
        (11, "{}. b", "***. b"),
        (12, "{}", "***"),
        (12, "a{}b", "a***b"),
        (24, "{}", "***"),
        (24, "a{}", "a***"),
        (24, "{}b", "***b"),
    ],
)
def test_secret_is_hidden_by_its_length(length: int, text: str, shown: str) -> None:
    """A secret of 12 characters is hidden wherever it is, one of 4 as a word, and a shorter one not at all."""
    secret = SECRET[:length]
    mask = Mask([f" {secret} "])
    assert mask.clean(text.format(secret), 100) == shown.format(secret)
    assert mask.hide_secrets(text.format(secret.upper())) == shown.format(secret.upper())


@pytest.mark.parametrize("start", range(len(SECRET) - RUN + 1))
def test_every_run_is_hidden(start: int) -> None:
    """Any 12 characters in a row of a secret are hidden, at the beginning and at the end of a text too."""
    mask, run = Mask([SECRET]), SECRET[start : start + RUN]
    for text, shown in ((run, "***"), (f"!{run}", "!***"), (f"{run}!", "***!"), (run[1:], run[1:])):
        assert mask.hide_secrets(text) == shown


def test_neighbours_are_hidden_as_one() -> None:
    """Secrets that touch become one mark, and those with a character between them two."""
    mask = Mask([SECRET[:12], SECRET[12:]])
    assert mask.hide_secrets(f"a {SECRET} b") == "a *** b"
    assert mask.hide_secrets(f"{SECRET[:12]}-{SECRET[12:]}") == "***-***"
    assert mask.hide_secrets(f"{SECRET[12:]} {SECRET[12:]}") == "*** ***"


@pytest.mark.parametrize("length", [12, 13, 14, 24])
@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("after", range(4))
def test_base64_is_hidden_at_each_offset(length: int, before: int, after: int) -> None:
    """In base64, in both alphabets, no more of a secret is left than what its neighbours share and one character."""
    secret = SECRET[:length]
    data = b"\xff" * before + secret.encode() + b"\xff" * after
    first, last = -(-8 * before // 6), 8 * (before + length) // 6
    for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()):
        shown = Mask([secret]).hide_secrets(text)
        assert shown.startswith(text[:first] + "***")
        assert shown.endswith(text[last:])
        assert len(shown) - len(text[:first] + "***" + text[last:]) <= 1


@pytest.mark.parametrize("length", [12, 24])
def test_hex_is_hidden(length: int) -> None:
    """In hex, of either case, a secret is hidden."""
    secret = SECRET[:length]
    for text in (secret.encode().hex(), secret.encode().hex().upper()):
        assert Mask([secret]).hide_secrets(f"0x{text}") == "0x***"


SPOKEN = "p%a/s\"s&w<o>r'd+1é"


@pytest.mark.parametrize(
    "spelled",
    [
        SPOKEN,
        quote(SPOKEN, safe=""),
        quote(SPOKEN, safe="").lower(),
        quote(quote(SPOKEN, safe=""), safe=""),
        json.dumps(SPOKEN)[1:-1],
        json.dumps(SPOKEN, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(SPOKEN, ensure_ascii=False)[1:-1], ensure_ascii=False)[1:-1],
        SPOKEN.replace("/", "\\/"),
        html.escape(SPOKEN),
        "".join(f"&#{ord(char)};" for char in SPOKEN),
        "".join(f"&#0{ord(char)};" for char in SPOKEN),
        "".join(f"&#x{ord(char):x};" for char in SPOKEN),
        "".join(f"&#X0{ord(char):X};" for char in SPOKEN),
        "".join(f"\\x{ord(char):02x}" for char in SPOKEN),
        "".join(f"\\u00{ord(char):02x}" for char in SPOKEN),
        "\u200b".join(SPOKEN),
        "\n".join(SPOKEN),
        "\\n".join(SPOKEN),
    ],
)
def test_escapes_are_read(spelled: str) -> None:
    """However a text escapes a secret, it is hidden from its first character to its last, and nothing else is."""
    mask = Mask([SPOKEN])
    for before, after in (("", ""), ("a ", " b"), ("x", "x"), ("%41 ", " &amp; b")):
        assert mask.hide_secrets(f"{before}{spelled}{after}") == f"{before}***{after}"


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        # The name of the kind of a key is no secret, and is often left out.
        ("sk-abcdef", "key abcdef", "key ***"),
        ("sk-abcdef", "key abcde", "key abcde"),
        ("key-abcdef", "key abcdef", "key ***"),
        ("keys-abcdef", "key abcdef", "key abcdef"),
        ("sk-abcde", "key abcde", "key abcde"),
        ("sk-abcde", "key sk-abcde", "key ***"),
    ],
)
def test_key_is_hidden_without_its_kind(secret: str, text: str, shown: str) -> None:
    """What follows a short beginning of a key is hidden by itself if it is long enough."""
    assert Mask([secret]).hide_secrets(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://10.9.8.7/x", "at [address]"),
        ("at https://cdn.example.com/x.png", "at https://cdn.example.com/x.png"),
        ("at https://cdn.example.com:8443/x", "at [address]"),
        ("at https://user@cdn.example.com/x", "at [address]"),
        ("at redis://cdn.example.com/0", "at [address]"),
        ("at https://db.internal/x", "at [address]"),
        ("at https://db/x", "at [address]"),
        ("at https://relay.example.com./x", "at [address]"),
        ("from relay.example.com", "from [address]"),
        ("from RELAY.example.com:99", "from [address]"),
        ("from RELAY.example.com", "from [address]"),
        ("from LOCALHOST", "from LOCALHOST"),
        ("from xrelay.example.com", "from xrelay.example.com"),
        ("from relay.example.comx", "from relay.example.comx"),
        ("localhost:80 localhost", "[address] [address]"),
        ("db.corp:5432 db.corp", "[address] db.corp"),
        ("a 10.0.0.1:80, b", "a [address], b"),
        ("version 1.2.3", "version 1.2.3"),
        ("10.0.0.1.2", "10.0.0.1.2"),
        ("[fd00::1]:80 fd00::2 fe80::1%eth0", "[address] [address] [address]"),
        ("std::string a::b", "std::string a::b"),
        ("a%2010.0.0.1", "a%20[address]"),
        ("http:\\/\\/10.9.8.7\\/x", "[address]"),
    ],
)
def test_inner_addresses_are_hidden(text: str, shown: str) -> None:
    """An address of the operator's network is hidden with its port, and a public page's address stays."""
    assert Mask(hosts=["", "Relay.example.com", "[fd00::9]"]).clean(text, 100) == shown


def test_text_is_read_to_its_bound() -> None:
    """A secret at the end of what is read is hidden, and so is one that is cut there; the rest is dropped."""
    mask = Mask([SECRET])
    for length in (20_000 - len(SECRET), 20_000 - RUN):
        shown = mask.clean("x" * (length - 1) + " " + SECRET, 30_000)
        assert shown == "x" * (length - 1) + " ***"
    assert mask.clean("x" * 30_000, 30_000) == "x" * 20_000
    assert mask.clean(f"{'x ' * 10} {SECRET}", 22) == "x " * 10 + "**"
    assert repr(mask) == "Mask(…)"


@pytest.mark.parametrize("letter", ["\u0130", "\u1e9e", "\u00df", "\U0001f600"])
def test_letters_that_change_their_length_move_nothing(letter: str) -> None:
    """A letter whose small form is longer does not shift what is hidden behind it."""
    assert Mask([SECRET]).hide_secrets(f"{letter} {SECRET.upper()} {letter}") == f"{letter} *** {letter}"
