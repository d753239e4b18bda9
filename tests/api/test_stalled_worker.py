"""A process that stood still while its callers gave up and asked again: it finds both at once, and buys one picture."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from gateway.services import OPENINGS
from tests.support.gateways import GENERATIONS, Gateway, small, wait_until

RETRY = "x-stainless-retry-count: 1\r\nconnection: close\r\n"


@contextlib.contextmanager
def frozen(gateway: Gateway) -> Iterator[None]:
    """The gateway's loop stands still, as when its machine does."""
    server, _ = gateway.app.state.serving
    stands, goes_on = threading.Event(), threading.Event()

    def stand_still() -> None:
        stands.set()
        goes_on.wait(10)

    server.servers[0].get_loop().call_soon_threadsafe(stand_still)
    assert stands.wait(10)
    try:
        yield
    finally:
        goes_on.set()


def ask(gateway: Gateway, headers: str = "") -> socket.socket:
    """A connection over which a picture was asked for; nothing of the request waits in this process."""
    body = json.dumps(small()).encode()
    head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
    head += f"{headers}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection = socket.create_connection((gateway.client.base_url.host, gateway.client.base_url.port), timeout=10)
    connection.sendall(head.encode() + body)
    return connection


def read(connection: socket.socket) -> tuple[int, str]:
    """The status of the answer, and its head."""
    with connection:
        head = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")[0].decode().lower()
    return int(head.split()[1]), head


@pytest.mark.parametrize(("headers", "bought"), [("", 0), ("prefer: respond-async\r\n", 1)], ids=["answer", "task"])
def test_nothing_is_begun_for_who_has_left(gateway: Gateway, headers: str, bought: int) -> None:
    """A request whose caller hung up while it waited for its turn buys nothing, unless it asked for a task."""
    services, (server, _) = gateway.services, gateway.app.state.serving
    loop = server.servers[0].get_loop()
    for _ in range(OPENINGS):
        asyncio.run_coroutine_threadsafe(services.openings.acquire(), loop).result(5)
    connection = ask(gateway, headers)
    wait_until(lambda: services.openings._waiters, "the request's turn to come")
    connection.close()
    wait_until(lambda: services.departing, "the caller's end to be heard")
    for _ in range(OPENINGS):
        loop.call_soon_threadsafe(services.openings.release)
    wait_until(lambda: not services.departing, "the request's end")
    gateway.settle()
    assert len(gateway.simulator.book()) == len(gateway.records()) == bought
    assert not gateway.leftovers()


@pytest.mark.parametrize("callers", [1, 16])
def test_retry_beside_its_first_try_is_one_purchase(gateway: Gateway, callers: int) -> None:
    """First tries that were given up and their retries, all read in one turn of the loop, end in a picture a caller."""
    with frozen(gateway):
        for _ in range(callers):
            ask(gateway).close()
        retries = [ask(gateway, RETRY) for _ in range(callers)]
    assert [read(retry)[0] for retry in retries] == [200] * callers
    gateway.settle()
    assert len(gateway.simulator.book()) == callers


def test_retry_gets_what_came_while_nobody_looked(gateway: Gateway) -> None:
    """Pictures that arrive while the gateway stands still and their callers give up are their retries'."""
    gateway.simulator.fault("latency", seconds=0.4, times=None)
    callers = 8
    first_tries = [ask(gateway) for _ in range(callers)]
    wait_until(lambda: len(gateway.simulator.book()) == callers, "the submissions")
    with frozen(gateway):
        wait_until(lambda: all(one["images_delivered"] for one in gateway.simulator.book()), "the vendor's answers")
        for connection in first_tries:
            connection.close()
        retries = [ask(gateway, RETRY) for _ in range(callers)]
    answers = [read(retry) for retry in retries]
    assert [status for status, _ in answers] == [200] * callers
    assert all("x-gateway-joined: 1" in head for _, head in answers)
    gateway.settle()
    assert len(gateway.simulator.book()) == callers
