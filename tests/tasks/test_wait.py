"""The ledger knows of a caller's disconnect before its worker shows that it lives."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from gateway.money.reservation import PendingPosts
from gateway.store.client import StoreUnavailable
from gateway.tasks.wait import CallerConnection, record_departures

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Listener(asyncio.Protocol):
    """A server's end of one connection: its end is a caller's disconnect."""

    def __init__(self, caller: CallerConnection, accepted: asyncio.Event) -> None:
        self._caller = caller
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._accepted.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._caller.leave()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("is_reset", [False, True])
def test_sockets_are_read_first(loop: str, is_reset: bool) -> None:
    """A caller that disconnected before the loop could read its socket is counted."""

    async def disconnect() -> int:
        accepted, caller = asyncio.Event(), CallerConnection()
        server = await asyncio.get_running_loop().create_server(lambda: Listener(caller, accepted), "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        await accepted.wait()
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert not await record_departures(caller.departing, PendingPosts(), 0)
        server.close()
        return len(caller.departing)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        assert runner.run(disconnect()) == 1


async def test_departures_are_awaited() -> None:
    """Departures are recorded once each caller's wait has ended and no step of the ledger waits for Redis."""
    posts, caller, is_away = PendingPosts(pause_s=0.01), CallerConnection(), True

    async def leave() -> None:
        if is_away:
            raise StoreUnavailable("away")

    caller.leave()
    assert not await record_departures(caller.departing, posts, 0)
    await posts.book("leave", leave)
    await caller.finish(is_whole=False)
    assert not caller.departing
    assert not await record_departures(caller.departing, posts, 0.05)
    is_away = False
    assert await record_departures(caller.departing, posts, 5)
    await posts.outbox.aclose()
