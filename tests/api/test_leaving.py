"""Callers that leave or cannot wait, and a store that is away: paid work ends well, and nothing is left behind."""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest

from tests.conftest import Valkey
from tests.plain_pictures import png
from tests.served import (
    EDITS,
    GENERATIONS,
    OFFICIAL,
    TASKS,
    Gateway,
    error_of,
    small,
    wait_until,
)


def test_slow_upstream_ends_in_504(gateway: Gateway) -> None:
    """The caller is answered before its own time-out; the work goes on, is recorded and kept."""
    gateway.simulator.fault("latency", seconds=1.3)
    started = time.monotonic()
    answer = gateway.generate(headers={"x-stainless-read-timeout": "1"})
    assert time.monotonic() - started < 1
    assert (answer.status_code, error_of(answer)["code"]) == (504, "task_still_running")
    task_id = answer.headers["x-gateway-task"]
    assert gateway.read_task(task_id)["status"] == "processing"
    wait_until(lambda: gateway.read_task(task_id)["status"] == "succeeded", "the end of the task")
    images = json.loads(gateway.read_task(task_id)["images"])
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
    assert set(json.loads(record["images"])) <= stored
    assert len(gateway.simulator.book()) == 1
    assert not gateway.leftovers()


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
        started = time.monotonic()
        answer = gateway.generate()
        assert time.monotonic() - started < 2
        assert (answer.status_code, error_of(answer)["code"]) == (503, "quota_store_unavailable")
        assert answer.headers["retry-after"] == "5"
        assert not gateway.simulator.paid()
    wait_until(lambda: gateway.generate().status_code == 200, "the return of the store")
