"""An answer that drips is cut at its total time, in each of its parts; "was it sent" keeps its proof."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from gateway.net.connection import TimeLimits
from gateway.net.failures import RequestError, name_phase
from gateway.net.transport import HttpTransport, send
from tests.support.fault_server import LARGE, Connection, FaultServer, Script, on_both_loops, run_on

DRIPPING = TimeLimits(connect=5, read=5, total=0.5, write=5)
"""Idle time-outs that no drop exceeds."""


async def drip_head(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nX: ")
    await drip(connection, b"a")


async def drip_body(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await drip(connection, b"1\r\n \r\n")


async def drip_reading(connection: Connection) -> None:
    while True:
        await connection.read(1000)
        await asyncio.sleep(0.01)


async def drip(connection: Connection, piece: bytes) -> None:
    while True:
        await connection.send(piece)
        await asyncio.sleep(0.02)


async def exchange(
    transport: HttpTransport, url: str, headers: dict[str, str], content: AsyncGenerator[bytes, None]
) -> None:
    response = await send(transport, "POST", url, headers, content, DRIPPING)
    try:
        async for _ in response.aiter_raw():
            pass
    finally:
        await response.aclose()


@on_both_loops
@pytest.mark.parametrize(
    ("script", "body", "phase"),
    [(drip_head, b"x", "read"), (drip_body, b"x", "read"), (drip_reading, LARGE, "write")],
)
def test_dripping_server_is_cut(loop: str, script: Script, body: bytes, phase: str) -> None:
    """A server that sends or takes a little at a time ends at the total time, with the phase it had reached."""

    async def check() -> None:
        transport = HttpTransport(fresh=True)
        async with FaultServer(script) as server:

            async def content() -> AsyncGenerator[bytes, None]:
                yield body

            headers = {"content-length": str(len(body))}
            with pytest.raises(RequestError) as failed:
                await exchange(transport, server.url, headers, content())
            assert name_phase(failed.value) == phase
        await transport.aclose()

    run_on(loop, check())
