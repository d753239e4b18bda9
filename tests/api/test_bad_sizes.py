"""Bodies and pictures over their limits: refused as early as can be known, and nothing kept of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.support.gateways import EDITS, GENERATIONS, OFFICIAL, Gateway, Gateways, assert_refused, error_of
from tests.support.plain_pictures import data_url, png

MIB = 2**20


@pytest.fixture
def tight(gateways: Gateways) -> Gateway:
    """A gateway that takes small bodies only."""
    return gateways.open(limits={"image_bytes": 64 * 1024, "body_bytes": MIB, "images": 3, "pixels": 655_360})


def test_large_image_is_refused(tight: Gateway) -> None:
    """An image over the limit is a 413 in every dialect; one at the limit is not."""
    large = b"\x89PNG\r\n\x1a\n" + b"x" * 64 * 1024
    assert_refused(tight, tight.edit({"image": large}), 413, "image")
    assert_refused(tight, tight.edit({"image": png(), "mask": large}), 413, "mask")
    assert_refused(tight, tight.edit({"image": (None, data_url(large))}), 413, "image")
    body = {"prompt": "a cat", "model": OFFICIAL, "image": data_url(large)}
    assert_refused(tight, tight.post(EDITS, json=body), 413, "image")


def test_large_body_is_refused_by_header(tight: Gateway) -> None:
    """A declared length over the limit is refused before the body is sent."""
    host, port = tight.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tight.key}\r\n"
        connection.sendall(f"{head}content-length: {MIB + 1}\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"}") and (piece := connection.recv(65536)):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in answer
    assert not tight.leftovers()


def test_large_body_is_refused_by_count(tight: Gateway) -> None:
    """A chunked body is cut off at the limit."""

    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 64 * 1024

    assert_refused(tight, tight.post(GENERATIONS, content=pieces()), 413, None)


def test_bytes_in_flight_are_bounded(gateways: Gateways) -> None:
    """Over all uploads together the gateway takes only so many bytes, and gives them back."""
    gateway = gateways.open(limits={"bytes_in_flight": MIB})
    assert_refused_busy(gateway, gateway.generate(user="x" * 2 * MIB))
    assert gateway.generate().status_code == 200


def assert_refused_busy(gateway: Gateway, answer: httpx.Response) -> None:
    assert (answer.status_code, error_of(answer)["code"]) == (503, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    assert not gateway.leftovers()
