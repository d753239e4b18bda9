"""How the transport treats connections: who shares one, what closes one, what travels on one."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.net.transport import AiohttpTransport, was_sent
from tests.support.fault_server import LARGE, SMALL, Connection, FaultServer, on_both_loops, open_connections, run_on
from tests.support.transport_client import open_client


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

    async def read_answer(client: httpx.AsyncClient, url: str) -> None:
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
        assert open_connections(holder.url) == open_connections(talker.url) == 0


@on_both_loops
def test_cancelled_calls_leave_nothing(loop: str) -> None:
    """Fifty cancelled calls close their connections and leave no task."""

    async def play() -> None:
        tasks = asyncio.all_tasks()
        for fresh in (True, False):
            await cancel_fifty(fresh)
            assert asyncio.all_tasks() == tasks

    run_on(loop, play())


@on_both_loops
def test_closed_answer_closes_its_connection(loop: str) -> None:
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

    run_on(loop, play())


@on_both_loops
def test_fresh_connection_for_every_call(loop: str) -> None:
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

    run_on(loop, play())


@on_both_loops
def test_lost_post_is_never_resent(loop: str) -> None:
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
                with pytest.raises(httpx.RemoteProtocolError) as caught:
                    await client.post(f"{server.url}/second", content=SMALL)
            assert was_sent(caught.value)
            assert (len(server.heads), server.accepted) == (2, 1)
        for method in ("GET", "PUT", "DELETE", "POST"):
            async with FaultServer(answer_once) as server:
                async with open_client(AiohttpTransport(fresh=True)) as client:
                    with pytest.raises(httpx.RemoteProtocolError):
                        await client.request(method, server.url)
                assert len(server.heads) == 1

    run_on(loop, play())


@on_both_loops
def test_nothing_is_added_or_followed(loop: str) -> None:
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

    run_on(loop, play())


@on_both_loops
def test_pinned_address_is_the_only_one(loop: str) -> None:
    """With `addresses` no name is looked up: the call goes to the address given, with the name kept in Host."""

    async def answer(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer()

    async def play() -> None:
        async with FaultServer(answer) as server, open_client(AiohttpTransport(fresh=True)) as client:
            url = f"http://pictures.test:{server.port}/"
            await client.get(url, extensions={"addresses": ("127.0.0.1",)})
            assert f"Host: pictures.test:{server.port}".encode() in server.heads[0]
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get(url, extensions={"addresses": ()})
            assert not was_sent(caught.value)

    run_on(loop, play())


@on_both_loops
def test_closed_transport_sends_nothing(loop: str) -> None:
    """After `aclose`, a late call is refused with proof that it was not sent."""

    async def play() -> None:
        transport = AiohttpTransport(fresh=True)
        await transport.aclose()
        with pytest.raises(httpx.ConnectError) as caught:
            await transport.handle_async_request(httpx.Request("POST", "http://127.0.0.1:9/"))
        assert not was_sent(caught.value)

    run_on(loop, play())
