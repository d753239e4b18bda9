"""A body belongs to the request that declares it, whatever the head offers and however the packets are cut."""

from __future__ import annotations

import itertools
import socket
import time
from http.client import HTTPResponse
from typing import TYPE_CHECKING

import pytest

from tests.support.raw_http import QUICK, serving
from tests.support.stopwatch import running_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.raw_http import Served

METHODS = ("POST", "PUT", "DELETE", "GET", "HEAD")
FRAMINGS = ("none", "length", "chunked")
SPLITS = ("whole", "head and body", "inside the head", "inside the body")
VERSIONS = ("1.1", "1.0")
OFFERS = {
    "nothing": (),
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    "websocket": ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: a", "Sec-WebSocket-Version: 13"),
    "TLS": ("Connection: keep-alive", "Connection: upgrade", "Upgrade: TLS/1.2, HTTP/1.1"),
    "no upgrade": ("Upgrade: h2c",),
}
BODY = b"POST /smuggled HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n"
"""A body that is itself a request."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(QUICK) as server:
        yield server


def write(method: str, path: str, version: str, framing: str, offer: str) -> tuple[bytes, bytes]:
    """The head and the body of one request."""
    fields = {"none": [], "length": [f"Content-Length: {len(BODY)}"], "chunked": ["Transfer-Encoding: chunked"]}[
        framing
    ]
    head = "\r\n".join([f"{method} {path} HTTP/{version}", "Host: here", *fields, *OFFERS[offer], "", ""]).encode()
    half = len(BODY) // 2
    chunks = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (half, BODY[:half], len(BODY) - half, BODY[half:])
    return head, {"none": b"", "length": BODY, "chunked": chunks}[framing]


def cut(head: bytes, body: bytes, split: str) -> list[bytes]:
    at = {"whole": 0, "head and body": len(head), "inside the head": len(head) - 9, "inside the body": len(head) + 40}
    whole = head + body
    return [piece for piece in (whole[: at[split]], whole[at[split] :]) if piece]


def send(served: Served, wire: socket.socket, pieces: list[bytes]) -> None:
    """Send each piece once the server has read the one before."""
    for piece in pieces:
        before, began = served.bytes_read, running_seconds()
        wire.sendall(piece)
        while served.bytes_read < before + len(piece):
            assert running_seconds() < began + 5, "the server reads no more of this connection"
            time.sleep(0.0002)


def read(wire: socket.socket, method: str) -> tuple[int, bytes]:
    answer = HTTPResponse(wire, method=method)
    answer.begin()
    return answer.status, answer.read()


def ask(served: Served, method: str, path: str, version: str, framing: str, offer: str, split: str) -> list[object]:
    """The answer to one request and, on the same connection, to the next one."""
    with served.connect() as wire:
        send(served, wire, cut(*write(method, path, version, framing, offer), split))
        answers: list[object] = [read(wire, method)]
        if version == "1.1" and path == "/echo":
            send(served, wire, [b"GET /headers HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"])
            answers.append(read(wire, "GET"))
        wire.settimeout(2)
        return [*answers, wire.recv(1) if path == "/echo" else b""]


def test_no_offer_takes_a_body_away(served: Served) -> None:
    """Every method, framing, version, offer and cut: the body is read whole, and the next request is the next one."""
    wrong = []
    for method, framing, split, version, offer in itertools.product(METHODS, FRAMINGS, SPLITS, VERSIONS, OFFERS):
        if (version, framing) == ("1.0", "chunked") or (framing == "none" and split == "inside the body"):
            continue
        size = 0 if framing == "none" else len(BODY)
        expected: list[object] = [(200, b"" if method == "HEAD" else b"%d" % size)]
        expected += [(200, b'["host", "connection"]')] if version == "1.1" else []
        found = ask(served, method, "/echo", version, framing, offer, split)
        if found != [*expected, b""]:
            wrong.append((method, framing, split, version, offer, found))
    assert wrong == []
    assert "/smuggled" not in served.events


def test_refused_body_is_no_request(served: Served) -> None:
    """A body that is a request stays a body when its request is refused before the body is read."""
    for framing, split, offer in itertools.product(("length", "chunked"), SPLITS, OFFERS):
        assert ask(served, "POST", "/refuse", "1.1", framing, offer, split)[0][0] == 401
    assert "/smuggled" not in served.events


def test_chunks_are_not_for_old_clients(served: Served) -> None:
    """HTTP/1.0 knows no chunked body: a request with one is a 400, not a body that another reader cuts elsewhere."""
    for offer in OFFERS:
        with served.connect() as wire:
            wire.sendall(b"".join(write("POST", "/echo", "1.0", "chunked", offer)))
            assert read(wire, "POST")[0] == 400
    assert "/smuggled" not in served.events


def test_many_offers_in_one_packet(served: Served) -> None:
    """A thousand pipelined offers are a thousand requests, read in one pass."""
    head, _ = write("GET", "/echo", "1.1", "none", "h2c")
    with served.connect() as wire:
        wire.sendall(head * 1000 + b"GET /echo HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        wire.settimeout(10)
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200") == 1001
