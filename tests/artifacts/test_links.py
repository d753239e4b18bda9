"""A link opens one artifact until it expires, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.artifacts.artifact import format_of, matches
from gateway.artifacts.links import find_artifact, link, sign, verify
from gateway.ids import new_id

KEY = b"k" * 32
NAME = "img_06h4x1m0vyq4e8r2c6d9f3n5kt.png"
LATE = f"img_{'7' * 26}.png"


def test_signed_link_opens_until_expiry():
    """A link is good up to its second, and not at it."""
    query = sign(NAME, 1000, KEY)
    assert link(NAME, 1000, KEY) == f"/v1/artifacts/{NAME}?{query}"
    assert verify(NAME, query, 999.9, KEY)
    assert not verify(NAME, query, 1000, KEY)


@pytest.mark.parametrize(
    "start", ["", "https://pictures.example", "http://127.0.0.1:8080", "HTTPS://x.example/a/prefix", "https://[::1]:1"]
)
def test_own_link_is_known_by_its_signature(start: str):
    """The artifact of a link is found on any host and below any prefix, until the link expires."""
    url = start + link(NAME, 1000, KEY)
    assert find_artifact(url, 999, KEY) == NAME
    assert find_artifact(url, 1000, KEY) is None
    assert find_artifact(url, 999, b"another") is None


@pytest.mark.parametrize(
    "url",
    ["", "https://x.example", "https://[", "https://x.example/a.png?exp=1&sig=2", "x" * 70_000, "/" * 60_000]
    + [f"https://x.example/v1/artifacts/{name}?exp=1000&sig=v1.x" for name in (NAME, "", "..", NAME + "/x")],
)
def test_other_urls_are_no_own_links(url: str):
    """Any other text is no link of this gateway, and costs little."""
    assert find_artifact(url, 1, KEY) is None


def test_altered_links_are_refused():
    """Another artifact, expiry, key, version or a second value of a field opens nothing."""
    query = sign(NAME, 1000, KEY)
    other = f"{new_id('img')}.png"
    assert not verify(other, query, 0, KEY)
    assert not verify(NAME.replace(".png", ".webp"), query, 0, KEY)
    assert not verify(NAME, query, 0, b"another")
    for altered in (
        query.replace("1000", "2000"),
        query.replace("exp=1000", "exp=01000"),
        query.replace("v1.", "v2."),
        query.replace("v1.", ""),
        query + "&exp=2000",
        query + "&sig=x",
        query[:-1],
        query.partition("&")[0],
        "sig=ü&exp=1000",
        "",
    ):
        assert not verify(NAME, altered, 0, KEY), altered


def test_other_parameters_are_ignored():
    """What a mail program or tracker adds to a link does not break it."""
    assert verify(NAME, sign(NAME, 1000, KEY) + "&utm_source=mail", 0, KEY)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../../etc/passwd",
        "img_../x.png",
        NAME + "\n",
        NAME + "/..",
        NAME.upper(),
        NAME[:-4],
        NAME + ".png",
        LATE,
        "/" + NAME,
    ],
)
def test_only_exact_names_are_artifacts(name):
    """What is not exactly an artifact's id is neither signed, verified nor looked for."""
    assert format_of(name) is None
    assert not verify(name, "exp=1000&sig=v1.x", 0, KEY)
    with pytest.raises(ValueError, match="not the id of an artifact"):
        sign(name, 1000, KEY)


@given(st.text(), st.text())
def test_arbitrary_links_never_open(name, query):
    """No text is a link by chance, and none raises."""
    assert not verify(name, query, 0, KEY)
    assert not verify(NAME, query, 0, KEY)


def test_bytes_must_match_the_name():
    """Bytes that are not what the name says are not served under it."""
    assert matches(b"\x89PNG\r\n\x1a\n", "png")
    assert not matches(b"<html>", "png")
