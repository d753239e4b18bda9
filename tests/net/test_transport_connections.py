"""How the transport treats connections: who shares one, what closes one, what travels on one."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from gateway.net.failures import was_sent
from gateway.net.transport import HttpTransport
from tests.support.fault_server import (
    LARGE,
    SMALL,
    Connection,
    FaultServer,
    listen_twice,
    on_both_loops,
    open_connections,
    run_on,
)
from tests.support.transport_client import open_client, to_request


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
        open_client(HttpTransport(fresh=fresh), timeout=5) as client,
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
        async with FaultServer(pour) as server, open_client(HttpTransport(fresh=False)) as client:
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
                async with open_client(HttpTransport(fresh=fresh, keep_alive=keep_alive)) as client:
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
            async with open_client(HttpTransport(fresh=False)) as client:
                await client.get(f"{server.url}/first")
                with pytest.raises(httpx.RemoteProtocolError) as caught:
                    await client.post(f"{server.url}/second", content=SMALL)
            assert was_sent(caught.value)
            assert (len(server.heads), server.accepted) == (2, 1)
        for method in ("GET", "PUT", "DELETE", "POST"):
            async with FaultServer(answer_once) as server:
                async with open_client(HttpTransport(fresh=True)) as client:
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
        async with FaultServer(redirect) as server, open_client(HttpTransport(fresh=True)) as client:
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
        async with FaultServer(answer) as server, open_client(HttpTransport(fresh=True)) as client:
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
        transport = HttpTransport(fresh=True)
        await transport.aclose()
        with pytest.raises(httpx.ConnectError) as caught:
            await transport.send(to_request(httpx.Request("POST", "http://127.0.0.1:9/")))
        assert not was_sent(caught.value)

    run_on(loop, play())


async def answer_all(connection: Connection) -> None:
    while True:
        await connection.read_request()
        await connection.answer()


@on_both_loops
def test_get_survives_a_kept_connection(loop: str) -> None:
    """A GET is sent again, once, after a kept connection that ended without an answer; never after a new one."""

    async def answer_once(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer()
        await connection.read_request()

    async def never_answer(connection: Connection) -> None:
        await connection.read_request()

    async def play() -> None:
        async with FaultServer(answer_once) as server, open_client(HttpTransport(fresh=False)) as client:
            for accepted, heads in ((1, 1), (2, 3), (3, 5)):
                assert (await client.get(server.url)).status_code == 200
                assert (server.accepted, len(server.heads)) == (accepted, heads)
        async with FaultServer(never_answer) as server, open_client(HttpTransport(fresh=False)) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(server.url)
            assert len(server.heads) == 1

    run_on(loop, play())


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", b"\x00 garbage"])
@pytest.mark.parametrize("is_late", [False, True])
@on_both_loops
def test_unasked_bytes_end_a_kept_connection(loop: str, is_late: bool, more: bytes) -> None:
    """Bytes after an answer, at once or later, are never read as the answer to the next request."""

    async def talk(connection: Connection) -> None:
        await connection.read_request()
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        await connection.send(whole if is_late else whole + more)
        if is_late:
            await ready.wait()
            await connection.send(more)
        await connection.wait_gone()

    async def play() -> None:
        async with FaultServer(talk) as server, open_client(HttpTransport(fresh=False)) as client:
            assert (await client.post(server.url, content=SMALL)).content == b"ok"
            ready.set()
            await server.gone.acquire()
            ready.clear()
            assert (await client.post(server.url, content=SMALL)).content == b"ok"
            assert server.accepted == 2

    ready = asyncio.Event()
    run_on(loop, play())


@on_both_loops
def test_idle_connection_closes(loop: str) -> None:
    """A kept connection that nobody uses closes by itself, and at the latest with the transport."""

    async def play() -> None:
        async with FaultServer(answer_all) as server:
            async with open_client(HttpTransport(fresh=False, keep_alive=0.05)) as client:
                await client.get(server.url)
                await server.gone.acquire()
            async with open_client(HttpTransport(fresh=False)) as client:
                await client.get(server.url)
            await server.gone.acquire()
            assert server.accepted == 2

    run_on(loop, play())


@on_both_loops
def test_kept_connection_has_a_checked_address(loop: str) -> None:
    """A kept connection is used again only for requests that may connect to its address."""

    async def play() -> None:
        one, two = listen_twice("127.0.0.1", "127.0.0.2")
        async with FaultServer(answer_all, one) as first, FaultServer(answer_all, two) as second:
            async with open_client(HttpTransport(fresh=False)) as client:
                for addresses in [("127.0.0.1",), ("127.0.0.2",), ("127.0.0.2", "127.0.0.1"), ("127.0.0.1",)]:
                    await client.get(f"http://pictures.test:{first.port}/", extensions={"addresses": addresses})
            assert (first.accepted, second.accepted) == (1, 1)
            assert len(first.heads) + len(second.heads) == 4

    run_on(loop, play())


@on_both_loops
def test_next_address_is_tried(loop: str) -> None:
    """Where one address refuses or says nothing, the next one is tried, and the silent one is left."""

    async def play() -> None:
        one, two = listen_twice("127.0.0.1", "127.0.0.2")
        crowd = []
        async with FaultServer(answer_all, one) as server, open_client(HttpTransport(fresh=True)) as client:
            url = f"http://pictures.test:{server.port}/"
            for refusing in ("127.0.0.3", "::1"):
                await client.get(url, extensions={"addresses": (refusing, "127.0.0.1")})
            # A listener that accepts nobody: the kernel drops what comes after its backlog.
            two.listen(0)
            for _ in range(4):
                crowd.append(socket.socket())
                crowd[-1].setblocking(False)
                crowd[-1].connect_ex(two.getsockname())
            await client.get(url, extensions={"addresses": ("127.0.0.2", "127.0.0.1")})
            assert server.accepted == 3
            with pytest.raises(httpx.ConnectError):
                await client.get(url, extensions={"addresses": ("127.0.0.3", "127.0.0.4")})
        for sock in (*crowd, two):
            sock.close()

    run_on(loop, play())
