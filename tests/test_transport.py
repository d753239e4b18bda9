"""The verdict "was it sent", on real sockets: every way a connection can fail, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from gateway import outbound
from gateway.transport import AiohttpTransport, open_client, was_sent
from tests.faultserver import Connection, FaultServer, Script

SMALL = b"x" * 1000
LARGE = b"x" * 16_000_000
"""More than the sockets' buffers of both sides take."""

BRIEF = outbound.Timeout(0.25)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
PEM = Path(__file__).with_name("pictures.test.pem")


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    def run_here(work: Awaitable[None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(work, 10))

    return run_here


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


LOST = (outbound.ReadError, outbound.RemoteProtocolError)

CASES = {
    "reset at once, small": Case(refuse, SMALL, LOST, True),
    "reset at once, large": Case(refuse, LARGE, (outbound.WriteError,), False),
    "never read, small": Case(stall, SMALL, (outbound.ReadTimeout,), True),
    "never read, large": Case(stall, LARGE, (outbound.WriteTimeout,), False),
    "stalled after request": Case(stall_after_request, SMALL, (outbound.ReadTimeout,), True),
    "stalled after large request": Case(stall_after_request, LARGE, (outbound.ReadTimeout,), True),
    "stalled after empty request": Case(stall_after_request, b"", (outbound.ReadTimeout,), True),
    "reset after request": Case(reset_after_request, SMALL, LOST, True),
    "reset after large request": Case(reset_after_request, LARGE, LOST, True),
    "reset after empty request": Case(reset_after_request, b"", LOST, True),
    "reset in upload": Case(reset_mid_upload, LARGE, (outbound.WriteError,), False),
    "closed after request": Case(close_after_request, SMALL, (outbound.RemoteProtocolError,), True),
    "garbage": Case(answer_garbage, SMALL, (outbound.RemoteProtocolError,), True),
    "half a head": Case(answer_half_head, SMALL, LOST, True),
    "head without body": Case(answer_head_only, SMALL, (outbound.ReadError,), True),
    "counted body cut": Case(truncate_counted_body, SMALL, (outbound.ReadError,), True),
    "chunked body cut": Case(truncate_chunked_body, SMALL, (outbound.ReadError,), True),
    "body stalled": Case(stall_in_body, SMALL, (outbound.ReadTimeout,), True),
}


async def fail(url: str, body: bytes = SMALL, *, context: ssl.SSLContext | None = None) -> outbound.RequestError:
    """The error of a POST that must fail, read to the end of its answer."""
    async with open_client(AiohttpTransport(fresh=True, ssl_context=context), timeout=BRIEF) as client:
        with pytest.raises(outbound.RequestError) as caught:
            await client.post(url, content=body)
    return caught.value


@pytest.mark.parametrize("name", CASES)
def test_every_fault_has_its_verdict(run: Callable[[Awaitable[None]], None], name: str) -> None:
    """Each broken connection gives the expected error, and "not sent" only when the request did not leave whole."""
    case = CASES[name]

    async def play() -> None:
        async with FaultServer(case.script) as server:
            error = await fail(server.url, case.body)
            assert isinstance(error, case.errors), repr(error)
            assert was_sent(error) is case.sent
            assert server.accepted == 1

    run(play())


def test_connect_failures_are_not_sent(run: Callable[[Awaitable[None]], None]) -> None:
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
                (closed.url, outbound.ConnectError),
                (f"http://{'a' * 64}.test", outbound.ConnectError),
                ("http://127.1:80", outbound.ConnectError),
                (f"https://127.0.0.1:{plain.port}", outbound.ConnectError),
                (f"https://127.0.0.1:{port}", outbound.ConnectError),
                (f"https://127.0.0.1:{silent.port}", outbound.ConnectTimeout),
                ("ftp://127.0.0.1/", outbound.UnsupportedProtocol),
            ]:
                error = await fail(url)
                assert isinstance(error, kind), (url, repr(error))
                assert not was_sent(error), url
            untrusted.close()
            await untrusted.wait_closed()

    run(play())


def test_unknown_errors_count_as_sent() -> None:
    """An exception without proof, even one named ConnectError by somebody else, may have been billed."""
    for error in [ValueError(), OSError(), outbound.ConnectError("x"), outbound.WriteError("x"), KeyboardInterrupt()]:
        assert was_sent(error)


def test_unsendable_headers_are_not_sent(run: Callable[[Awaitable[None]], None]) -> None:
    """A header that would split the request is refused before a connection is made."""

    async def play() -> None:
        async with FaultServer(stall) as server, open_client(AiohttpTransport(fresh=True)) as client:
            for value in [b"a\r\nx: y", b"\xff", b"\x00"]:
                with pytest.raises(outbound.LocalProtocolError) as caught:
                    await client.post(server.url, headers=[(b"x-a", value)])
                assert not was_sent(caught.value)
            assert server.accepted == 0

    run(play())


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"y" * size


def test_streamed_body_keeps_its_length(run: Callable[[Awaitable[None]], None]) -> None:
    """A stream with a Content-Length is sent with it, unchunked; one without is chunked; both arrive whole."""

    async def answer(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer()

    async def play() -> None:
        async with FaultServer(answer) as server, open_client(AiohttpTransport(fresh=True)) as client:
            counted = {"content-length": "200001"}
            await client.post(server.url, content=pieces(100_000, 1, 100_000), headers=counted)
            await client.post(server.url, content=pieces(100_000, 1))
            assert b"content-length: 200001" in server.heads[0].lower()
            assert b"transfer-encoding" not in server.heads[0].lower()
            assert b"Transfer-Encoding: chunked" in server.heads[1]
            assert [len(body) for body in server.bodies] == [200_001, 100_001]

    run(play())


@pytest.mark.parametrize("sizes", [(500,), (500, 600)])
def test_wrong_length_is_never_whole(run: Callable[[Awaitable[None]], None], sizes: tuple[int, ...]) -> None:
    """A body shorter or longer than its Content-Length fails at once and is not counted as sent."""

    async def play() -> None:
        async with FaultServer(stall_after_request) as server, open_client(AiohttpTransport(fresh=True)) as client:
            with pytest.raises(outbound.WriteError) as caught:
                await client.post(server.url, content=pieces(*sizes), headers={"content-length": "1000"})
            assert not was_sent(caught.value)

    run(play())


def test_failing_source_is_not_sent(run: Callable[[Awaitable[None]], None]) -> None:
    """When the body's own source fails midway, the request was not sent whole, and the cause is kept."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise FileNotFoundError("the temporary file is gone")

    async def play() -> None:
        async with FaultServer(stall_after_request) as server, open_client(AiohttpTransport(fresh=True)) as client:
            with pytest.raises(outbound.WriteError) as caught:
                await client.post(server.url, content=broken(), headers={"content-length": "1000"})
            assert not was_sent(caught.value)
            assert isinstance(caught.value.__cause__.__cause__, FileNotFoundError)

    run(play())


def test_early_answer_is_kept(run: Callable[[Awaitable[None]], None]) -> None:
    """An upstream that refuses before it has read the upload is heard, not reported as a broken connection."""

    async def refuse_early(connection: Connection) -> None:
        await connection.read_head()
        await connection.answer(b"too large", "413 Content Too Large", "Connection: close")
        await connection.stall()

    async def play() -> None:
        async with FaultServer(refuse_early) as server:
            async with open_client(AiohttpTransport(fresh=True), timeout=BRIEF) as client:
                answer = await client.post(server.url, content=LARGE)
            assert (answer.status_code, answer.content) == (413, b"too large")

    run(play())


def test_reset_never_ends_a_body(run: Callable[[Awaitable[None]], None]) -> None:
    """A body that ends with its connection is whole after a FIN and broken after a reset."""

    async def end_cleanly(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nwhole")

    async def play() -> None:
        transport = AiohttpTransport(fresh=True)
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
                with pytest.raises(outbound.ReadError):
                    await anext(body)

    run(play())


async def cancel_fifty(fresh: bool) -> None:
    """Cancel calls that upload, wait or read, and return when their servers have seen every connection end."""
    over, arrived = asyncio.Event(), asyncio.Semaphore(0)

    async def hold(connection: Connection) -> None:
        await connection.read_head()
        arrived.release()
        await over.wait()
        await connection.wait_gone()

    async def talk(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await connection.wait_gone()

    async def read_answer(client: outbound.AsyncClient, url: str) -> None:
        async with client.stream("POST", url, content=SMALL) as answer:
            async for _ in answer.aiter_raw():
                arrived.release()

    async with (
        FaultServer(hold) as holder,
        FaultServer(talk) as talker,
        open_client(AiohttpTransport(fresh=fresh), timeout=5) as client,
    ):
        calls = [client.post(holder.url, content=LARGE) for _ in range(5)]
        calls += [client.post(holder.url, content=SMALL) for _ in range(25)]
        calls += [read_answer(client, talker.url) for _ in range(20)]
        tasks = [asyncio.create_task(call) for call in calls]
        for _ in tasks:
            await arrived.acquire()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        over.set()
        for server in [holder] * 30 + [talker] * 20:
            await server.gone.acquire()


def test_cancelled_calls_leave_nothing(run: Callable[[Awaitable[None]], None]) -> None:
    """Fifty cancelled calls close their connections and leave no task and no descriptor."""

    async def play() -> None:
        await cancel_fifty(fresh=True)  # opens what stays open, such as the threads that look up names
        tasks, descriptors = asyncio.all_tasks(), len(os.listdir("/proc/self/fd"))
        for fresh in (True, False):
            await cancel_fifty(fresh)
            assert asyncio.all_tasks() == tasks
            assert len(os.listdir("/proc/self/fd")) == descriptors

    run(play())


def test_closed_answer_closes_its_connection(run: Callable[[Awaitable[None]], None]) -> None:
    """A reader that stops midway frees the connection at once, and a slow one holds the sender back."""
    finished = asyncio.Event()

    async def pour(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n")
        for _ in range(64):
            await connection.send(b"z" * 1_000_000)
        finished.set()

    async def play() -> None:
        async with FaultServer(pour) as server, open_client(AiohttpTransport(fresh=False)) as client:
            async with client.stream("GET", server.url) as answer:
                assert await anext(answer.aiter_raw())
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(finished.wait(), 0.3)
            await server.gone.acquire()
            assert not finished.is_set()

    run(play())


def test_fresh_connection_for_every_call(run: Callable[[Awaitable[None]], None]) -> None:
    """Paid calls never share a connection; polls do, until it has idled too long."""

    async def answer(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.answer()

    async def play() -> None:
        for fresh, keep_alive, connections in [(True, 15, 3), (False, 15, 1), (False, 0, 3)]:
            async with FaultServer(answer) as server:
                async with open_client(AiohttpTransport(fresh=fresh, keep_alive=keep_alive)) as client:
                    for _ in range(3):
                        await client.post(server.url, content=b"x")
                assert server.accepted == connections
                assert all((b"connection: close" in head.lower()) is fresh for head in server.heads)

    run(play())


def test_lost_post_is_never_resent(run: Callable[[Awaitable[None]], None]) -> None:
    """A POST whose connection breaks is sent once, on a kept connection too; so is any method on a fresh one."""

    async def answer_once(connection: Connection) -> None:
        head = await connection.read_request()
        if b" /first " in head:
            await connection.answer()
            await connection.read_request()

    async def play() -> None:
        async with FaultServer(answer_once) as server:
            async with open_client(AiohttpTransport(fresh=False)) as client:
                await client.get(f"{server.url}/first")
                with pytest.raises(outbound.RemoteProtocolError) as caught:
                    await client.post(f"{server.url}/second", content=SMALL)
            assert was_sent(caught.value)
            assert (len(server.heads), server.accepted) == (2, 1)
        for method in ("GET", "PUT", "DELETE", "POST"):
            async with FaultServer(answer_once) as server:
                async with open_client(AiohttpTransport(fresh=True)) as client:
                    with pytest.raises(outbound.RemoteProtocolError):
                        await client.request(method, server.url)
                assert len(server.heads) == 1

    run(play())


def test_nothing_is_added_or_followed(run: Callable[[Awaitable[None]], None]) -> None:
    """Headers travel and return unchanged, no cookie is kept, no redirect followed, no compression asked for."""

    async def redirect(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(b"", "302 Found", "Location: /other", "X-Two: 1", "x-two: 2", "Set-Cookie: tenant=a")

    async def play() -> None:
        async with FaultServer(redirect) as server, open_client(AiohttpTransport(fresh=True)) as client:
            for _ in range(2):
                answer = await client.post(f"{server.url}/a%2Fb?q=%20", content=b"x")
            assert answer.status_code == 302
            assert answer.headers.get_list("x-two") == ["1", "2"]
            assert server.heads[1].startswith(b"POST /a%2Fb?q=%20 HTTP/1.1\r\n")
            names = [line.partition(b":")[0].lower() for line in server.heads[1].split(b"\r\n")[1:-2]]
            added = {b"accept", b"accept-encoding", b"connection", b"content-length", b"host", b"user-agent"}
            assert (set(names), len(names)) == (added, len(added))
            assert b"Accept-Encoding: identity" in server.heads[1]

    run(play())


def test_pinned_address_is_the_only_one(run: Callable[[Awaitable[None]], None]) -> None:
    """With `addresses` no name is looked up: the call goes to the address given, with the name kept in Host."""

    async def answer(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer()

    async def play() -> None:
        async with FaultServer(answer) as server, open_client(AiohttpTransport(fresh=True)) as client:
            url = f"http://pictures.test:{server.port}/"
            await client.get(url, extensions={"addresses": ("127.0.0.1",)})
            assert f"Host: pictures.test:{server.port}".encode() in server.heads[0]
            with pytest.raises(outbound.ConnectError) as caught:
                await client.get(url, extensions={"addresses": ()})
            assert not was_sent(caught.value)

    run(play())


def test_closed_transport_sends_nothing(run: Callable[[Awaitable[None]], None]) -> None:
    """After `aclose`, a late call is refused with proof that it was not sent."""

    async def play() -> None:
        transport = AiohttpTransport(fresh=True)
        await transport.aclose()
        with pytest.raises(outbound.ConnectError) as caught:
            await transport.handle_async_request(outbound.Request("POST", "http://127.0.0.1:9/"))
        assert not was_sent(caught.value)

    run(play())
