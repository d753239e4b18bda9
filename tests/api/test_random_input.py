"""Random bodies and headers: never a 5xx, never a hang. In process, so that thousands take seconds."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from gateway.tasks import task
from tests.support.forms import form
from tests.support.gateways import EDITS, GENERATIONS, Gateway, error_of
from tests.support.plain_pictures import mask, png
from tests.support.stopwatch import running_seconds

STRANGE: list[Any] = [
    *(None, True, False, 0, 1, -1, 2.5, 1e300, 2**63, 10**40, "", "auto", "\x00", "x" * 300, "1024x1024", "é𝄞\u202e"),
    *([], [[]], {}, {"a": None}, ["https://x"], [{"image_url": "data:;base64,AAAA"}], "data:image/png;base64,iVBORw0K"),
]
NAMES = ["prompt", "model", "n", "size", "quality", "background", "output_format", "output_compression", "moderation"]
NAMES += ["response_format", "stream", "partial_images", "input_fidelity", "user", "safety_identifier", "style"]
NAMES += ["resolution", "aspect_ratio", "callback_url", "image", "images", "mask", "frame_x", "svg", "\ud7ff", "x" * 99]


PREFERS = b"respond-async, wait=x"


@pytest.fixture
async def inside(gateway: Gateway) -> AsyncIterator[Callable[..., Any]]:
    """Sends a request to an application in this loop, whose upstreams refuse all that reaches them; answers checked."""
    gateway.simulator.fault("status", times=None, status=400, code="refused", endpoint="*")
    async with gateway.inside() as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)

        async def send(path: str, content: bytes, headers: list[tuple[bytes, bytes]]) -> int:
            began = running_seconds()
            sent = [(b"authorization", f"Bearer {gateway.key}".encode()), *headers]
            answer = await client.post(path, content=content, headers=sent)
            assert running_seconds() - began < 2, (path, content[:500], headers)
            assert answer.status_code < 500, (answer.status_code, path, content[:2000], headers, answer.text)
            # A task is promised where the headers happen to prefer one.
            assert answer.status_code >= 400 or (answer.status_code, dict(headers).get(b"prefer")) == (202, PREFERS)
            if answer.is_error:
                error_of(answer)
            return answer.status_code

        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield send
        services = app.state.services
        assert await task.drain(services) == 0
        assert services.in_flight.used == 0
        assert services.memory.used == 0
        assert not [path for path in services.spool_folder.rglob("*") if path.is_file()]
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
        PREFERS,
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
