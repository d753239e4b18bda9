"""The outgoing form, read back by the parsers that servers use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser

from gateway.net.transport import HttpTransport
from gateway.pictures.spool import CHUNK, MemoryBudget, Spool
from gateway.upstreams.synchronous import FilePart, MultipartBody
from tests.support.fault_server import Connection, FaultServer
from tests.support.transport_client import open_client

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('"\r\n;=\\'), min_size=1, max_size=20)
files = st.tuples(names, names, st.sampled_from(["image/png", "image/webp"]), st.binary(max_size=3000))


def escape(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").replace("\\", "%5C")


async def collect(body: MultipartBody) -> bytes:
    return b"".join([chunk async for chunk in body.chunks()])


async def parse(body: MultipartBody) -> list[tuple[object, ...]]:
    """The parts as Starlette (python-multipart) reads them."""
    parts: list[tuple[object, ...]] = []
    form = await MultiPartParser(Headers(body.headers), body.chunks()).parse()
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            parts.append((name, value.filename, value.content_type, await value.read()))
        else:
            parts.append((name, value))
    await form.close()
    return parts


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(names, text), max_size=4), st.lists(files, max_size=3))
def test_servers_read_same_parts(fields: list[tuple[str, str]], given_files: list[tuple[str, str, str, bytes]]) -> None:
    """Whatever the names and bytes, a server's parser finds the same parts, in order, in exactly the stated length."""

    async def play() -> None:
        spool = Spool(Path("unused"), MemoryBudget(1_000_000))
        parts = [FilePart(name, filename, kind, await spool.blob(data)) for name, filename, kind, data in given_files]
        body = MultipartBody(fields, parts)
        assert await parse(body) == [
            *((escape(name), value) for name, value in fields),
            *((escape(name), escape(filename), kind, data) for name, filename, kind, data in given_files),
        ]
        assert len(await collect(body)) == body.content_length

    asyncio.run(play())


def test_hostile_name_adds_no_header() -> None:
    """Quotes, backslashes and line ends in names are percent-encoded, so that a file's name cannot end its header."""
    body = MultipartBody([('a\\"\r\nX-Evil: 1\r\n\r\n', "v")], [], boundary="b")
    assert asyncio.run(collect(body)) == (
        b'--b\r\nContent-Disposition: form-data; name="a%5C%22%0D%0AX-Evil: 1%0D%0A%0D%0A"\r\n\r\nv\r\n--b--\r\n'
    )


@pytest.mark.parametrize("kind", ["image/png\r\nX-Evil: 1", "bild/ä"])
async def test_hostile_content_type_is_refused(tmp_path: Path, kind: str) -> None:
    """A content type that is not plain text never reaches the wire."""
    spool = Spool(tmp_path, MemoryBudget(1000))
    with pytest.raises(ValueError, match="content type"):
        MultipartBody([], [FilePart("image", "a.png", kind, await spool.blob(b"x"))])


async def test_body_can_be_sent_again(tmp_path: Path) -> None:
    """A file on disk is streamed in bounded pieces, over the wire with its length, and the same bytes a second time."""

    async def answer(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer()

    spool = Spool(tmp_path, MemoryBudget(0))
    blob = await spool.blob(bytes(range(256)) * 8000)
    assert blob.path is not None
    body = MultipartBody([("prompt", "a cat")], [FilePart("image[]", "a.png", "image/png", blob)])
    assert max([len(chunk) async for chunk in body.chunks()]) <= CHUNK
    async with FaultServer(answer) as server, open_client(HttpTransport(fresh=True)) as client:
        for _ in range(2):
            await client.post(server.url, content=body.chunks(), headers=body.headers)
    assert server.bodies[0] == server.bodies[1] == await collect(body)
    assert all(b"transfer-encoding" not in head.lower() for head in server.heads)
    await spool.close()
