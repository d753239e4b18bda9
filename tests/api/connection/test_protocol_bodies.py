"""Bodies that stall or are not wanted, pipelined requests, and shutdown: over raw sockets and with a real SDK."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import openai
import pytest

from tests.support.raw_http import MIB, QUICK, get, post, read_all, read_answer, refusal, serving, stays_silent
from tests.support.stopwatch import running_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.raw_http import Served


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with contextlib.ExitStack() as stack:
        yield lambda limits=QUICK: stack.enter_context(serving(limits))


@pytest.mark.parametrize("begun", [b"", b"12345"])
def test_stalled_body_gets_408(serve: Callable[..., Served], begun: bytes) -> None:
    """A body that stops arriving is answered 408, and the application is told of a hang-up."""
    served, started, ran = serve(), time.monotonic(), running_seconds()
    assert refusal(served.ask(post("/echo", 10), begun))[:2] == (408, "request_timeout")
    assert time.monotonic() - started > 0.25
    assert running_seconds() - ran < 2
    assert served.done.wait(5)
    assert served.events[-1] == "http.disconnect"


def test_chunk_extensions_are_no_progress(serve: Callable[..., Served]) -> None:
    """An endless chunk extension is refused: it is body on the wire and nothing to the application."""
    served = serve()
    head = b"POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n1;"
    answer = served.ask(head, *[b"a" * 65536] * 8)
    assert refusal(answer)[:2] == (431, "request_too_large")


def test_broken_chunk_gets_400(serve: Callable[..., Served]) -> None:
    """A body that stops being HTTP is answered 400, and the application is told of a hang-up."""
    served = serve()
    head = b"POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refusal(served.ask(head, b"1\r\na\r\n", b"zz\r\n"))[:2] == (400, "invalid_value")
    assert served.done.wait(5)
    assert served.events[-1] == "http.disconnect"


def test_steady_body_outlives_idle_limit(serve: Callable[..., Served]) -> None:
    """A slow upload that makes progress may take longer than the idle limit."""
    with serve().connect() as wire:
        wire.sendall(post("/echo", 5, "Connection: close"))
        for _ in range(5):
            assert stays_silent(wire, 0.12)
            wire.sendall(b"a")
        assert read_all(wire).endswith(b"\r\n\r\n5")


def test_dripping_body_ends_at_total_time(serve: Callable[..., Served]) -> None:
    """A body of a byte now and then is never idle, and is answered 408 once its total time is over."""
    served, ran = serve(replace(QUICK, body_total_s=0.6)), running_seconds()
    with served.connect() as wire:
        wire.sendall(post("/echo", 1000))
        while stays_silent(wire, 0.05):
            assert running_seconds() - ran < 5
            wire.sendall(b"a")
        # The answer's first byte was read.
        status, code, message = refusal(b"H" + read_all(wire))
    assert (status, code) == (408, "request_timeout")
    assert "longer than 0.6 s" in message
    assert served.done.wait(5)
    assert served.events[-1] == "http.disconnect"


def test_dripping_reader_ends_at_total_time(serve: Callable[..., Served]) -> None:
    """A client that reads a little now and then is never idle, and is disconnected once it has been waited for."""
    served, ran = serve(replace(QUICK, answer_idle_s=5, answer_total_s=0.6)), running_seconds()
    with served.connect() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wire.sendall(get("/large"))
        size = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := wire.recv(65536):
                size += len(piece)
                assert running_seconds() - ran < 5
                time.sleep(0.01)
    assert size < 16 * MIB
    assert served.done.wait(5)


def test_quick_reader_may_take_a_large_answer(serve: Callable[..., Served]) -> None:
    """Only the waits for a client count, not the size of its answer; without a length HTTP/1.0 gets no chunks."""
    served = serve(replace(QUICK, answer_idle_s=30, answer_total_s=30))
    assert len(served.ask(get("/large"))) > 16 * MIB
    head, _, body = served.ask(b"GET /large HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == bytes(16 * MIB)


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect: 100-Continue"])
def test_old_client_is_not_told_to_go_on(serve: Callable[..., Served], expect: str) -> None:
    """HTTP/1.0 has no `100 Continue` (RFC 9110 10.1.1): the answer is the first that comes."""
    head = f"POST /echo HTTP/1.0\r\nContent-Length: 2\r\n{expect}\r\n\r\n".encode()
    assert serve().ask(head, b"ab").startswith(b"HTTP/1.1 200")


def test_slow_application_is_not_clients_stall(serve: Callable[..., Served]) -> None:
    """While the application does not read, the body's clock stands and what is buffered stays bounded."""
    served = serve()
    body = bytes(8 * MIB)
    with served.connect() as wire:
        sender = threading.Thread(target=wire.sendall, args=(post("/slow", len(body), "Connection: close") + body,))
        sender.start()
        while "/slow" not in served.events:
            time.sleep(0.01)
        assert stays_silent(wire, 0.4)
        assert served.bytes_read <= MIB
        assert read_all(wire).endswith(str(len(body)).encode())
        sender.join()


def test_watch_for_hangup_is_not_timed(serve: Callable[..., Served]) -> None:
    """An application that waits for a hang-up after the whole body waits until the client leaves."""
    served = serve()
    with served.connect() as wire:
        wire.sendall(post("/watch", 2) + b"ab")
        assert stays_silent(wire, 0.5)
        assert not served.done.is_set()
    assert served.done.wait(5)
    assert served.events == ["/watch", "http.request", "http.disconnect"]


def test_expected_continue_precedes_clock(serve: Callable[..., Served]) -> None:
    """A client that waits for `100 Continue` is not timed before it was told to go on."""
    with serve().connect() as wire:
        wire.sendall(post("/slow", 2, "Expect: 100-continue", "Connection: close"))
        assert wire.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(b"ab")
        assert read_all(wire).endswith(b"\r\n\r\n2")


# Answers before the end of a body


def test_early_answer_survives_upload(serve: Callable[..., Served]) -> None:
    """A client that sends 4 MiB before it reads still finds the 401; at most 1 MiB of it was read."""
    served = serve(replace(QUICK, linger_s=0.5))
    with served.connect() as wire:
        with contextlib.suppress(ConnectionError):
            wire.sendall(post("/refuse", 4 * MIB) + bytes(4 * MIB))
        answer = read_all(wire)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer
    assert served.bytes_read <= MIB


def test_early_answer_waits_at_most_linger(serve: Callable[..., Served]) -> None:
    """A client that neither sends its body nor leaves is left after `linger_s`."""
    served, started, ran = serve(), time.monotonic(), running_seconds()
    with served.connect() as wire:
        wire.sendall(post("/refuse", 100))
        answer = read_all(wire)
        assert answer.startswith(b"HTTP/1.1 401")
        while served.server.server_state.connections:
            assert running_seconds() - ran < 3
            time.sleep(0.01)
    assert time.monotonic() - started > 0.25


def stays_open(served: Served, seconds: float) -> bool:
    """True when a client that sends a refused body, a byte each 0.1 s, keeps its connection for so long."""
    with served.connect() as wire:
        wire.sendall(post("/refuse", 1000))
        assert wire.recv(65536).startswith(b"HTTP/1.1 401")
        until = time.monotonic() + seconds
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < until and served.server.server_state.connections:
                wire.sendall(b"a")
                time.sleep(0.1)
        return bool(served.server.server_state.connections)


def test_early_answer_waits_for_a_slow_sender(serve: Callable[..., Served]) -> None:
    """Each byte of a client that still sends puts off the end of its connection, so its answer arrives."""
    served, ran = serve(replace(QUICK, linger_s=60, linger_total_s=600)), running_seconds()
    with served.connect() as wire:
        wire.sendall(post("/refuse", 1_000_000))
        assert wire.recv(65536).startswith(b"HTTP/1.1 401")

        def ends_at() -> float:
            (connection,) = served.server.server_state.connections
            return 0.0 if connection._linger_timer is None else connection._linger_timer.when()

        while not (first := ends_at()):
            assert running_seconds() - ran < 3
            time.sleep(0.01)
        while ends_at() <= first:
            assert running_seconds() - ran < 3
            wire.sendall(b"a")
            time.sleep(0.01)


def test_early_answer_waits_at_most_total_linger(serve: Callable[..., Served]) -> None:
    """A client that sends a byte at a time is left after `linger_total_s`."""
    ran = running_seconds()
    assert not stays_open(serve(replace(QUICK, linger_total_s=0.5)), 60)
    assert running_seconds() - ran < 3


def test_whole_body_keeps_connection_alive(serve: Callable[..., Served]) -> None:
    """A refusal after the whole body leaves the connection to the next request."""
    with serve().connect() as wire:
        wire.sendall(post("/refuse", 2) + b"ab")
        assert read_answer(wire).startswith(b"HTTP/1.1 401")
        wire.sendall(get("/echo"))
        assert read_all(wire).startswith(b"HTTP/1.1 200")


def test_wrong_key_is_authentication_error(serve: Callable[..., Served]) -> None:
    """openai-python, uploading 40 MB with a wrong key, is told of the key; at most 1 MiB is read for it."""
    served = serve(replace(QUICK, linger_s=0.5))
    client = openai.OpenAI(api_key="sk-wrong", base_url=served.base_url, max_retries=0)
    with client, pytest.raises(openai.AuthenticationError):
        client.images.edit(model="gpt-image-2", image=bytes(40_000_000), prompt="a cat")
    assert served.bytes_read <= MIB


async def test_async_client_learns_of_wrong_key(serve: Callable[..., Served]) -> None:
    """The asynchronous client, which reads nothing while it sends, is told of the key for a 2 MB picture."""
    served = serve(replace(QUICK, linger_s=0.5))
    async with openai.AsyncOpenAI(api_key="sk-wrong", base_url=served.base_url, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.images.edit(model="gpt-image-2", image=bytes(2_000_000), prompt="a cat")
    assert served.bytes_read <= MIB


# Pipelining


def test_pipelined_requests_are_answered_in_order(serve: Callable[..., Served]) -> None:
    """Three requests in one packet get three answers in their order."""
    requests = post("/echo", 3) + b"abc" + get("/refuse", close=False) + post("/echo", 1, "Connection: close") + b"a"
    answer = serve().ask(requests)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"401", b"200"]
    assert answer.endswith(b"\r\n\r\n1")


def test_garbage_behind_request_spares_its_answer(serve: Callable[..., Served]) -> None:
    """What follows a whole request cannot take away its answer, nor be written into the middle of it."""
    served = serve()
    with served.connect() as wire:
        wire.sendall(get("/wait", close=False) + b"\x00garbage\r\n\r\n")
        wire.sendall(b"more garbage")
        served.go_on.set()
        answer = read_all(wire)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n0")


def test_hangup_reaches_pipelined_request(serve: Callable[..., Served]) -> None:
    """A request with another one behind it is told of the hang-up too."""
    served = serve()
    with served.connect() as wire:
        wire.sendall(get("/watch", close=False) + get("/echo", close=False))
        while served.events != ["/watch", "http.request"]:
            time.sleep(0.01)
    assert served.done.wait(5)
    assert served.events == ["/watch", "http.request", "http.disconnect"]


# Clients that end their side and still read


def half_close(served: Served, request: bytes) -> bytes:
    """All that is answered to a client that ends its side right after its request."""
    with served.connect() as wire:
        wire.sendall(request)
        wire.shutdown(socket.SHUT_WR)
        return read_all(wire)


def test_half_closed_client_gets_its_answers(serve: Callable[..., Served]) -> None:
    """Whole requests are answered though their client sends no more; then the connection ends at once."""
    served = serve()
    requests = post("/echo", 3) + b"abc" + get("/slow", close=False) + post("/wait", 1) + b"a"
    served.go_on.set()
    answer = half_close(served, requests)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"] * 3
    assert b"connection: close" in answer
    assert answer.endswith(b"\r\n\r\n1")


def test_half_closed_client_counts_as_gone(serve: Callable[..., Served]) -> None:
    """An application that watches for a disconnect is told of one, and ends without an answer."""
    served = serve()
    assert half_close(served, post("/watch", 2) + b"ab") == b""
    assert served.events == ["/watch", "http.request", "http.disconnect"]


def test_half_a_body_is_a_disconnect(serve: Callable[..., Served]) -> None:
    """A client that ends its side within its body has left."""
    served = serve()
    assert half_close(served, post("/echo", 10) + b"abc") == b""
    assert served.done.wait(5)
    assert served.events[-1] == "http.disconnect"


# Shutdown


def test_shutdown_cuts_unfinished_upload(serve: Callable[..., Served]) -> None:
    """A server told to stop answers an unfinished upload 503 with Retry-After, instead of waiting for its end."""
    served = serve(replace(QUICK, body_idle_s=5))
    with served.connect() as wire:
        wire.sendall(post("/echo", 10) + b"12345")
        while "http.request" not in served.events:
            time.sleep(0.01)
        served.server.should_exit = True
        answer = read_all(wire)
    assert refusal(answer)[:2] == (503, "overloaded")
    assert b"retry-after: 1" in answer


def test_ordinary_client_notices_nothing(serve: Callable[..., Served]) -> None:
    """A pooled client sends large and small bodies over one connection."""
    served = serve()
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}") as client:
        sizes = [int(client.post("/echo", content=bytes(size)).content) for size in (0, 1, 5 * MIB, 300_000)]
        assert sizes == [0, 1, 5 * MIB, 300_000]
        assert len(served.server.server_state.connections) == 1
