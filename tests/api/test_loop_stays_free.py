"""No body and no upstream's answer within the limits costs much of the event loop, or of memory."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from gateway.net.outside_text import Mask
from gateway.net.transport import HttpTransport
from gateway.pictures.spool import MemoryBudget, Spool
from gateway.tasks import task
from gateway.upstreams.client import UpstreamClient, read_answer
from gateway.upstreams.verdict import CallFailed
from tests.support.forms import form, part
from tests.support.gateways import EDITS, GENERATIONS, OFFICIAL, Gateway, error_of
from tests.support.ledgers import is_soak
from tests.support.loop_turns import Turns, measured_turns
from tests.support.plain_pictures import png
from tests.support.vendor import vendor

MIB = 2**20
SIZE = 16 * MIB if is_soak() else MIB
"""Bytes of a hostile picture or part."""

LESS = 1 if is_soak() else 4
"""Values are so many times smaller than the limit of 4 MiB allows."""

LONGEST = 0.1
"""Seconds of processor time in one turn of the loop."""

MOST_GROWTH = 64 * MIB
JSON = "application/json"
MULTIPART = "multipart/form-data; boundary=b"


def field(value: bytes) -> bytes:
    """A request whose unknown field has this value, as JSON text."""
    return b'{"prompt": "a cat", "model": "' + OFFICIAL.encode() + b'", "x": ' + value + b"}"


def many(item: bytes, count: int) -> bytes:
    return b"[" + b",".join([item] * count) + b"]"


def picture(text: bytes) -> bytes:
    """A JSON edit whose image is a data URL with this text."""
    return b'{"prompt": "a cat", "image": "data:image/png;base64,' + text + b'"}'


def file_part(name: str, content: bytes) -> bytes:
    return part(f'form-data; name="{name}"; filename="a"', content)


VALUES: dict[str, Callable[[], bytes]] = {
    "short strings": lambda: many(b'""', (1_300_000 // LESS)),
    "fewer short strings": lambda: many(b'"data:"', 4_900),
    "keys": lambda: b"{" + b",".join(b'"%x":1' % index for index in range(360_000 // LESS)) + b"}",
    "fewer keys": lambda: b"{" + b",".join(b'"%x":1' % index for index in range(4_900)) + b"}",
    "empty lists": lambda: many(b"[]", (1_300_000 // LESS)),
    "small numbers": lambda: many(b"1", (2_000_000 // LESS)),
    "deep lists": lambda: b"[" * (4_000_000 // LESS),
    "deep objects": lambda: b'{"a":' * (700_000 // LESS),
    "as deep as allowed": lambda: b"[" * 190 + b"]" * 190,
    "one long number": lambda: b"1" * (4_000_000 // LESS),
    "many long numbers": lambda: many(b"1" * 4000, 1000 // LESS),
    "many long fractions": lambda: many(b"0." + b"1" * 4000, 1000 // LESS),
    "long exponents": lambda: many(b"1e" + b"0" * 4000 + b"1", 1000 // LESS),
    "hex escapes": lambda: b'"' + rb"\u0041" * (690_000 // LESS) + b'"',
    "surrogate pairs": lambda: b'"' + rb"\ud83d\ude00" * (340_000 // LESS) + b'"',
    "quoted quotes": lambda: b'"' + rb"\"" * (2_000_000 // LESS) + b'"',
    "backslashes": lambda: b'"' + rb"\\" * (2_000_000 // LESS) + b'"',
    "wide characters": lambda: b'"' + b"x" * (4_000_000 // LESS) + "🐈".encode() + b'"',
    "long names": lambda: b"{" + b",".join(b'"%d%s":1' % (index, b"x" * 900) for index in range(4_000)) + b"}",
    "blanks": lambda: b" " * (4_100_000 // LESS) + b"1",
    "data URLs by the thousand": lambda: many(b'"data:image/png;base64,AAAA"', 4_900),
    "data URLs without end": lambda: many(b'"data:' + b";" * 3000 + b'"', 1300 // LESS),
    "data URLs of blanks": lambda: many(b'"' + b" " * 3000 + b'"', 1300 // LESS),
    "quotes in data URLs": lambda: many(b'"data:' + rb"\"" * 1500 + b'"', 1300 // LESS),
}

PICTURES: dict[str, Callable[[], bytes]] = {
    "plain": lambda: base64.b64encode(png() + bytes(SIZE)),
    "blanks": lambda: b"A   " * (SIZE // 4),
    "only blanks": lambda: b" " * SIZE,
    "line breaks": lambda: rb"AAAA\r\n" * (SIZE // 8),
    "slashes": lambda: rb"\/" * (SIZE // 2),
    "hex escapes": lambda: rb"\u0041" * (SIZE // 6),
    "wrong escapes": lambda: rb"\q" * (SIZE // 2),
    "percent escapes": lambda: b"%41%2B" * (SIZE // 6),
    "wrong at once": lambda: b"*" * SIZE,
}

FORMS: dict[str, Callable[[], bytes]] = {
    "tiny parts": lambda: form(*((f'name="{index}"', b"") for index in range(100_000)))[0],
    "200 parts": lambda: form(*((f'name="{index}"', b"x" * 20_000) for index in range(199)))[0],
    "one huge header": lambda: b"--b\r\nx: " + b"y" * SIZE,
    "one huge header name": lambda: b"--b\r\n" + b"y" * SIZE,
    "many headers": lambda: b"--b\r\n" + b"x: y\r\n" * (SIZE // 6),
    "many parameters": lambda: form(("".join(f"a{index}=b;" for index in range(500)) + "name=x", b""))[0],
    "boundaries in a file": lambda: file_part("image", b"\r\n--bx" * (SIZE // 6)) + b"--b--\r\n",
    "beginnings of boundaries": lambda: file_part("image", b"\r\n--" * (SIZE // 4)) + b"--b--\r\n",
    "line ends": lambda: file_part("image", b"\r" * SIZE) + b"--b--\r\n",
    "preamble": lambda: b"\r\n--" * (SIZE // 4),
    "text in base64": lambda: (
        part('form-data; name="user"\r\ncontent-transfer-encoding: base64', b"A   " * MIB) + b"--b--\r\n"
    ),
    "text in quoted-printable": lambda: (
        part('form-data; name="user"\r\ncontent-transfer-encoding: quoted-printable', b"=41" * MIB) + b"--b--\r\n"
    ),
    "data URL of blanks": lambda: form(('name="image"', b"data:;base64," + b"A   " * (SIZE // 4)))[0],
}

BODIES: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    **{f"JSON: {name}": (GENERATIONS, JSON, lambda made=made: field(made())) for name, made in VALUES.items()},
    **{f"picture: {name}": (EDITS, JSON, lambda made=made: picture(made())) for name, made in PICTURES.items()},
    **{f"form: {name}": (EDITS, MULTIPART, made) for name, made in FORMS.items()},
    "JSON: in UTF-16": (GENERATIONS, JSON, lambda: field(b'"' + b"x" * MIB + b'"').decode().encode("utf-16")),
    "JSON: in GB18030": (GENERATIONS, f"{JSON}; charset=gb18030", lambda: field(b'"' + b"x" * MIB + b'"')),
}


@contextlib.asynccontextmanager
async def inside(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this loop."""
    async with gateway.inside() as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=gateway.auth) as client:
            yield client
        assert await task.drain(app.state.services) == (0, 0)


async def measure(send: Callable[[], Any]) -> Turns:
    """The turns of a request; the same request again may not let memory grow."""
    with measured_turns() as turns:
        await asyncio.create_task(send())
    tracemalloc.start()
    try:
        await send()
        growth = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert growth < MOST_GROWTH, f"{growth / MIB:.0f} MiB"
    return turns


async def test_no_body_holds_up_the_loop(gateway: Gateway) -> None:
    """Each hostile body of JSON, pictures or parts is answered without a turn of 100 ms, and without 64 MiB."""
    slow: dict[str, str] = {}
    async with inside(gateway) as client:
        # What is loaded and remembered once is no body's fault.
        warm = await client.post(GENERATIONS, content=field(b"1"), headers={"x-gateway-dry-run": "1"})
        assert warm.status_code == 200
        for name, (path, kind, make) in BODIES.items():
            body = make()

            async def send(path: str = path, kind: str = kind, body: bytes = body) -> None:
                headers = {"content-type": kind, "x-gateway-dry-run": "1"}
                answer = await client.post(path, content=body, headers=headers)
                assert answer.status_code in (200, 400, 413), answer.text
                if answer.is_error:
                    error_of(answer)

            turns = await measure(send)
            if turns.longest > LONGEST:
                slow[name] = f"{turns.longest:.3f} s in {turns.callback}"
    assert not slow


ANSWERS: dict[str, Callable[[], bytes]] = {
    **{f"value: {name}": lambda made=made: b'{"data": [], "x": ' + made() + b"}" for name, made in VALUES.items()},
    **{
        f"{place}: {name}": lambda place=place, made=made: b'{"%b": %b}' % (place.encode(), made())
        for place in (("data", "error") if is_soak() else ())
        for name, made in VALUES.items()
    },
    **{
        f"picture: {name}": lambda made=made: b'{"data": [{"b64_json": "' + made() + b'"}]}'
        for name, made in PICTURES.items()
    },
    "3,000 links": lambda: b'{"data": ' + many(b'{"url": "https://x.example/a.png"}', 3000) + b"}",
    "64 pictures": lambda: b'{"data": ' + many(b'"' + base64.b64encode(png()) + b'"', 65) + b"}",
    "HTML": lambda: b"<html>" * (SIZE // 6),
}


async def test_no_answer_holds_up_the_loop(gateway: Gateway, tmp_path: Path) -> None:
    """Each hostile answer of an upstream is read without a turn of 100 ms, and without 64 MiB."""
    slow: dict[str, str] = {}
    answer = b""
    with vendor(lambda _, __: answer) as (home, _):
        target = gateway.services.catalogue.targets[0]
        target = replace(target, config=target.config.model_copy(update={"base_url": home}))
        transport = HttpTransport(fresh=False)
        client = UpstreamClient(target, transport, transport, 50 * MIB, Mask())

        async def ask() -> None:
            spool = Spool(tmp_path, MemoryBudget(MIB))
            with contextlib.suppress(CallFailed):
                read_answer(await client.ask("GET", "/", None, spool))
            await spool.close()

        for name, make in ANSWERS.items():
            answer = make()
            turns = await measure(ask)
            if turns.longest > LONGEST:
                slow[name] = f"{turns.longest:.3f} s in {turns.callback}"
        await transport.aclose()
    assert not slow
