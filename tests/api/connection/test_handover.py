"""Whether an answer went over: a connection that ends says so by when its client closed it, and by who did."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from typing_extensions import override
from uvicorn.protocols.http.flow_control import FlowControl

from gateway.api.connection.middleware import Handover


class Server(asyncio.Protocol):
    """Tells a handover of its connection, as the gateway's protocol does."""

    handover: Handover

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.handover = Handover(transport, FlowControl(transport))
        self.heard, self.lost = asyncio.Event(), asyncio.Event()

    @override
    def eof_received(self) -> None:
        self.handover.end_input()
        self.heard.set()

    @override
    def pause_writing(self) -> None:
        self.handover.flow.pause_writing()

    @override
    def resume_writing(self) -> None:
        self.handover.flow.resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.handover.flow.resume_writing()
        self.handover.lose(exc)
        self.lost.set()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Server, socket.socket]]:
    """A server's end of a connection, and its client's."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, server = await asyncio.get_running_loop().create_unix_connection(Server, sock=ours)
    try:
        yield server, theirs
    finally:
        theirs.close()
        transport.abort()


async def test_whole_answer_arrives() -> None:
    """An answer that is with the kernel of a connection that goes on was handed over."""
    async with connected() as (server, _):
        server.handover.transport.write(b"answer")
        assert await server.handover.arrive()


async def test_own_end_is_no_hang_up() -> None:
    """A connection that the server closes after its answer took it along."""
    async with connected() as (server, theirs):
        server.handover.transport.write(b"answer")
        server.handover.transport.close()
        assert await server.handover.arrive()
        assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b"answer"


async def test_client_that_closed_before_the_answer_has_none() -> None:
    """What is written after the client's end was heard of does not count as handed over, though nothing breaks."""
    async with connected() as (server, theirs):
        theirs.shutdown(socket.SHUT_WR)
        await server.heard.wait()
        server.handover.transport.write(b"answer")
        assert not await server.handover.arrive()


async def test_client_that_closed_amid_the_answer_has_none() -> None:
    """Nor what had not all left when the client closed."""
    async with connected() as (server, theirs):
        server.handover.transport.write(bytes(8 * 2**20))
        arriving = asyncio.create_task(server.handover.arrive())
        theirs.shutdown(socket.SHUT_WR)
        await server.heard.wait()
        theirs.close()
        assert not await asyncio.wait_for(arriving, 5)


async def test_cut_reader_has_no_answer() -> None:
    """Nor what a reader had not taken when it was cut for its silence: its retry gets it."""
    async with connected() as (server, _):
        server.handover.transport.write(bytes(8 * 2**20))
        arriving = asyncio.create_task(server.handover.arrive())
        await asyncio.sleep(0)
        server.handover.end_input()
        server.handover.transport.abort()
        assert not await asyncio.wait_for(arriving, 5)


@pytest.mark.parametrize(
    ("patience", "elapsed", "expected"),
    [(60, 0, []), (-0.1, 0, ["unread"]), (-0.1, 6, []), (math.inf, 0, ["closed"]), (math.inf, 2.1, [])],
)
async def test_close_after_the_answer_shows_when_it_may_be_unread(
    patience: float, elapsed: float, expected: list[str]
) -> None:
    """A client that closes after the last byte has read the answer, unless its time-out may just have passed.

    The answer itself was in time in each case: an event loop that stands still may take it in and give up at once. A
    client that announced no time-out may give up at any time, but it closes an idle connection only later.
    """
    heard: list[str] = []
    async with connected() as (server, theirs):
        server.handover.on_disconnect(lambda: heard.append("left"))
        server.handover.transport.write(b"answer")
        assert await server.handover.arrive()
        loop = asyncio.get_running_loop()
        server.handover.patient_until = loop.time() + patience
        server.handover.on_refusal = heard.append
        assert await loop.sock_recv(theirs, 100) == b"answer"
        server.handover.ended = loop.time() - elapsed
        theirs.close()
        await asyncio.wait_for(server.lost.wait(), 5)
    assert heard == expected


async def test_own_end_after_the_answer_shows_nothing() -> None:
    """A connection that this side ends, since the client kept it open, does not show that the answer was not read."""
    heard: list[str] = []
    async with connected() as (server, _):
        server.handover.transport.write(b"answer")
        assert await server.handover.arrive()
        server.handover.on_refusal = heard.append
        server.handover.is_ended_here = True
        server.handover.transport.close()
        await asyncio.wait_for(server.lost.wait(), 5)
    assert heard == []


async def test_end_before_the_answer_is_a_hang_up() -> None:
    """Who closes while its answer is made has left, and whoever makes it is told."""
    async with connected() as (server, theirs):
        left = asyncio.Event()
        server.handover.on_disconnect(left.set)
        theirs.close()
        await asyncio.wait_for(left.wait(), 5)
        assert not await server.handover.arrive()
