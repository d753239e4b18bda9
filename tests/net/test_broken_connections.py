"""A peer that leaves at any point, plain and over TLS: "was it sent" is right, and nothing of ours stays open."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import pytest

from gateway.net.connection import TimeLimits
from gateway.net.failures import RequestError, name_phase, was_sent
from gateway.net.transport import HttpTransport, Request
from tests.support.fault_server import LARGE, SMALL, Connection, FaultServer, on_both_loops, open_connections, run_on

PEM = Path(__file__).with_name("pictures.test.pem")
HOST = "pictures.test"
LIMITS = TimeLimits(connect=5, read=5, total=8, write=5)
HASTE = TimeLimits(connect=0.2, read=0.2, total=5, write=0.2)
HEADERS = {"authorization": "Bearer of-a-secret"}

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, and a client's that trusts it."""
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(PEM)
    return served, ssl.create_default_context(cafile=PEM)


@asynccontextmanager
async def serve(peer: Peer, *, is_tls: bool) -> AsyncIterator[str]:
    """A server that plays the peer on each connection; its URL, under the name of its certificate."""

    plays: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            await peer(reader, writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plays[asyncio.ensure_future(play(reader, writer))] = writer

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=contexts()[0] if is_tls else None)
    async with server:
        yield f"{'https' if is_tls else 'http'}://{HOST}:{server.sockets[0].getsockname()[1]}/"
        for task, writer in plays.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*plays, return_exceptions=True)
        await asyncio.sleep(0)


async def send(
    transport: HttpTransport, url: str, body: bytes | None, limits: TimeLimits = LIMITS, *, addresses: str = "127.0.0.1"
) -> tuple[int, bytes]:
    """Send to the addresses; the status and the body of the answer."""
    method = "GET" if body is None else "POST"
    request = Request(method, httpx.URL(url), HEADERS, body, limits, tuple(addresses.split()))
    answer = await transport.send(request)
    try:
        return answer.status, b"".join([piece async for piece in answer.aiter_raw()])
    finally:
        await answer.aclose()


async def read_request(reader: asyncio.StreamReader, body: bytes = SMALL) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(body))


async def reset_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def close_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset_in_upload(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(100_000)
    writer.transport.abort()


async def close_in_upload(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(100_000)
    writer.close()


async def reset_after_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.transport.abort()


async def close_after_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.close()


async def close_in_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-")
    writer.close()


async def close_in_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    writer.close()


async def stall_in_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    await reader.read()


async def stall_in_upload(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(1000)
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Case:
    peer: Peer
    body: bytes
    phases: tuple[str, ...]
    limits: TimeLimits = LIMITS


CASES = {
    # The loop may see the end before the gateway writes.
    "reset at once, small": Case(reset_at_once, SMALL, ("connect", "read")),
    "closed at once, small": Case(close_at_once, SMALL, ("connect", "read")),
    "reset at once, large": Case(reset_at_once, LARGE, ("connect", "write")),
    "closed at once, large": Case(close_at_once, LARGE, ("connect", "write")),
    "reset in the request": Case(reset_in_upload, LARGE, ("write",)),
    "closed in the request": Case(close_in_upload, LARGE, ("write",)),
    "stalled in the request": Case(stall_in_upload, LARGE, ("write",), HASTE),
    "reset after the request": Case(reset_after_request, SMALL, ("read",)),
    "closed after the request": Case(close_after_request, SMALL, ("read",)),
    "closed in the head": Case(close_in_head, SMALL, ("read",)),
    "closed in the body": Case(close_in_body, SMALL, ("read",)),
    "stalled in the body": Case(stall_in_body, SMALL, ("read",), HASTE),
}


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@on_both_loops
def test_leaving_peer_has_its_verdict(loop: str, is_tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever the peer ends or stalls, the phase is right, the secret is not told, and the descriptor is free."""

    async def play() -> None:
        transport = HttpTransport(fresh=True, ssl_context=contexts()[1])
        for name, case in CASES.items():
            async with serve(case.peer, is_tls=is_tls) as url:
                with pytest.raises(RequestError) as caught:
                    await send(transport, url, case.body, case.limits)
                for _ in range(3):
                    await asyncio.sleep(0)
                assert name_phase(caught.value) in case.phases, (name, repr(caught.value))
                assert was_sent(caught.value) is (name_phase(caught.value) == "read"), name
                assert open_connections(url) == 0, name
                assert "of-a-secret" not in "".join(traceback.format_exception(caught.value))

    run_on(loop, play())
    assert not [one for one in caplog.records if "gateway" in one.getMessage()]


@on_both_loops
def test_broken_handshake_is_not_sent(loop: str) -> None:
    """A peer that resets, closes or stalls amid the handshake, or proves another name, was sent nothing."""

    async def reset(connection: Connection) -> None:
        await connection.read(5)
        connection.reset()

    async def close(connection: Connection) -> None:
        await connection.read(5)

    async def stall(connection: Connection) -> None:
        await connection.stall()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("a request came in")

    async def play() -> None:
        transport = HttpTransport(fresh=True, ssl_context=contexts()[1])
        for script, error in ((reset, httpx.ConnectError), (close, httpx.ConnectError), (stall, httpx.ConnectTimeout)):
            async with FaultServer(script) as server:
                url = f"https://{HOST}:{server.port}/"
                with pytest.raises(error) as caught:
                    await send(transport, url, SMALL, HASTE if script is stall else LIMITS)
                assert not was_sent(caught.value)
                await asyncio.sleep(0)
                assert open_connections(url) == 0
        async with serve(answer, is_tls=True) as url:
            with pytest.raises(httpx.ConnectError) as caught:
                await send(transport, url.replace(HOST, "127.0.0.1"), SMALL)
            assert not was_sent(caught.value)

    run_on(loop, play())


@on_both_loops
def test_cancelled_handshake_leaves_nothing(loop: str) -> None:
    """A call that is cancelled amid its handshake closes its connection."""

    async def play() -> None:
        arrived = asyncio.Event()

        async def hold(connection: Connection) -> None:
            await connection.read(5)
            arrived.set()
            await connection.wait_gone()

        transport = HttpTransport(fresh=True, ssl_context=contexts()[1])
        async with FaultServer(hold) as server:
            url = f"https://{HOST}:{server.port}/"
            call = asyncio.ensure_future(send(transport, url, SMALL))
            await arrived.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await server.gone.acquire()
            assert open_connections(url) == 0

    run_on(loop, play())


@on_both_loops
def test_large_bodies_cross_tls(loop: str) -> None:
    """Sixteen megabytes each way arrive whole, over a connection that asks for HTTP/1.1 alone."""
    protocols: list[str | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocols.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await read_request(reader, LARGE)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE) + LARGE)
        await writer.drain()
        writer.close()

    async def play() -> None:
        trusted = ssl.create_default_context(cafile=PEM)
        trusted.set_alpn_protocols(["http/1.1"])
        transport = HttpTransport(fresh=True, ssl_context=trusted)
        contexts()[0].set_alpn_protocols(["h2", "http/1.1"])
        async with serve(answer, is_tls=True) as url:
            assert await send(transport, url, LARGE) == (200, LARGE)
        assert protocols == ["http/1.1"]

    run_on(loop, play())


@on_both_loops
def test_hasty_answer_is_heard(loop: str) -> None:
    """A server that refuses as soon as it has accepted, before any request, is heard."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy")
        await writer.drain()
        writer.write_eof()

    async def play() -> None:
        async with serve(refuse, is_tls=False) as url:
            assert await send(HttpTransport(fresh=True), url, SMALL) == (503, b"busy")

    run_on(loop, play())
