"""What a caller may get wrong: a clear answer in OpenAI's shape, nothing sent upstream, nothing left on disk."""

from __future__ import annotations

import io
import json
import random
import socket
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.made_pictures import png_chunk
from tests.served import (
    EDITS,
    GENERATIONS,
    OFFICIAL,
    TASKS,
    Gateway,
    Gateways,
    data_url,
    encode,
    error_of,
    mask,
    png,
    small,
)

MIB = 2**20


def assert_refused(gateway: Gateway, answer: httpx.Response, status: int, param: str | None) -> str:
    """The answer is such a refusal, and nothing came of the request; its message."""
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (status, param), answer.text
    assert not gateway.simulator.log()
    assert not gateway.leftovers()
    assert not gateway.task_records()
    return error["message"]


def form(*parts: tuple[str, bytes], boundary: str = "b", end: bool = True) -> tuple[bytes, dict[str, str]]:
    """A multipart body from (content-disposition's parameters, content), and its header."""
    body = b"".join(
        f"--{boundary}\r\ncontent-disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    if end:
        body += f"--{boundary}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


@pytest.fixture
def tight(gateways: Gateways) -> Gateway:
    """A gateway that takes small bodies only."""
    return gateways.open(limits={"image_bytes": 64 * 1024, "body_bytes": MIB, "images": 3, "pixels": 655_360})


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
        b'{"x":' * 5000 + b"1" + b"}" * 5000,
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


def test_json_text_has_limit(gateway: Gateway) -> None:
    """Megabytes of JSON beside the pictures are refused as too large."""
    assert_refused(gateway, gateway.generate(user="x" * 5 * MIB), 413, None)


@pytest.mark.parametrize(
    ("images", "param"),
    [
        (None, "image"),
        ([], "image"),
        ("x.png", "images"),
        (5, "images"),
        ([5], "images[0]"),
        ([None], "images[0]"),
        ([{}], "images[0].image_url"),
        ([{"image_url": None}], "images[0].image_url"),
        ([{"image_url": "ftp://x/y.png"}], "images[0].image_url"),
        ([{"image_url": "file:///etc/passwd"}], "images[0].image_url"),
        ([{"image_url": ["https://x/"]}], "images[0].image_url"),
        ([{"file_id": "file-1"}], "images[0].file_id"),
        ([{"image_url": data_url(png())}, {"image_url": data_url(b"no picture")}], "images[1].image_url"),
        ([{"image_url": "http://[::1"}], "images[0].image_url"),
        ([{"image_url": "https://exa mple.com/"}], "images[0].image_url"),
        ([{"image_url": "https://user:pass@127.0.0.1/"}], "images[0].image_url"),
    ],
)
def test_wrong_image_reference_is_named(gateway: Gateway, images: Any, param: str) -> None:
    """A JSON edit's wrong reference is a 400 that names its place in the list."""
    body = {"prompt": "a cat", "model": OFFICIAL, "images": images}
    assert_refused(gateway, gateway.post(EDITS, json=body), 400, param)


def test_broken_data_url_is_refused(gateway: Gateway) -> None:
    """Base64 that is none is a 400, in JSON and in a form."""
    body = {"prompt": "a cat", "model": OFFICIAL, "image": "data:image/png;base64,!!!!"}
    assert_refused(gateway, gateway.post(EDITS, json=body), 400, None)
    assert_refused(gateway, gateway.edit({"image": (None, "data:image/png;base64,!!!!")}), 400, "image")


def test_seventeen_images_are_refused(gateway: Gateway) -> None:
    """More references than an edit may have are refused in both dialects."""
    files = [("image[]", ("x.png", png())) for _ in range(17)]
    assert "16" in assert_refused(gateway, gateway.edit(files), 400, "image")
    body = {"prompt": "a cat", "model": OFFICIAL, "images": [{"image_url": data_url(png())}] * 17}
    assert_refused(gateway, gateway.post(EDITS, json=body), 400, "image")


def test_large_image_is_refused(tight: Gateway) -> None:
    """An image over the limit is a 413 in every dialect; one at the limit is not."""
    large = b"\x89PNG\r\n\x1a\n" + b"x" * 64 * 1024
    assert_refused(tight, tight.edit({"image": large}), 413, "image")
    assert_refused(tight, tight.edit({"image": png(), "mask": large}), 413, "mask")
    assert_refused(tight, tight.edit({"image": (None, data_url(large))}), 413, "image")
    body = {"prompt": "a cat", "model": OFFICIAL, "image": data_url(large)}
    assert_refused(tight, tight.post(EDITS, json=body), 413, None)


def test_large_body_is_refused_by_header(tight: Gateway) -> None:
    """A declared length over the limit is refused before the body is sent."""
    host, port = tight.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tight.key}\r\n"
        connection.sendall(f"{head}content-length: {MIB + 1}\r\n\r\n".encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in answer
    assert not tight.leftovers()


def test_large_body_is_refused_by_count(tight: Gateway) -> None:
    """A chunked body is cut off at the limit."""

    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 64 * 1024

    assert_refused(tight, tight.post(GENERATIONS, content=pieces()), 413, None)


def test_bytes_in_flight_are_bounded(gateways: Gateways) -> None:
    """Over all uploads together the gateway takes only so many bytes, and gives them back."""
    gateway = gateways.open(limits={"bytes_in_flight": MIB})
    assert_refused_busy(gateway, gateway.generate(user="x" * 2 * MIB))
    assert gateway.generate().status_code == 200


def assert_refused_busy(gateway: Gateway, answer: httpx.Response) -> None:
    assert (answer.status_code, error_of(answer)["code"]) == (503, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    assert not gateway.leftovers()


def _animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


def _bomb() -> bytes:
    """A PNG of a few hundred bytes that claims 30,000 x 30,000 pixels."""
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


BAD_PICTURES = {
    "zero bytes": b"",
    "text": b"not an image",
    "html": b"<!DOCTYPE html><p>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "svg with a head": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
    "gif": encode("GIF"),
    "bmp": encode("BMP"),
    "tiff": encode("TIFF"),
    "pdf": b"%PDF-1.7\n",
    "only a PNG's start": b"\x89PNG\r\n\x1a\n",
    "truncated PNG": png()[:-20],
    "truncated JPEG": encode("JPEG", 200, 200)[:300],
    "truncated WebP": encode("WEBP", 200, 200)[:-10],
    "animated PNG": _animated("PNG"),
    "animated WebP": _animated("WEBP"),
    "decompression bomb": _bomb(),
    "noise": bytes(range(256)) * 4,
    "base64 text": b"iVBORw0KGgoAAAANSUhEUgAAAEAAAABA",
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_picture_is_refused(gateway: Gateway, name: str) -> None:
    """Bytes that are no still PNG, JPEG or WebP are a 400 that names the field, as image and as mask."""
    data = BAD_PICTURES[name]
    assert_refused(gateway, gateway.edit({"image": ("x.png", data, "image/png")}), 400, "image")
    assert_refused(gateway, gateway.edit({"image": png(), "mask": ("x.png", data, "image/png")}), 400, "mask")


def test_second_picture_is_named(gateway: Gateway) -> None:
    """Of several pictures the first wrong one is named by its field."""
    files = [("image[0]", ("a", png())), ("image[1]", ("b", b"nothing")), ("image[2]", ("c", b"nothing"))]
    assert_refused(gateway, gateway.edit(files), 400, "image[1]")


@pytest.mark.parametrize("name", ["image", "mask"])
@pytest.mark.parametrize("model", [OFFICIAL, TASKS])
def test_undecodable_pixels_are_refused(gateway: Gateway, name: str, model: str) -> None:
    """A picture whose head is right and whose pixels are not is the caller's mistake, told before anything is paid."""
    whole = bytearray(encode("WEBP", 64, 64, "RGBA", (1, 2, 3, 0), lossless=True))
    start = whole.index(b"VP8L") + 13
    whole[start:-2] = b"\xff" * (len(whole) - 2 - start)
    answer = gateway.edit({"image": png(), "mask": mask()} | {name: ("x", bytes(whole))}, model=model)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", name), answer.text
    assert not gateway.simulator.log()
    assert not gateway.leftovers()


def test_mask_must_fit(gateway: Gateway) -> None:
    """A mask without an alpha channel, or of another size, is refused."""
    assert_refused(gateway, gateway.edit({"image": png(), "mask": png()}), 400, "mask")
    assert_refused(gateway, gateway.edit({"image": png(), "mask": mask(32, 64)}), 400, "mask")
    files = [("image", ("x", png())), ("mask", ("m", mask())), ("mask", ("m", mask()))]
    assert_refused(gateway, gateway.edit(files), 400, "mask")


def test_edit_needs_image(gateway: Gateway) -> None:
    """An edit without an image is refused, with a mask too."""
    assert_refused(gateway, gateway.edit({"prompt2": (None, "x")}), 400, "image")
    assert_refused(gateway, gateway.edit({"mask": mask()}), 400, "image")


@pytest.mark.parametrize("names", [("image", "image[]"), ("image[]", "image"), ("image", "image[0]")])
def test_mixed_spellings_are_refused(gateway: Gateway, names: tuple[str, str]) -> None:
    """`image` and `image[]` together are ambiguous in their order, and so refused."""
    assert_refused(gateway, gateway.edit([(name, ("x", png())) for name in names]), 400, "image")


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
    "not utf-8 text": (form(('name="prompt"', b"\xff\xfe"))[0], "multipart/form-data; boundary=b"),
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


# In process: no socket, so that thousands of bodies take seconds.

STRANGE: list[Any] = [
    *(None, True, False, 0, 1, -1, 2.5, 1e300, 2**63, 10**40, "", "auto", "\x00", "x" * 300, "1024x1024", "é𝄞\u202e"),
    *([], [[]], {}, {"a": None}, ["https://x"], [{"image_url": "data:;base64,AAAA"}], "data:image/png;base64,iVBORw0K"),
]
NAMES = ["prompt", "model", "n", "size", "quality", "background", "output_format", "output_compression", "moderation"]
NAMES += ["response_format", "stream", "partial_images", "input_fidelity", "user", "safety_identifier", "style"]
NAMES += ["resolution", "aspect_ratio", "callback_url", "image", "images", "mask", "frame_x", "svg", "\ud7ff", "x" * 99]


@pytest.fixture
async def inside(gateway: Gateway) -> AsyncIterator[Callable[..., Any]]:
    """Sends a request to an application in this loop, whose upstreams refuse all that reaches them; answers checked."""
    app = gateway.build()
    gateway.simulator.fault("status", times=None, status=400, code="refused", endpoint="*")
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)

    async def send(path: str, content: bytes, headers: list[tuple[bytes, bytes]]) -> int:
        began = time.monotonic()
        sent = [(b"authorization", f"Bearer {gateway.key}".encode()), *headers]
        answer = await client.post(path, content=content, headers=sent)
        assert time.monotonic() - began < 2, (path, content[:500], headers)
        assert answer.status_code < 500, (answer.status_code, path, content[:2000], headers, answer.text)
        assert answer.status_code >= 400
        error_of(answer)
        return answer.status_code

    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield send
    services = app.state.services
    assert services.in_flight.used == 0
    assert services.memory.used == 0
    assert not [path for path in services.spool_folder.rglob("*") if path.is_file()]
    await services.close()
    assert not gateway.simulator.book()


async def test_random_json_never_fails(inside: Callable[..., Any]) -> None:
    """Six hundred bodies of random fields and broken text: never a 5xx, never a hang."""
    chance = random.Random(1)
    statuses: set[int] = set()
    for _ in range(600):
        fields: dict[str, Any] = {"prompt": "a cat"} if chance.random() < 0.8 else {}
        for name in chance.sample(NAMES, chance.randint(0, 4)):
            fields[name] = chance.choice(STRANGE)
        text = json.dumps(fields, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
        if chance.random() < 0.4:
            text = _mutate(chance, text)
        path = chance.choice([GENERATIONS, EDITS])
        statuses.add(await inside(path, text, [(b"content-type", b"application/json")]))
    assert 400 in statuses


async def test_mutated_forms_never_fail(inside: Callable[..., Any]) -> None:
    """Four hundred multipart bodies with bytes changed, lost and doubled: never a 5xx, never a hang."""
    chance = random.Random(2)
    for _ in range(400):
        parts = [('name="prompt"', b"a cat"), (f'name="{chance.choice(NAMES[:20])}"', b"1")]
        parts += [(f'name="image{chance.choice(["", "[]", "[0]"])}"; filename="x.png"', png(8, 8))]
        if chance.random() < 0.3:
            parts += [('name="mask"; filename="m"', mask(8, 8))]
        chance.shuffle(parts)
        boundary = chance.choice(["b", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "x" * 70])
        body, headers = form(
            *((head.encode("utf-8", "replace").decode(), data) for head, data in parts), boundary=boundary
        )
        for _ in range(chance.randint(0, 3)):
            body = _mutate(chance, body)
        kind = headers["content-type"].encode()
        if chance.random() < 0.2:
            kind = bytes(byte for byte in _mutate(chance, kind) if 32 <= byte < 127)
        await inside(EDITS, body, [(b"content-type", kind)])


async def test_random_headers_never_fail(inside: Callable[..., Any]) -> None:
    """Four hundred requests with strange headers: never a 5xx, never a hang."""
    chance = random.Random(3)
    names = [b"content-type", b"content-encoding", b"x-request-id", b"host", b"accept", b"prefer", b"idempotency-key"]
    names += [b"x-stainless-read-timeout", b"x-stainless-timeout", b"x-stainless-retry-count", b"x-gateway-upstream"]
    names += [b"x-forwarded-for", b"x-forwarded-proto", b"origin", b"cookie", b"content-disposition", b"range"]
    values = [b"", b"0", b"-1", b"1e999", b"nan", b"application/json; charset=utf-16", b"multipart/form-data", b"*/*"]
    values += [
        b"[",
        b"respond-async, wait=x",
        b"a" * 4000,
        b"\xff\xfe",
        b'multipart/form-data; boundary="\\"',
        b";;=",
        b"%00",
    ]
    for _ in range(400):
        headers = [(chance.choice(names), chance.choice(values)) for _ in range(chance.randint(1, 5))]
        if chance.random() < 0.3:
            headers.append((b"content-type", bytes(chance.randrange(32, 256) for _ in range(30))))
        await inside(GENERATIONS, json.dumps({"prompt": "a cat"}).encode(), headers)


def _mutate(chance: random.Random, data: bytes) -> bytes:
    """The bytes with a piece changed, removed, doubled or cut off."""
    if not data:
        return b"\x00"
    start = chance.randrange(len(data))
    stop = min(len(data), start + chance.randint(1, 8))
    match chance.randrange(5):
        case 0:
            return data[:start] + chance.randbytes(stop - start) + data[stop:]
        case 1:
            return data[:start] + data[stop:]
        case 2:
            return data[:stop] + data[start:]
        case 3:
            return data[:start]
        case _:
            return data[:start] + chance.choice([b"\r\n", b"--", b'"', b"\\", b"{", b"\x00", b"\xc3"]) + data[start:]
