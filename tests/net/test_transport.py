"""The verdict "was it sent", on real sockets: every way a connection can fail, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.net.failures import was_sent
from gateway.net.transport import HttpTransport
from tests.support.fault_server import (
    LARGE,
    SMALL,
    Connection,
    FaultServer,
    Script,
    on_both_loops,
    open_connections,
    run_on,
)
from tests.support.transport_client import open_client

BRIEF = httpx.Timeout(0.25)
PEM = Path(__file__).with_name("pictures.test.pem")


async def refuse(connection: Connection) -> None:
    connection.reset()


async def stall(connection: Connection) -> None:
    await connection.stall()


async def stall_after_request(connection: Connection) -> None:
    await connection.read_request()
    await connection.stall()


async def reset_after_request(connection: Connection) -> None:
    await connection.read_request()
    connection.reset()


async def reset_mid_upload(connection: Connection) -> None:
    await connection.read(500_000)
    connection.reset()


async def close_after_request(connection: Connection) -> None:
    await connection.read_request()


async def answer_garbage(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"\x16\x03\x01\x02 not HTTP at all\r\n\r\n")
    await connection.wait_gone()


async def answer_half_head(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Le")


async def answer_head_only(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")


async def truncate_counted_body(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")


async def truncate_chunked_body(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")


async def stall_in_body(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    await connection.stall()


@dataclass(frozen=True)
class Case:
    script: Script
    body: bytes
    errors: tuple[type[Exception], ...]
    sent: bool


LOST = (httpx.ReadError, httpx.RemoteProtocolError)

CASES = {
    # The loop may see the reset before the gateway writes.
    "reset at once, small": Case(refuse, SMALL, (*LOST, httpx.ConnectError), True),
    "reset at once, large": Case(refuse, LARGE, (httpx.WriteError, httpx.ConnectError), False),
    "never read, small": Case(stall, SMALL, (httpx.ReadTimeout,), True),
    "never read, large": Case(stall, LARGE, (httpx.WriteTimeout,), False),
    "stalled after request": Case(stall_after_request, SMALL, (httpx.ReadTimeout,), True),
    "stalled after large request": Case(stall_after_request, LARGE, (httpx.ReadTimeout,), True),
    "stalled after empty request": Case(stall_after_request, b"", (httpx.ReadTimeout,), True),
    "reset after request": Case(reset_after_request, SMALL, LOST, True),
    "reset after large request": Case(reset_after_request, LARGE, LOST, True),
    "reset after empty request": Case(reset_after_request, b"", LOST, True),
    "reset in upload": Case(reset_mid_upload, LARGE, (httpx.WriteError,), False),
    "closed after request": Case(close_after_request, SMALL, (httpx.RemoteProtocolError,), True),
    "garbage": Case(answer_garbage, SMALL, (httpx.RemoteProtocolError,), True),
    "half a head": Case(answer_half_head, SMALL, LOST, True),
    "head without body": Case(answer_head_only, SMALL, (httpx.ReadError,), True),
    "counted body cut": Case(truncate_counted_body, SMALL, (httpx.ReadError,), True),
    "chunked body cut": Case(truncate_chunked_body, SMALL, (httpx.ReadError,), True),
    "body stalled": Case(stall_in_body, SMALL, (httpx.ReadTimeout,), True),
}


async def fail(url: str, body: bytes = SMALL, *, context: ssl.SSLContext | None = None) -> httpx.RequestError:
    """The error of a POST that must fail, read to the end of its answer."""
    async with open_client(HttpTransport(fresh=True, ssl_context=context), timeout=BRIEF) as client:
        with pytest.raises(httpx.RequestError) as caught:
            await client.post(url, content=body)
    return caught.value


@pytest.mark.parametrize("name", CASES)
@on_both_loops
def test_every_fault_has_its_verdict(loop: str, name: str) -> None:
    """Each broken connection gives the expected error, and "not sent" only when the request did not leave whole."""
    case = CASES[name]

    async def play() -> None:
        async with FaultServer(case.script) as server:
            error = await fail(server.url, case.body)
            assert isinstance(error, case.errors), repr(error)
            assert was_sent(error) is (case.sent and not isinstance(error, httpx.ConnectError))
            assert server.accepted == 1

    run_on(loop, play())


@on_both_loops
def test_connect_failures_are_not_sent(loop: str) -> None:
    """No name, a closed port, a broken or an untrusted TLS peer, a handshake that hangs: nothing was sent."""

    async def garble(connection: Connection) -> None:
        await connection.send(b"this is not TLS\r\n")
        await connection.wait_gone()

    async def play() -> None:
        async with FaultServer(stall) as silent, FaultServer(garble) as plain:
            closed = FaultServer(stall)
            await closed.__aexit__(None, None, None)
            server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            server_tls.load_cert_chain(PEM)
            untrusted = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0, ssl=server_tls)
            port = untrusted.sockets[0].getsockname()[1]
            for url, kind in [
                (closed.url, httpx.ConnectError),
                (f"http://{'a' * 64}.test", httpx.ConnectError),
                ("http://127.1:80", httpx.ConnectError),
                (f"https://127.0.0.1:{plain.port}", httpx.ConnectError),
                (f"https://127.0.0.1:{port}", httpx.ConnectError),
                (f"https://127.0.0.1:{silent.port}", httpx.ConnectTimeout),
                ("ftp://127.0.0.1/", httpx.UnsupportedProtocol),
            ]:
                error = await fail(url)
                assert isinstance(error, kind), (url, repr(error))
                assert not was_sent(error), url
            untrusted.close()
            await untrusted.wait_closed()

    run_on(loop, play())


def test_unknown_errors_count_as_sent() -> None:
    """An exception without proof, even one named ConnectError by somebody else, may have been billed."""
    for error in [
        ValueError(),
        OSError(),
        httpx.ConnectError("x"),
        httpx.WriteError("x"),
        KeyboardInterrupt(),
    ]:
        assert was_sent(error)


@on_both_loops
def test_unsendable_headers_are_not_sent(loop: str) -> None:
    """A header that would split the request is refused before a connection is made."""

    async def play() -> None:
        async with FaultServer(stall) as server, open_client(HttpTransport(fresh=True)) as client:
            for value in [b"a\r\nx: y", b"\xff", b"\x00"]:
                with pytest.raises(httpx.LocalProtocolError) as caught:
                    await client.post(server.url, headers=[(b"x-a", value)])
                assert not was_sent(caught.value)
            assert server.accepted == 0

    run_on(loop, play())


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"y" * size


@on_both_loops
def test_streamed_body_keeps_its_length(loop: str) -> None:
    """A stream with a Content-Length is sent with it, unchunked; one without is chunked; both arrive whole."""

    async def answer(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer()

    async def play() -> None:
        async with FaultServer(answer) as server, open_client(HttpTransport(fresh=True)) as client:
            counted = {"content-length": "200001"}
            await client.post(server.url, content=pieces(100_000, 1, 100_000), headers=counted)
            await client.post(server.url, content=pieces(100_000, 1))
            assert b"content-length: 200001" in server.heads[0].lower()
            assert b"transfer-encoding" not in server.heads[0].lower()
            assert b"Transfer-Encoding: chunked" in server.heads[1]
            assert [len(body) for body in server.bodies] == [200_001, 100_001]

    run_on(loop, play())


@pytest.mark.parametrize("sizes", [(500,), (500, 600)])
@on_both_loops
def test_wrong_length_is_never_whole(loop: str, sizes: tuple[int, ...]) -> None:
    """A body shorter or longer than its Content-Length fails at once and is not counted as sent."""

    async def play() -> None:
        async with FaultServer(stall_after_request) as server, open_client(HttpTransport(fresh=True)) as client:
            with pytest.raises(httpx.WriteError) as caught:
                await client.post(server.url, content=pieces(*sizes), headers={"content-length": "1000"})
            assert not was_sent(caught.value)

    run_on(loop, play())


@on_both_loops
def test_failing_source_is_not_sent(loop: str) -> None:
    """When the body's own source fails midway, the request was not sent whole, and the cause is kept."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise FileNotFoundError("the temporary file is gone")

    async def play() -> None:
        async with FaultServer(stall_after_request) as server, open_client(HttpTransport(fresh=True)) as client:
            with pytest.raises(httpx.WriteError) as caught:
                await client.post(server.url, content=broken(), headers={"content-length": "1000"})
            assert not was_sent(caught.value)
            assert isinstance(caught.value.__cause__, FileNotFoundError)

    run_on(loop, play())


@on_both_loops
def test_early_answer_is_kept(loop: str) -> None:
    """An upstream that refuses before it has read the upload is heard, not reported as a broken connection."""

    async def refuse_early(connection: Connection) -> None:
        await connection.read_head()
        await connection.answer(b"too large", "413 Content Too Large", "Connection: close")
        await connection.stall()

    async def play() -> None:
        async with FaultServer(refuse_early) as server:
            async with open_client(HttpTransport(fresh=True), timeout=BRIEF) as client:
                answer = await client.post(server.url, content=LARGE)
            assert (answer.status_code, answer.content) == (413, b"too large")

    run_on(loop, play())


@on_both_loops
def test_early_answer_survives_its_reset(loop: str) -> None:
    """An early answer is heard although the upload meets a reset; where the reset wins, the call is "not sent"."""

    async def refuse_and_reset(connection: Connection) -> None:
        await connection.read_head()
        await connection.answer(b"too large", "413 Content Too Large", "Connection: close")

    async def play() -> None:
        async with FaultServer(refuse_and_reset) as server, open_client(HttpTransport(fresh=True)) as client:
            calls = [client.post(server.url, content=LARGE) for _ in range(10)]
            ends = [(await asyncio.gather(call, return_exceptions=True))[0] for call in calls]
        heard = [end for end in ends if isinstance(end, httpx.Response) and end.status_code == 413]
        unsent = [end for end in ends if isinstance(end, httpx.WriteError) and not was_sent(end)]
        assert len(heard) + len(unsent) == 10
        assert len(heard) >= 5

    run_on(loop, play())


class Meter:
    """A large body that counts what was taken of it."""

    def __init__(self) -> None:
        self.taken = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(LARGE), 65_536):
            self.taken += 1
            yield LARGE[start : start + 65_536]

    async def wait_stuck(self) -> None:
        """Return when nothing was taken for a thousand turns of the loop."""
        before = -1
        while before != self.taken or not before:
            before = self.taken
            for _ in range(1000):
                await asyncio.sleep(0)


@on_both_loops
@pytest.mark.parametrize("answers", [False, True])
def test_stalled_upload_frees_its_descriptor(loop: str, answers: bool) -> None:
    """A peer that stops reading keeps nothing of ours: its connection is dropped, not politely flushed for ever."""
    meters: list[Meter] = []

    async def stop_reading(connection: Connection) -> None:
        await connection.read_head()
        await meters[-1].wait_stuck()
        if answers:
            await connection.answer(b"too large", "413 Content Too Large")
        await connection.stall()

    async def play() -> None:
        client_of = open_client(HttpTransport(fresh=True), timeout=BRIEF)
        async with FaultServer(stop_reading) as server, client_of as client:
            for _ in range(3):
                meters.append(Meter())
                call = client.post(server.url, content=meters[-1].chunks(), headers={"content-length": str(len(LARGE))})
                end = (await asyncio.gather(call, return_exceptions=True))[0]
                assert isinstance(end, httpx.Response if answers else httpx.WriteTimeout)
                for _ in range(3):
                    await asyncio.sleep(0)  # the cancelled writer's turn, and its connection's
                assert open_connections(server.url) == 0

    run_on(loop, play())


@on_both_loops
def test_reset_never_ends_a_body(loop: str) -> None:
    """A body that ends with its connection is whole after a FIN and broken after a reset."""

    async def end_cleanly(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nwhole")

    async def play() -> None:
        transport = HttpTransport(fresh=True)
        async with FaultServer(end_cleanly) as clean, open_client(transport, timeout=BRIEF) as client:
            assert (await client.get(clean.url)).content == b"whole"
            go = asyncio.Event()

            async def reset_later(connection: Connection) -> None:
                await connection.read_request()
                await connection.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
                await go.wait()
                connection.reset()

            async with FaultServer(reset_later) as server, client.stream("GET", server.url) as answer:
                body = answer.aiter_raw()
                assert await anext(body) == b"half"
                go.set()
                with pytest.raises(httpx.ReadError):
                    await anext(body)

    run_on(loop, play())
