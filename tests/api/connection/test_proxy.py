"""The same requests bare and behind a real nginx, written to the wire: the same answers."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import socket
from http.client import BadStatusLine, HTTPResponse
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.gateways import OFFICIAL, Gateway, small
from tests.support.nginx import PROGRAM, proxied

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    PROGRAM is None and shutil.which("apt-get") is None, reason="nginx is missing, and only Debian's is installed"
)

OFFERS = {
    "nothing": [],
    "h2c": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"],
    "websocket": ["Connection: Upgrade", "Upgrade: websocket"],
    "TLS": ["Connection: Upgrade", "Upgrade: TLS/1.2"],
}
PLAN = json.dumps(small()).encode()
REQUEST = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
DRY = "X-Gateway-Dry-Run: 1"
GENERATIONS = "/v1/images/generations"


def write(
    method: str, path: str, lines: list[str], body: bytes = b"", version: str = "1.1", framing: str = "length"
) -> list[bytes]:
    """The head and the body of a request, each in a piece of its own."""
    host = [] if any(line.startswith("Host:") for line in lines) or "no host" in lines else ["Host: here"]
    framed = [f"Content-Length: {len(body)}"] if framing == "length" else ["Transfer-Encoding: chunked"]
    lines = [*host, *(line for line in lines if line != "no host"), *(framed if body else [])]
    head = "\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""]).encode()
    if body and framing == "chunked":
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return [head, body]


def table(key: str) -> dict[str, tuple[str, list[bytes], tuple[int, str | None]]]:
    """Name → method, the pieces of a request, and its status with the `object` or the error's `code` of its answer."""
    auth, wrong = f"Authorization: Bearer {key}", "Authorization: Bearer igw_wrong"
    rows: dict[str, tuple[str, list[bytes], tuple[int, str | None]]] = {}
    for offer, framing in itertools.product(OFFERS, ("length", "chunked")):
        name, lines = f"{offer}, {framing}", [*OFFERS[offer], "Content-Type: application/json"]
        plan = write("POST", GENERATIONS, [auth, DRY, *lines], PLAN, framing=framing)
        inner = write("POST", GENERATIONS, [auth, *lines], REQUEST, framing=framing)
        rows[f"plan: {name}"] = "POST", plan, (200, "image.plan")
        rows[f"request as body: {name}"] = "POST", inner, (400, "invalid_value")
    for offer in OFFERS:
        refused = write("POST", GENERATIONS, [wrong, *OFFERS[offer]], REQUEST)
        rows[f"wrong key: {offer}"] = "POST", refused, (401, "invalid_api_key")
        rows[f"models: {offer}"] = "GET", write("GET", "/v1/models", [auth, *OFFERS[offer]]), (200, "list")
    old = [auth, DRY, "Content-Type: application/json"]
    rows["HTTP/1.0"] = "POST", write("POST", GENERATIONS, old, PLAN, version="1.0"), (200, "image.plan")
    for path in ("/v1/models/", "/models", "//v1/models", "/v1/v1/models/", "/v1/images/generations/models"):
        rows[f"GET {path}"] = "GET", write("GET", path, [auth]), (200, "list")
    for path in (GENERATIONS + "/", "/images/generations", GENERATIONS + "/images/generations"):
        rows[f"POST {path}"] = "POST", write("POST", path, [auth, DRY], PLAN), (200, "image.plan")
    for path in ("/healthz", "/readyz", "/v1/models", f"/v1/models/{OFFICIAL}"):
        rows[f"HEAD {path}"] = "HEAD", write("HEAD", path, [auth]), (200, None)
    twice = write("POST", GENERATIONS, [auth, "Idempotency-Key: a", "Idempotency-Key: b"], PLAN)
    rows["two keys of idempotency"] = "POST", twice, (400, "invalid_value")
    azure = write("POST", "/openai/deployments/a/images/generations", ["Api-Key: a"], PLAN)
    rows["Azure's path"] = "POST", azure, (404, "unknown_url")
    rows["Azure's header"] = "GET", write("GET", "/v1/models", ["Api-Key: a"]), (401, "invalid_api_key")
    return rows


REFUSED = {
    "two hosts": ["Host: a", "Host: b"],
    "no host": ["no host"],
    "two lengths": ["Content-Length: 2", "Content-Length: 3"],
    "length and chunks": ["Content-Length: 2", "Transfer-Encoding: chunked"],
    "strange coding": ["Transfer-Encoding: gzip, chunked"],
}
"""Heads that nginx refuses by itself, with a page of its own."""


def ask(port: int, method: str, pieces: list[bytes]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the one answer that comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                wire.sendall(piece)
        answer = HTTPResponse(wire, method=method)
        answer.begin()
        return answer.status, dict(answer.headers.items()), answer.read()


def read(body: bytes) -> str | None:
    document: Any = json.loads(body) if body else {}
    return document.get("object") or document.get("error", {}).get("code")


def test_nginx_changes_no_answer(gateway: Gateway, tmp_path: Path) -> None:
    """Each request of the table gets its answer bare and behind three usual configurations of nginx."""
    wrong = {}
    with proxied(tmp_path, gateway.url) as ports:
        for way, port in {"bare": int(gateway.url.rpartition(":")[2]), **ports}.items():
            for name, (method, pieces, expected) in table(gateway.key).items():
                status, _, body = ask(port, method, pieces)
                if (status, read(body)) != expected:
                    wrong[f"{way}: {name}"] = (status, body[:200])
    assert wrong == {}
    assert not gateway.simulator.paid()


def test_ambiguous_heads_are_refused_in_front_too(gateway: Gateway, tmp_path: Path) -> None:
    """What two readers could read in two ways is refused by the gateway, and by nginx before it gets there."""
    with proxied(tmp_path, gateway.url) as ports:
        for way, port in {"bare": int(gateway.url.rpartition(":")[2]), **ports}.items():
            for name, lines in REFUSED.items():
                head = write("POST", GENERATIONS, [f"Authorization: Bearer {gateway.key}", *lines])
                status, _, _ = ask(port, "POST", head)
                assert status == 400 or (status == 501 and way != "bare"), (way, name, status)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_stream_has_the_framing_of_its_version(gateway: Gateway, tmp_path: Path, version: str) -> None:
    """A stream is chunked for HTTP/1.1 and ends with the connection for HTTP/1.0, bare and behind nginx."""
    lines = [f"Authorization: Bearer {gateway.key}", "Content-Type: application/json"]
    with proxied(tmp_path, gateway.url) as ports:
        for way, port in {"bare": int(gateway.url.rpartition(":")[2]), **ports}.items():
            body = json.dumps(small(stream=True, prompt=f"a cat {way}")).encode()
            status, headers, answer = ask(port, "POST", write("POST", GENERATIONS, lines, body, version=version))
            assert status == 200, way
            framing = {name.lower(): text for name, text in headers.items()}.get("transfer-encoding")
            assert framing == ("chunked" if version == "1.1" else None), way
            assert answer.startswith((b":", b"event: ")), way
            assert answer.count(b"event: image_generation.completed\n") == 1, way
            assert answer.endswith(b"\n\n"), way


def test_connection_that_ended_early_gives_no_answer_of_another(gateway: Gateway) -> None:
    """A body that is cut off is no answer at all, and never the beginning of the next request."""
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=10) as wire:
        head, _ = write("POST", GENERATIONS, [f"Authorization: Bearer {gateway.key}", "Content-Length: 90"])
        wire.sendall(head + REQUEST[:40])
        wire.shutdown(socket.SHUT_WR)
        with pytest.raises((BadStatusLine, ConnectionError)):
            HTTPResponse(wire, method="POST").begin()
