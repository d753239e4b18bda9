"""Callers that leave or cannot wait, and a store that is away: paid work ends well, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any

import httpx
import pytest

from tests.conftest import Valkey
from tests.support.gateways import EDITS, GENERATIONS, OFFICIAL, TASKS, Gateway, Gateways, error_of, small, wait_until
from tests.support.plain_pictures import png
from tests.support.stopwatch import running_seconds


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_slow_upstream_ends_in_504(gateway: Gateway) -> None:
    """The caller is answered before its own time-out; the work goes on, is recorded and kept."""
    gateway.simulator.fault("latency", seconds=1.3)
    started = running_seconds()
    answer = gateway.generate(headers={"x-stainless-read-timeout": "1"})
    assert running_seconds() - started < 1
    assert (answer.status_code, error_of(answer)["code"]) == (504, "task_still_running")
    task_id = answer.headers["x-gateway-task"]
    assert gateway.read_task(task_id)["status"] == "processing"
    wait_until(lambda: gateway.read_task(task_id)["status"] == "succeeded", "the end of the task")
    images = gateway.read_task(task_id)["images"]
    assert [path.name for path in gateway.pictures() if path.name in images] == images
    assert len(gateway.simulator.book()) == 1
    assert not gateway.leftovers()


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "soon", "1e999"])
def test_strange_timeout_is_no_timeout(gateway: Gateway, value: str) -> None:
    """A time-out header that makes no sense changes nothing."""
    assert gateway.generate(headers={"x-stainless-read-timeout": value}).status_code == 200


@pytest.mark.parametrize("model", [OFFICIAL, TASKS])
def test_hang_up_keeps_paid_image(gateway: Gateway, model: str) -> None:
    """A client that hangs up does not lose a paid image: the work ends, is recorded and stored."""
    before = {path.name for path in gateway.pictures()}
    gateway.simulator.fault("latency", seconds=0.8)
    with pytest.raises(httpx.ReadTimeout):
        gateway.client.post(GENERATIONS, json=small(model=model, size="1024x1024"), headers=gateway.auth, timeout=0.4)
    wait_until(gateway.simulator.book, "the submission")
    record = wait_until(
        lambda: next((one for one in gateway.task_records() if one["status"] == "succeeded"), None), "the task's end"
    )
    stored = {path.name for path in gateway.pictures()} - before
    assert set(record["images"]) <= stored
    assert len(gateway.simulator.book()) == 1
    assert not gateway.leftovers()


def ask_and_read(gateway: Gateway, version: str, headers: str) -> bytes:
    """Everything that comes over a connection that the gateway closes after its answer."""
    address = (gateway.client.base_url.host, gateway.client.base_url.port)
    body = json.dumps(small()).encode()
    head = f"POST {GENERATIONS} HTTP/{version}\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n{headers}"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(head.encode() + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(("version", "headers"), [("1.1", "connection: close\r\n"), ("1.0", "")])
def test_connection_that_ends_with_its_answer_is_no_hang_up(gateway: Gateway, version: str, headers: str) -> None:
    """Who has read an answer and asks for the same again gets a new picture, however the connection was closed."""
    for number in (1, 2, 3):
        head, _, body = ask_and_read(gateway, version, headers).partition(b"\r\n\r\n")
        assert b" 200 " in head.splitlines()[0], head
        assert b"x-gateway-joined" not in head.lower()
        assert len(json.loads(body)["data"]) == 1
        assert len(gateway.simulator.book()) == number


def half_close(gateway: Gateway, headers: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Status and document of the answer to a generation whose client ends its side right after the request."""
    body = json.dumps(small(**fields)).encode()
    head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n{headers}"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    address = (gateway.client.base_url.host, gateway.client.base_url.port)
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("stream", [False, True])
def test_half_closed_caller_learns_why_it_gets_no_picture(gateway: Gateway, stream: bool) -> None:
    """A caller that ends its side of the connection counts as gone and is told so; a retry gets the paid picture."""
    status, document = half_close(gateway, "", stream=stream)
    assert (status, document["error"]["code"]) == (499, "client_closed_request")
    assert "keep the connection open" in document["error"]["message"]
    answer = gateway.generate(headers={"x-stainless-retry-count": "1"}, stream=stream)
    assert answer.status_code == 200
    gateway.settle()
    assert len(gateway.simulator.book()) == 1
    assert not gateway.leftovers()


def test_half_closed_caller_gets_what_is_there_at_once(gateway: Gateway) -> None:
    """A dry run and a refusal reach a caller that has ended its side."""
    assert half_close(gateway, "x-gateway-dry-run: 1\r\n")[1]["object"] == "image.plan"
    status, document = half_close(gateway, "", size="1x1")
    assert (status, document["error"]["param"]) == (400, "size")
    assert not gateway.leftovers()


def hang_up(gateway: Gateway, callers: int) -> None:
    """So many callers ask for a picture, and leave once the vendor has taken all their requests."""
    before = len(gateway.simulator.book())
    address = (gateway.client.base_url.host, gateway.client.base_url.port)
    body = json.dumps(small()).encode()
    head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(callers):
            connection = stack.enter_context(socket.create_connection(address, timeout=5))
            connection.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: len(gateway.simulator.book()) == before + callers, "the submissions", 10)


def test_many_hang_ups_lose_nothing(gateways: Gateways) -> None:
    """Twenty callers that leave at once cost no picture, no file, no memory, and no connection however often."""
    gateway = gateways.open(upstreams={"anyfast": {"timeouts": {"call": 20}}}, join={"orphans": 0})
    gateway.simulator.fault("latency", seconds=0.5, times=None)
    hang_up(gateway, 20)
    gateway.settle()
    # The connections to the store that twenty tasks needed at once are kept for the next twenty.
    before = descriptors()
    hang_up(gateway, 20)
    gateway.settle()
    records = gateway.task_records()
    assert [record["status"] for record in records] == ["succeeded"] * 40
    assert sum(len(record["images"]) for record in records) == 40
    assert len(gateway.simulator.book()) == 40
    assert not gateway.leftovers()
    wait_until(lambda: descriptors() <= before + 5, "the end of the connections")


def test_half_upload_leaves_nothing(gateway: Gateway) -> None:
    """A client that leaves in the middle of its upload leaves no file, no bytes counted and no call."""
    host, port = gateway.url.removeprefix("http://").split(":")
    part = b'--b\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n' + png() + b"x" * 3_000_000
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST {EDITS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
        head += "content-type: multipart/form-data; boundary=b\r\ncontent-length: 90000000\r\n\r\n"
        connection.sendall(head.encode() + part)
        wait_until(lambda: gateway.services.in_flight.used, "the upload's begin")
    assert not gateway.leftovers()
    assert not gateway.simulator.paid()


def test_store_away_stops_spending(gateway: Gateway, valkey: Valkey) -> None:
    """While Redis does not answer, nothing is sent: a 503 in time, and work again when it is back."""
    with valkey.paused():
        started = running_seconds()
        answer = gateway.generate()
        assert running_seconds() - started < 2
        assert (answer.status_code, error_of(answer)["code"]) == (503, "quota_store_unavailable")
        assert answer.headers["retry-after"] == "5"
        assert not gateway.simulator.paid()
    wait_until(lambda: gateway.generate().status_code == 200, "the return of the store")
