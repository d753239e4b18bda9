"""Where an answer ends: every framing that HTTP/1.1 has, and the broken ones, in packets of every size."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from typing_extensions import override

from gateway.net.connection import MOST_SILENT, Connection, Exchange, TimeLimits
from gateway.net.failures import RequestError, was_sent
from gateway.net.transport import HttpTransport
from tests.support.fault_server import SMALL, FaultServer, on_both_loops, run_on
from tests.support.fault_server import Connection as Peer
from tests.support.transport_client import open_client

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"Content-Length: 4\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = MOST_SILENT + 300_000
"""More than the limit and one read from the socket together."""

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\nLink: </x>\r\n\r\n"

WHOLE: dict[str, tuple[bytes, int, bytes]] = {
    "length": (LENGTH + b"body", 200, b"body"),
    "length of nothing": (OK + b"Content-Length: 0\r\n\r\n", 200, b""),
    "chunks": (CHUNKED + b"1\r\nb\r\n3\r\nody\r\n0\r\n\r\n", 200, b"body"),
    "chunks of nothing": (CHUNKED + b"0\r\n\r\n", 200, b""),
    "chunks with extensions and trailers": (
        CHUNKED + b'4;a=b;c="d"\r\nbody\r\n0\r\nX: 1\r\nY: 2\r\n\r\n',
        200,
        b"body",
    ),
    "chunk with a space": (CHUNKED + b"4 \r\nbody\r\n0\r\n\r\n", 200, b"body"),
    "until the end": (OK + b"\r\nbody", 200, b"body"),
    "until the end of nothing": (OK + b"\r\n", 200, b""),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nbody", 200, b"body"),
    "coded until the end": (OK + b"Transfer-Encoding: x-odd\r\n\r\nbody", 200, b"body"),
    "after interim answers": (INTERIM + LENGTH + b"body", 200, b"body"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", 304, b""),
    "no reason": (b"HTTP/1.1 503\r\nContent-Length: 4\r\n\r\nbody", 503, b"body"),
    "folded header": (OK + b"X: a\r\n b\r\nContent-Length: 4\r\n\r\nbody", 200, b"body"),
    "control characters": (OK + b"X: a\x01\xffb\r\nContent-Length: 4\r\n\r\nbody", 200, b"body"),
    "bare line feeds": (OK.replace(b"\r", b"") + b"Content-Length: 4\n\nbody", 200, b"body"),
    "long header": (OK + b"X: " + b"x" * 20_000 + b"\r\nContent-Length: 4\r\n\r\nbody", 200, b"body"),
    "something after it": (LENGTH + b"body" + LENGTH + b"next", 200, b"body"),
    "garbage after it": (LENGTH + b"body\x00\x16 garbage", 200, b"body"),
    "garbage after the last chunk": (CHUNKED + b"4\r\nbody\r\n0\r\n\r\n\x00 garbage", 200, b"body"),
    "closing, and more": (OK + b"Connection: close\r\nContent-Length: 4\r\n\r\nbody more", 200, b"body"),
    "another protocol": (b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nother bytes", 101, b""),
}

BROKEN: dict[str, bytes] = {
    "two lengths": OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
    "the same length twice": OK + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody",
    "length and chunks": OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "negative length": OK + b"Content-Length: -1\r\n\r\nbody",
    "length beyond 64 bits": OK + b"Content-Length: 99999999999999999999\r\n\r\nbody",
    "length with words": OK + b"Content-Length: four\r\n\r\nbody",
    "chunk size with words": CHUNKED + b"zz\r\nbody\r\n0\r\n\r\n",
    "chunk beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\nbody\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"3\r\nbody\r\n0\r\n\r\n",
    "cut length": LENGTH + b"bod",
    "cut chunk": CHUNKED + b"4\r\nbod",
    "no last chunk": CHUNKED + b"4\r\nbody\r\n",
    "cut last chunk": CHUNKED + b"4\r\nbody\r\n0\r\n",
    "cut head": OK + b"Content-Len",
    "only interim answers": INTERIM,
    "nothing": b"",
    "another protocol without HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a version that is none": b"HTTP/9.9 200 OK\r\n\r\n",
    "endless head": OK + b"X: " + b"x" * ENDLESS,
    "endless headers": OK + b"X: 1\r\n" * (ENDLESS // 6),
    "endless interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * (ENDLESS // 25) + LENGTH + b"body",
    "endless extension": CHUNKED + b"4\r\nbody\r\n4;" + b"x" * ENDLESS,
    "endless trailer": CHUNKED + b"4\r\nbody\r\n0\r\n" + b"X: 1\r\n" * (ENDLESS // 6),
}


@on_both_loops
def test_framings_over_tcp(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each answer is read to its own end over a real connection, or fails as one that may be billed."""

    async def play() -> None:
        answers = {name: raw for name, (raw, _, _) in WHOLE.items()} | BROKEN

        async def answer(peer: Peer) -> None:
            path = (await peer.read_request()).split(b" ")[1]
            await peer.send(answers[list(answers)[int(path[1:])]])
            peer.finish()
            await peer.wait_gone()

        async with FaultServer(answer) as server, open_client(HttpTransport(fresh=True)) as client:
            for number, name in enumerate(answers):
                call = client.post(f"{server.url}/{number}", content=SMALL)
                (end,) = await asyncio.gather(call, return_exceptions=True)
                if name in WHOLE:
                    assert isinstance(end, httpx.Response), (name, end)
                    assert (end.status_code, end.content) == WHOLE[name][1:], name
                else:
                    assert isinstance(end, httpx.ReadError | httpx.RemoteProtocolError), (name, end)
                    assert was_sent(end)

    run_on(loop, play())
    assert not caplog.records


class Wire(asyncio.Transport):
    """A connection's lower end that carries nothing, so that a test sets the packets."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    @override
    def write(self, data: Any) -> None:
        assert data

    @override
    def abort(self) -> None:
        self.is_aborted = True

    @override
    def is_closing(self) -> bool:
        return self.is_aborted

    @override
    def pause_reading(self) -> None:
        raise AssertionError("these answers are small")


async def read_packets(packets: Iterable[bytes], method: str = "POST") -> tuple[int, bytes] | RequestError:
    """The status and the body of an answer that comes in these packets and then ends; or how it failed."""
    connection, wire = Connection(("http", "x.test", 80), "127.0.0.1", lambda _: None), Wire()
    connection.connection_made(wire)
    exchange = Exchange(method, TimeLimits(60, 60, 60), math.inf, None)
    head = asyncio.ensure_future(exchange.run(connection, b"head", None, 0))
    await asyncio.sleep(0)
    for packet in packets:
        if not wire.is_aborted:
            connection.data_received(packet)
    if not wire.is_aborted:
        connection.eof_received()
    assert wire.is_aborted
    try:
        answer = await head
        return answer.status, b"".join([piece async for piece in answer.aiter_raw()])
    except RequestError as error:
        return error


async def test_packets_change_nothing() -> None:
    """Cut anywhere, or sent byte by byte, an answer is the same one."""
    for name, (raw, status, body) in WHOLE.items():
        cuts = range(1, len(raw)) if len(raw) < 1000 else range(1, len(raw), 1999)
        for cut in cuts:
            assert await read_packets([raw[:cut], raw[cut:]]) == (status, body), (name, cut)
        assert await read_packets(raw[at : at + 1] for at in range(len(raw))) == (status, body), name
    for name, raw in BROKEN.items():
        size = 1 if len(raw) < 1000 else 1999
        end = await read_packets(raw[at : at + size] for at in range(0, len(raw), size))
        assert isinstance(end, httpx.ReadError | httpx.RemoteProtocolError), (name, end)
        assert was_sent(end), name


async def test_every_cut_is_seen() -> None:
    """An answer that says where it ends is whole, or its end is missed, wherever the connection breaks."""
    for name in ("length", "chunks with extensions and trailers", "after interim answers"):
        raw, status, body = WHOLE[name]
        for cut in range(len(raw)):
            end = await read_packets([raw[:cut]])
            assert isinstance(end, httpx.ReadError | httpx.RemoteProtocolError), (name, cut, end)
        assert await read_packets([raw]) == (status, body)


async def test_answer_to_head_has_no_body() -> None:
    """An answer to HEAD ends with its headers, whatever length they name."""
    assert await read_packets([LENGTH], "HEAD") == (200, b"")
    assert await read_packets([CHUNKED], "HEAD") == (200, b"")
