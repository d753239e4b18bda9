"""How long, how large and how well-formed the head of a request may be, over raw sockets."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.raw_http import MIB, QUICK, get, read_all, read_answer, refusal, serving
from tests.support.stopwatch import running_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.raw_http import Served


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with contextlib.ExitStack() as stack:
        yield lambda limits=QUICK: stack.enter_context(serving(limits))


def test_silent_connection_closes_silently(serve: Callable[..., Served]) -> None:
    """A connection that never sends anything is closed after the header time-out, without an answer."""
    assert serve().ask() == b""


def test_dribbled_headers_are_cut(serve: Callable[..., Served]) -> None:
    """One byte at a time does not extend the time that headers may take."""
    served, started, ran = serve(), time.monotonic(), running_seconds()
    with served.connect() as wire:
        wire.settimeout(0.05)
        wire.sendall(b"GET /echo HTTP/1.1\r\nX: ")
        answer = b""
        while not answer and running_seconds() - ran < 4:
            with contextlib.suppress(TimeoutError):
                answer = wire.recv(65536)
            if not answer:
                wire.sendall(b"a")
        wire.settimeout(5)
        answer += read_all(wire)
    assert refusal(answer)[:2] == (408, "request_timeout")
    assert time.monotonic() - started > 0.35
    assert running_seconds() - ran < 2


def test_second_slow_head_is_cut(serve: Callable[..., Served]) -> None:
    """The header time-out holds for every request of a connection, and counts anew for each."""
    with serve().connect() as wire:
        wire.sendall(get("/echo", close=False))
        assert read_answer(wire).endswith(b"\r\n\r\n0")
        wire.sendall(b"GET /echo HT")
        assert refusal(read_all(wire))[:2] == (408, "request_timeout")


def test_stray_newlines_cannot_hold_connection(serve: Callable[..., Served]) -> None:
    """Empty lines before a request end uvicorn's keep-alive time, but not the header time-out."""
    with serve().connect() as wire:
        wire.sendall(get("/echo", close=False))
        read_answer(wire)
        wire.sendall(b"\r\n")
        assert read_all(wire) == b""


def test_whole_head_stops_its_clock(serve: Callable[..., Served]) -> None:
    """An application may take longer than the header time-out."""
    assert serve().ask(get("/slow")).endswith(b"\r\n\r\n0")


@pytest.mark.parametrize("head", [b"GET /echo HTTP/1.1\r\nX: ", b"GET /echo?", b"GET /echo HTTP/1.1\r\n"])
def test_endless_head_is_refused(serve: Callable[..., Served], head: bytes) -> None:
    """A 100 MB header, URL or run of headers is refused after little more than the limit, and the answer arrives."""
    served = serve(replace(QUICK, linger_bytes=256 * 1024))
    filler = b"a" * 65536 if not head.endswith(b"1\r\n") else b"a: b\r\n" * 10000
    with served.connect() as wire:
        with contextlib.suppress(ConnectionError):
            wire.sendall(head)
            for _ in range(100 * MIB // len(filler)):
                wire.sendall(filler)
        assert refusal(read_all(wire))[:2] == (431, "request_too_large")
    assert served.bytes_read <= MIB


@pytest.mark.parametrize(
    ("request_head", "reason"),
    [
        (get("/echo", "X: " + "a" * 40_000), "larger than 32768 bytes"),
        (get("/echo", *[f"X-{i}: {'a' * 1000}" for i in range(40)]), "larger than 32768 bytes"),
        (get("/echo", *[f"X-{i}: 1" for i in range(120)]), "more than 100 headers"),
        (get("/echo?" + "a" * 9000), "URL is longer than 8192 bytes"),
    ],
)
def test_large_head_names_its_limit(serve: Callable[..., Served], request_head: bytes, reason: str) -> None:
    """A head that arrives whole is measured too, and the refusal says which limit it broke."""
    status, code, message = refusal(serve().ask(request_head))
    assert (status, code) == (431, "request_too_large")
    assert reason in message


def test_head_within_limits_passes(serve: Callable[..., Served]) -> None:
    """Ninety headers and a URL of 8,000 bytes are served, in two pieces."""
    head = get("/echo?" + "a" * 8000, *[f"X-{i}: {'b' * 200}" for i in range(90)])
    assert serve().ask(head[:9000], head[9000:]).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELLO\r\n\r\n",
        b"GET /echo HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nBad Header\r\n\r\n",
        b"CONNECT here:443 HTTP/1.1\r\nHost: here\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_malformed_request_gets_error_shape(serve: Callable[..., Served], garbage: bytes) -> None:
    """What is not HTTP gets a 400 in OpenAI's shape, then the end of the connection."""
    status, code, message = refusal(serve().ask(garbage))
    assert (status, code) == (400, "invalid_value")
    assert ("use http://" in message) == garbage.startswith(b"\x16\x03")


@pytest.mark.parametrize("protocol_name", ["websocket", "h2c"])
def test_upgrade_is_declined(serve: Callable[..., Served], protocol_name: str) -> None:
    """An upgrade request is served as the plain request it also is."""
    wanted = [f"Upgrade: {protocol_name}", "Connection: Upgrade", "Sec-WebSocket-Key: a", "Sec-WebSocket-Version: 13"]
    with serve().connect() as wire:
        wire.sendall(get("/echo", *wanted, close=False))
        assert read_answer(wire).startswith(b"HTTP/1.1 200")


def test_trailers_never_become_headers(serve: Callable[..., Served]) -> None:
    """A field after a chunked body does not reach the application as a header, even in the head's own packet."""
    head = b"POST /headers HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = serve().ask(head + b"1\r\na\r\n0\r\nx-forwarded-for: 10.0.0.1\r\n\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == ["host", "transfer-encoding", "connection"]
