"""What a caller may get wrong: a clear answer in OpenAI's shape, nothing sent upstream, nothing left on disk."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.forms import form
from tests.support.gateways import EDITS, GENERATIONS, Gateway, assert_refused, small
from tests.support.plain_pictures import data_url, mask, png

MIB = 2**20


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a cat"]}, "prompt"),
        ({"prompt": {"text": "a cat"}}, "prompt"),
        ({"prompt": "x" * 32_001}, "prompt"),
        ({"prompt": "x" * MIB}, "prompt"),
        ({"prompt": "a\x00cat"}, "prompt"),
        ({"prompt": data_url(png())}, "prompt"),
        ({"model": 5}, "model"),
        ({"model": "x" * 201}, "model"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"n": -1}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": "2"}, "n"),
        ({"n": True}, "n"),
        ({"n": [2]}, "n"),
        ({"n": 10**30}, "n"),
        ({"n": 1e300}, "n"),
        ({"size": 1024}, "size"),
        ({"size": "big"}, "size"),
        ({"size": "1024"}, "size"),
        ({"size": "1000x1000"}, "size"),
        ({"size": "16x16"}, "size"),
        ({"size": "3840x3840"}, "size"),
        ({"size": "4096x1024"}, "size"),
        ({"size": "3072x512"}, "size"),
        ({"size": "-1024x1024"}, "size"),
        ({"size": "4:1"}, "size"),
        ({"size": "1024x1024", "resolution": "1K"}, "size"),
        ({"size": "16:9", "aspect_ratio": "1:1"}, "size"),
        ({"size": None, "aspect_ratio": "wide"}, "aspect_ratio"),
        ({"size": None, "resolution": "8K"}, "resolution"),
        ({"quality": "xhigh"}, "quality"),
        ({"quality": 1}, "quality"),
        ({"background": "white"}, "background"),
        ({"background": "transparent", "output_format": "jpeg"}, "background"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_format": "svg"}, "output_format"),
        ({"output_compression": 101}, "output_compression"),
        ({"output_compression": "50"}, "output_compression"),
        ({"moderation": "off"}, "moderation"),
        ({"response_format": "png"}, "response_format"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"partial_images": 4}, "partial_images"),
        ({"input_fidelity": "max"}, "input_fidelity"),
        ({"style": "dull"}, "style"),
        ({"user": 5}, "user"),
        ({"safety_identifier": "x" * 513}, "safety_identifier"),
        ({"callback_url": 5}, "callback_url"),
        ({"complexity": "high"}, "complexity"),
        ({"svg": True}, "svg"),
        ({"frame_count": 3}, "frame_count"),
        ({"image": data_url(png())}, "image"),
        ({"images": [{"image_url": data_url(png())}]}, "images"),
        ({"mask": data_url(mask())}, "mask"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_wrong_field_is_named(gateway: Gateway, fields: dict[str, Any], param: str) -> None:
    """A field of the wrong type or outside its range is a 400 that names it."""
    assert_refused(gateway, gateway.generate(**fields), 400, param)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"a cat"',
        b"5",
        b'{"prompt": "a cat", "n": NaN}',
        b'{"prompt": "a cat", "n": Infinity}',
        b'{"prompt": "a cat", "n": 1e999}',
        b'{"prompt": "a cat", "n": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a cat"} trailing',
        b'{"prompt": "a cat",}',
        b"{'prompt': 'a cat'}",
        b'{"prompt": "a cat", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"x":' * 3000 + b"1" + b"}" * 3000,
        b'{"prompt": "a\ncat"}',
        b"prompt=a+cat&n=2",
        b"\xef\xbb\xbf",
        b"\x00" * 100,
    ],
    ids=lambda body: repr(body[:40]),
)
def test_unreadable_json_is_refused(gateway: Gateway, body: bytes) -> None:
    """A body that is not one JSON object is a 400, however it is broken."""
    headers = {"content-type": "application/json"}
    answer = gateway.post(GENERATIONS, content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert_refused(gateway, answer, 400, answer.json()["error"]["param"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", 'The body is empty: send a JSON object such as {"prompt"'),
        (b"[]", "The body must be a JSON object, not an array"),
        (b"5", "The body must be a JSON object, not a single value"),
    ],
)
def test_body_without_fields_says_what_is_right(gateway: Gateway, body: bytes, words: str) -> None:
    """An empty body and one that is no object are told what to send."""
    answer = gateway.post(GENERATIONS, content=body, headers={"content-type": "application/json"})
    assert assert_refused(gateway, answer, 400, None).startswith(words)


def test_json_text_has_limit(gateway: Gateway) -> None:
    """Megabytes of JSON beside the pictures are refused as too large."""
    assert_refused(gateway, gateway.generate(user="x" * 5 * MIB), 413, None)


@pytest.mark.parametrize("value", ["--5", "5.0", "1e1", "+5", "٣", "9" * 5000, "true", "[2]", "0x2", "²"])
def test_wrong_number_text_is_refused(gateway: Gateway, value: str) -> None:
    """A number in a form is plain digits."""
    assert_refused(gateway, gateway.edit({"image": png()}, n=value), 400, "n")


def test_duplicate_field_is_refused(gateway: Gateway) -> None:
    """A form that names a field twice does not say which one counts."""
    parts = [("image", ("x", png())), ("prompt", (None, "a")), ("prompt", (None, "b"))]
    assert_refused(gateway, gateway.post(EDITS, files=parts), 400, "prompt")


BROKEN_FORMS: dict[str, tuple[bytes, str]] = {
    "no boundary": (form(('name="prompt"', b"x"))[0], "multipart/form-data"),
    "empty boundary": (form(('name="prompt"', b"x"))[0], "multipart/form-data; boundary="),
    "long boundary": (form(('name="prompt"', b"x"))[0], "multipart/form-data; boundary=" + "b" * 5000),
    "another boundary": (form(('name="prompt"', b"x"))[0], "multipart/form-data; boundary=c"),
    "no end": (form(('name="prompt"', b"x"), end=False)[0], "multipart/form-data; boundary=b"),
    "empty": (b"", "multipart/form-data; boundary=b"),
    "json": (b'{"prompt": "x"}', "multipart/form-data; boundary=b"),
    "no name": (form(("", b"x"))[0], "multipart/form-data; boundary=b"),
    "empty name": (form(('name=""', b"x"))[0], "multipart/form-data; boundary=b"),
    "no disposition": (b"--b\r\nx-y: z\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
    "bad part header": (b"--b\r\n: \r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
    "not utf-8 name": (
        b'--b\r\ncontent-disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n',
        "multipart/form-data; boundary=b",
    ),
    "300 parts": (form(*((f'name="x{i}"', b"x") for i in range(300)))[0], "multipart/form-data; boundary=b"),
    "cut in a file": (
        b'--b\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n' + png(),
        "multipart/form-data; boundary=b",
    ),
}


@pytest.mark.parametrize("name", BROKEN_FORMS)
def test_broken_form_is_refused(gateway: Gateway, name: str) -> None:
    """A multipart body that cannot be read is a 400 that says so."""
    body, content_type = BROKEN_FORMS[name]
    answer = gateway.post(EDITS, content=body, headers={"content-type": content_type})
    assert_refused(gateway, answer, 400, None)


def test_large_form_text_is_refused(gateway: Gateway) -> None:
    """Text fields of a form have a limit together."""
    assert_refused(gateway, gateway.edit({"image": png()}, user="x" * 5 * MIB), 413, None)


def test_nul_in_form_is_refused(gateway: Gateway) -> None:
    """A NUL in a prompt is refused, and one in a field's name cannot break the answer."""
    body, headers = form(('name="image"; filename="x"', png()), ('name="prompt"', b"a\x00b"))
    assert_refused(gateway, gateway.post(EDITS, content=body, headers=headers), 400, "prompt")
    body, headers = form(('name="prompt"', b"ab"), ('name="a\x00b"', b"c"))
    assert gateway.post(EDITS, content=body, headers=headers).status_code == 400


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "x", "identity, gzip"])
def test_compressed_body_is_refused(gateway: Gateway, encoding: str) -> None:
    """A compressed body is refused by name, before anything is unpacked."""
    answer = gateway.post(GENERATIONS, content=b"\x1f\x8b" + b"x" * 50, headers={"content-encoding": encoding})
    assert "Content-Encoding" in assert_refused(gateway, answer, 400, None)


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "application/octet-stream", "x/y; z"])
def test_json_needs_no_content_type(gateway: Gateway, kind: str) -> None:
    """JSON is read as such whatever it is called."""
    answer = gateway.post(GENERATIONS, content=json.dumps(small()), headers={"content-type": kind})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "image/png", "application/xml"])
def test_unknown_content_type_is_named(gateway: Gateway, kind: str) -> None:
    """A body in another format is a 400 that says which formats are read."""
    answer = gateway.post(GENERATIONS, content=b"prompt=a+cat", headers={"content-type": kind})
    message = assert_refused(gateway, answer, 400, None)
    assert "application/json" in message
    assert "multipart/form-data" in message


@pytest.mark.parametrize("host", ["[", "[::1", "a b", "a/b", "a?b", "x" * 5000, "%", "é"])
@pytest.mark.parametrize("path", ["/nowhere", "/v1/artifacts/x?exp=1&sig=2", "/v1/models"])
def test_strange_host_is_no_fault(gateway: Gateway, host: str, path: str) -> None:
    """A Host header of any kind never makes the gateway fail."""
    answer = gateway.get(path, headers={"host": host.encode("latin-1")})
    assert answer.status_code < 500, answer.text
    assert answer.headers["x-request-id"]


def test_strange_host_still_gets_picture(gateway: Gateway) -> None:
    """A paid picture is not lost to a Host header that cannot be part of a link."""
    answer = gateway.generate(headers={"host": "["})
    assert answer.status_code in (200, 400)
    assert len(gateway.simulator.book()) == (answer.status_code == 200)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-stainless-retry-count", "9" * 4301),
        ("x-stainless-retry-count", "-1"),
        ("x-stainless-timeout", "9" * 4301),
        ("x-stainless-read-timeout", "1e999"),
        ("prefer", f"wait={'9' * 4301}"),
    ],
)
def test_strange_number_in_header_is_no_fault(gateway: Gateway, name: str, value: str) -> None:
    """A number in a header that nobody can mean changes nothing: the picture is made."""
    assert gateway.generate(**small(), headers={name: value}).status_code == 200
