"""The reading of answers off the wire: whatever form a picture comes in, it is read, since it is paid for."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.net.outside_text import Mask
from gateway.net.transport import HttpTransport
from gateway.pictures.spool import MemoryBudget, Spool
from gateway.upstreams.client import Reply, UpstreamClient, find_images, read_answer
from gateway.upstreams.verdict import CallFailed
from tests.support.plain_pictures import encode, encode_noise, png
from tests.support.plans import target
from tests.support.vendor import Raw, vendor

PNG, OTHER = png(64, 64), png(32, 32, colour="red")
JPEG, WEBP = encode("JPEG", 64, 64), encode("WEBP", 64, 64)
SSE = (("Content-Type", "text/event-stream"),)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def document(*pictures: bytes, **more: Any) -> bytes:
    return json.dumps({"data": [{"b64_json": b64(one)} for one in pictures], **more}).encode()


def event(value: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


@pytest.fixture(scope="module")
def playing() -> Iterator[tuple[str, dict[str, Raw]]]:
    script: dict[str, Raw] = {}
    with vendor(lambda *_: script["answer"]) as (url, _):
        yield url, script


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, MemoryBudget(1 << 24))


Ask = Callable[[Raw], Any]


@pytest.fixture
def ask(playing: tuple[str, dict[str, Raw]], spool: Spool) -> Ask:
    """Send a paid POST that is answered so; its reply."""
    url, script = playing

    async def send(raw: Raw) -> Reply:
        script["answer"] = raw
        one = target("anyfast")
        one = replace(one, config=one.config.model_copy(update={"base_url": url}))
        transport = HttpTransport(fresh=True)
        try:
            client = UpstreamClient(one, transport, transport, 1 << 20, Mask([one.key]))
            return await client.pay("/v1/images/generations", {"prompt": "x"}, spool)
        finally:
            await transport.aclose()

    return send


async def read(ask: Ask, raw: Raw) -> list[bytes]:
    """The pictures of an answer."""
    found = read_answer(await ask(raw)).images
    return [await one.blob.read() if one.blob else (one.url or "").encode() for one in found]


PARTIAL = {"type": "image_generation.partial_image", "b64_json": b64(OTHER), "partial_image_index": 0}
COMPLETED = {"type": "image_generation.completed", "b64_json": b64(PNG), "usage": {"total_tokens": 3}}

FORMS = {
    "plain": Raw(document(PNG)),
    "byte order mark": Raw(b"\xef\xbb\xbf" + document(PNG)),
    "blank lines first": Raw(b"\r\n \t" + document(PNG)),
    "no type": Raw(document(PNG), headers=(("Content-Type", ""),)),
    "type of a page": Raw(document(PNG), headers=(("Content-Type", "text/html"),)),
    "gzip": Raw(gzip.compress(document(PNG)), headers=(("Content-Encoding", "gzip"),)),
    "x-gzip": Raw(gzip.compress(document(PNG)), headers=(("Content-Encoding", "X-GZIP"),)),
    "gzip, two members": Raw(
        gzip.compress(document(PNG)[:90]) + gzip.compress(document(PNG)[90:]), headers=(("Content-Encoding", "gzip"),)
    ),
    "gzip, padded": Raw(gzip.compress(document(PNG)) + bytes(20), headers=(("Content-Encoding", "gzip"),)),
    "gzip in name only": Raw(document(PNG), headers=(("Content-Encoding", "gzip"),)),
    "deflate": Raw(zlib.compress(document(PNG)), headers=(("Content-Encoding", "deflate"),)),
    "bare deflate": Raw(raw_deflate(document(PNG)), headers=(("Content-Encoding", "deflate"),)),
    "twice": Raw(gzip.compress(zlib.compress(document(PNG))), headers=(("Content-Encoding", "deflate, gzip"),)),
    "gzip with a mark": Raw(gzip.compress(b"\xef\xbb\xbf" + document(PNG)), headers=(("Content-Encoding", "gzip"),)),
    "events": Raw(event(json.loads(document(PNG))) + b"data: [DONE]\n\n", headers=SSE),
    "events of another type": Raw(event(json.loads(document(PNG)))),
    "events with comments": Raw(b": ping\n\n: ping\r\n\r\n" + event(json.loads(document(PNG))).replace(b"\n", b"\r\n")),
    "events of OpenAI": Raw(event(PARTIAL, "image_generation.partial_image") + event(COMPLETED), headers=SSE),
    "events without empty lines": Raw(event(PARTIAL)[:-1] + event(COMPLETED)[:-1], headers=SSE),
    "event on many lines": Raw(
        b"".join(
            b"data: " + line + b"\n" for line in json.dumps(json.loads(document(PNG)), indent=1).encode().splitlines()
        )
    ),
    "events, no end": Raw(event(COMPLETED)[:-2], headers=SSE),
    "events, gzip": Raw(gzip.compress(event(COMPLETED)), headers=(*SSE, ("Content-Encoding", "gzip"))),
    "the picture itself": Raw(PNG, headers=(("Content-Type", "image/png"),)),
    "the picture without a type": Raw(PNG),
    "list of base64": Raw(json.dumps({"data": [b64(PNG)]}).encode()),
    "list alone": Raw(json.dumps([{"b64_json": b64(PNG)}]).encode()),
    "image": Raw(json.dumps({"image": b64(PNG)}).encode()),
    "images": Raw(json.dumps({"images": [b64(PNG)]}).encode()),
    "base64": Raw(json.dumps({"created": 1, "base64": b64(PNG)}).encode()),
    "result": Raw(json.dumps({"result": b64(PNG)}).encode()),
    "data": Raw(json.dumps({"data": b64(PNG)}).encode()),
    "b64_json at the top": Raw(json.dumps({"b64_json": b64(PNG)}).encode()),
    "output of a response": Raw(
        json.dumps({"output": [{"type": "image_generation_call", "result": b64(PNG)}]}).encode()
    ),
    "inline data": Raw(
        json.dumps({"candidates": [{"content": {"parts": [{"inlineData": {"data": b64(PNG)}}]}}]}).encode()
    ),
    "message with a data URL": Raw(
        json.dumps(
            {"choices": [{"message": {"images": [{"image_url": {"url": f"data:image/png;base64,{b64(PNG)}"}}]}}]}
        ).encode()
    ),
    "beside its input": Raw(json.dumps({"input_images": [b64(OTHER)], "output": b64(PNG)}).encode()),
    "base64 for URLs": Raw(json.dumps({"data": [urlsafe(PNG)]}).encode()),
}


@pytest.mark.parametrize("form", FORMS)
async def test_picture_is_read_in_every_form(ask: Ask, form: str) -> None:
    """Compressed, as events, as the body itself, under any field: the paid picture is found, and only that one."""
    assert await read(ask, FORMS[form]) == [PNG]


async def test_picture_of_a_damaged_answer_is_read(ask: Ask) -> None:
    """An answer that is no JSON behind its picture still holds the picture, which is paid for."""
    large = encode_noise("PNG", 64, 64)
    assert await read(ask, Raw(document(large)[:-1] + b"<html>")) == [large]


@pytest.mark.parametrize("data", [PNG, JPEG, WEBP], ids=["png", "jpeg", "webp"])
@pytest.mark.parametrize("spell", [lambda text: text, lambda text: text.replace("/", "\\/")], ids=["plain", "escaped"])
async def test_bare_base64_is_no_link(ask: Ask, data: bytes, spell: Callable[[str], str]) -> None:
    """A JPEG's base64 begins with a slash, and is a picture all the same."""
    assert await read(ask, Raw(spell(json.dumps({"data": [b64(data)]})).encode())) == [data]


BROKEN = "iVBORw0KGgo" + "A" * 30 + "%%%"


@pytest.mark.parametrize(
    "items",
    [
        [{"b64_json": "%%%"}, {"b64_json": b64(PNG)}],
        [{"b64_json": b64(PNG)}, {"b64_json": BROKEN}],
        [{"b64_json": BROKEN}, BROKEN, {"b64_json": b64(PNG)}],
        [{"b64_json": b64(b"x" * (1 << 20) + b"x")}, {"b64_json": b64(PNG)}],
        [{"b64_json": "\\u12", "x": 1}, {"b64_json": b64(PNG)}],
        [{"b64_json": 5}, {"b64_json": None}, {"b64_json": b64(PNG)}],
    ],
    ids=["no base64", "broken off", "broken twice", "too large", "escape", "other types"],
)
async def test_odd_picture_costs_only_itself(ask: Ask, items: list[Any]) -> None:
    """A picture that cannot be decoded is left out, and the one beside it is delivered."""
    assert await read(ask, Raw(json.dumps({"data": items}).encode())) == [PNG]


async def test_link_under_a_pictures_field_is_a_link(ask: Ask) -> None:
    """A vendor may put a link where base64 belongs."""
    link = "https://files.example/1.png"
    assert await read(ask, Raw(json.dumps({"data": [{"b64_json": link}]}).encode())) == [link.encode()]
    assert await read(ask, Raw(json.dumps({"data": [link.replace("https", "HTTPS")]}).encode())) == [
        link.replace("https", "HTTPS").encode()
    ]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (Raw(b"<html><title>Moved &amp; gone</title>", headers=(("Content-Type", "text/html"),)), "Moved & gone"),
        (Raw(document(PNG), headers=(("Content-Encoding", "zstd"),)), "its compression is not known"),
        (Raw(document(PNG), headers=(("Content-Encoding", "br"),)), "its compression is not known"),
        (Raw(b"\x1f\x8b" + b"damaged" * 9, headers=(("Content-Encoding", "gzip"),)), "damaged"),
        (Raw(b'{"data": ['), "not readable"),
        (Raw(b"event: x\ndata: hello\n\n", headers=SSE), "no event in it holds JSON"),
        (Raw(b'{"data": [{"note": "none"}]}'), "no image in it"),
    ],
)
async def test_unreadable_answer_is_kept(ask: Ask, raw: Raw, problem: str) -> None:
    """The failure says what the answer is, and holds its first bytes for the operator."""
    with pytest.raises(CallFailed, match=problem) as caught:
        read_answer(await ask(raw))
    failure = caught.value.failure
    assert failure.phase == "body"
    if "compression" not in problem and "\x1f" not in raw.body.decode("latin-1"):
        assert failure.start == raw.body


async def test_bombs_are_bounded(ask: Ask, spool: Spool) -> None:
    """A body that unpacks to far more than a picture may have is refused, and the memory it took is given back."""
    bomb = gzip.compress(b'{"data": [{"b64_json": "' + b"A" * (1 << 24) + b'"}], "x": "' + b" " * (1 << 24))
    reply = await ask(Raw(bomb, headers=(("Content-Encoding", "gzip"),)))
    assert reply.document is None
    assert "is over" in reply.problem
    await spool.close()
    assert spool.memory.used == 0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirect_says_where_it_leads(ask: Ask, status: int) -> None:
    """Without its query, which may hold a credential; an inner address is hidden."""
    for location, shown in (
        ("https://new.example.com/v1/images?token=x", "https://new.example.com/v1/images"),
        ("http://10.0.0.1/v1", "[address]"),
        ("/login", "/login"),
    ):
        with pytest.raises(CallFailed) as caught:
            read_answer(await ask(Raw(b"{}", status, (("Location", location),))))
        assert caught.value.failure.leads_to == shown


def test_task_fields_are_no_picture() -> None:
    """The order that a task repeats is not its result."""
    assert not find_images({"task_id": "t1", "image": "https://files.example/sent.png", "status": "pending"})
