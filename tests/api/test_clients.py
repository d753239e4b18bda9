"""Callers that hang up, read slowly or not at all, and stop in the middle of an upload: no picture is lost for it.

Nor is one bought twice, and what such a caller held of the gateway comes back.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis

from tests.api.test_joining import RETRY, pictures_of
from tests.support.gateways import EDITS, GENERATIONS, OFFICIAL, TASKS, Gateway, Gateways, small, wait_until
from tests.support.ledgers import is_soak
from tests.support.plain_pictures import png

HANG_UPS = 200 if is_soak() else 20
AT_ONCE = 20
SLOW_READERS = 20 if is_soak() else 5
HALF_UPLOADS = 50 if is_soak() else 5

PICTURE = 24_000_000 if is_soak() else 9_000_000
"""Bytes, of which an answer has a third more: more than the kernel takes by itself."""

MIB = 1024 * 1024

RESET = struct.pack("ii", 1, 0)


def connect(gateway: Gateway) -> socket.socket:
    """A connection with little room for what it does not read."""
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    wire.settimeout(15)
    wire.connect((gateway.client.base_url.host, gateway.client.base_url.port))
    return wire


def ask(wire: socket.socket, gateway: Gateway, connection: str = "keep-alive", **fields: Any) -> None:
    """Send one whole request."""
    body = json.dumps(small(**fields)).encode()
    head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
    head += f"connection: {connection}\r\n"
    wire.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)


def left(gateway: Gateway) -> int:
    """How many requests the gateway knows to have gone without their answer."""
    store = redis.Redis.from_url(gateway.store_url, decode_responses=True)
    try:
        holds = [store.hgetall(name) for name in store.scan_iter("{igw}:hold:*")]
    finally:
        store.close()
    return sum("left" in hold and hold["waiter"] == "" and not hold.get("handed") for hold in holds)


def resident() -> int:
    """Bytes of memory that this process, and so the gateway in it, has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def hang_up(gateway: Gateway, models: dict[str, str]) -> None:
    """Ask for a picture by each prompt, and leave once the vendors have taken them all."""
    before = len(gateway.simulator.book())
    with contextlib.ExitStack() as stack:
        for prompt, model in models.items():
            ask(stack.enter_context(connect(gateway)), gateway, prompt=prompt, model=model, size="1024x1024")
        wait_until(lambda: len(gateway.simulator.book()) == before + len(models), "the submissions", 20)


def test_every_hang_up_is_joined(gateway: Gateway) -> None:
    """The work of callers that hang up goes on, is stored and charged once, and each one's retry gets its picture."""
    gateway.simulator.fault("latency", seconds=0.6, times=None)
    # Drawn once: two cores are soon busy with drawing.
    gateway.simulator.fault("pad", bytes=100_000, times=None)
    prompts = [f"cat {number}" for number in range(HANG_UPS)]
    models = {prompt: (OFFICIAL, TASKS)[number % 2] for number, prompt in enumerate(prompts)}
    for first in range(0, HANG_UPS, AT_ONCE):
        hang_up(gateway, {prompt: models[prompt] for prompt in prompts[first : first + AT_ONCE]})
    wait_until(lambda: left(gateway) == HANG_UPS, "the hang-ups' notice", 20)

    def retry(prompt: str) -> str:
        answer = gateway.generate(headers=RETRY, prompt=prompt, model=models[prompt], size="1024x1024")
        assert answer.headers["x-gateway-joined"] == "1"
        assert len(pictures_of(answer)) == 1
        return answer.headers["x-gateway-task"]

    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert len(set(threads.map(retry, prompts))) == HANG_UPS
    assert sorted(one["prompt"] for one in gateway.simulator.book()) == sorted(prompts)
    assert (gateway.spent().usd_posted, gateway.spent().usd_held) == (gateway.booked(), 0)
    assert not gateway.leftovers()


@pytest.fixture
def impatient(gateways: Gateways) -> Gateway:
    """A gateway that gives a reader 0.6 s for each part of its answer, and an upload as long for its next byte."""
    return gateways.open(limits={"answer_idle": 0.6, "body_idle": 0.6, "answer_within": 30})


@contextlib.contextmanager
def slow_readers(gateway: Gateway) -> Iterator[list[socket.socket]]:
    """Callers that have read the head of their answers, and a little more now and then."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(connect(gateway)) for _ in range(SLOW_READERS)]
        for number, wire in enumerate(wires):
            ask(wire, gateway, prompt=f"cat {number}")
        for wire in wires:
            assert wire.recv(1024).startswith(b"HTTP/1.1 200")
        yield wires


def test_slow_reader_is_cut(impatient: Gateway) -> None:
    """A reader of 1 KB now and then is cut, costs little memory meanwhile, and its retry gets the picture."""
    gateway = impatient
    gateway.simulator.fault("pad", bytes=PICTURE, times=None)
    gateway.generate(prompt="before")
    before = resident()
    with slow_readers(gateway) as wires:

        def are_cut() -> bool:
            for wire in wires:
                with contextlib.suppress(ConnectionError):
                    wire.recv(1024)
            return left(gateway) == SLOW_READERS

        wait_until(are_cut, "the end of patience", 20)
        assert not is_soak() or resident() - before <= SLOW_READERS * 2 * MIB
    answer = gateway.generate(headers=RETRY, prompt="cat 0")
    assert answer.headers["x-gateway-joined"] == "1"
    assert len(pictures_of(answer)[0]) > PICTURE
    assert len(gateway.simulator.book()) == SLOW_READERS + 1
    assert not gateway.leftovers()


def test_steady_reader_is_served(impatient: Gateway) -> None:
    """A reader that takes longer than the limit for the whole answer, but not for a part of it, gets it all."""
    impatient.simulator.fault("pad", bytes=PICTURE)
    began, size = time.monotonic(), 0
    with impatient.client.stream("POST", GENERATIONS, json=small(), headers=impatient.auth) as answer:
        for piece in answer.iter_raw(PICTURE // 10):
            size += len(piece)
            # The test's own pace, which must be slow.
            time.sleep(0.1)
    assert time.monotonic() - began > 1
    assert size == int(answer.headers["content-length"]) > PICTURE
    assert "x-gateway-joined" not in impatient.generate(headers=RETRY).headers


def test_half_upload_is_cut(impatient: Gateway) -> None:
    """Uploads that stop are answered 408, and leave no file, no bytes counted and no call."""
    part = b'--b\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n' + png() + b"x" * 3_000_000
    head = f"POST {EDITS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {impatient.key}\r\n"
    head += "content-type: multipart/form-data; boundary=b\r\ncontent-length: 9000000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(connect(impatient)) for _ in range(HALF_UPLOADS)]
        for wire in wires:
            wire.sendall(head.encode() + part)
        answers = [wire.recv(65536) for wire in wires]
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert not impatient.leftovers()
    assert not impatient.simulator.paid()


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize(("headers", "joins"), [(RETRY, True), ({}, False)], ids=["retry", "new"])
def test_refused_answer_is_a_retrys(gateway: Gateway, headers: dict[str, str], joins: bool, connection: str) -> None:
    """A caller that was too late to read its answer, and closes upon it, gets it by a retry, not by a new request."""
    with connect(gateway) as wire:
        ask(wire, gateway, connection)
        wait_until(lambda: is_handed(gateway), "the answer")
        # As the kernel does by itself where bytes are left.
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wait_until(lambda: not is_handed(gateway), "the reset's notice")
    answer = gateway.generate(headers=headers)
    assert pictures_of(answer)
    assert ("x-gateway-joined" in answer.headers) == joins
    assert len(gateway.simulator.book()) == 2 - joins


@pytest.mark.parametrize(
    ("timeout", "joins"), [("0.001", True), ("60", False), (None, True)], ids=["late", "in time", "unannounced"]
)
def test_late_answer_is_a_retrys(gateway: Gateway, timeout: str | None, joins: bool) -> None:
    """An answer that comes when its caller gives up, which closes in order, is a retry's; one in time is not.

    A caller that announced no time-out may give up at any time.
    """
    with connect(gateway) as wire:
        ask(wire, gateway)
        wait_until(lambda: is_handed(gateway), "the answer")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wait_until(lambda: not is_handed(gateway), "the reset's notice")
    announced = {"x-stainless-read-timeout": timeout} if timeout else {}
    with gateway.client.stream(
        "POST", GENERATIONS, json=small(), headers={**gateway.auth, **RETRY, **announced}
    ) as answer:
        assert "x-gateway-joined" in answer.headers
        answer.read()
    gateway.client.close()
    gateway.client = httpx.Client(base_url=gateway.url, timeout=20, trust_env=False, verify=False)
    if joins:
        wait_until(lambda: not is_handed(gateway), "the notice of its going")
    again = gateway.generate(headers=RETRY)
    assert ("x-gateway-joined" in again.headers) == joins
    assert len(gateway.simulator.book()) == 2 - joins


def is_handed(gateway: Gateway) -> bool:
    """Whether an answer was handed over."""
    store = redis.Redis.from_url(gateway.store_url, decode_responses=True)
    try:
        return any(store.hget(name, "handed") for name in store.scan_iter("{igw}:hold:*"))
    finally:
        store.close()
