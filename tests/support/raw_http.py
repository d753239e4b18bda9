"""A real uvicorn behind the guarded protocol, and raw sockets to speak to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn

from gateway.api.connection.limits import WireLimits
from gateway.api.connection.protocol import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

QUICK = WireLimits(header_timeout_s=0.4, body_idle_s=0.3, linger_s=0.3)
MIB = 1024 * 1024
NO_SUCH_KEY = {
    "error": {"message": "No such key.", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
}


@dataclass
class Served:
    """A server on a port of its own: what its application saw, and how many bytes its protocol was handed."""

    port: int
    bytes_read: int = 0
    events: list[Any] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    server: uvicorn.Server | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def ask(self, *pieces: bytes) -> bytes:
        """All that is answered, up to the end of the connection."""
        with self.connect() as wire:
            for piece in pieces:
                wire.sendall(piece)
            return read_all(wire)


def read_all(wire: socket.socket) -> bytes:
    answer = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := wire.recv(65536):
            answer += piece
    return bytes(answer)


def stays_silent(wire: socket.socket, seconds: float) -> bool:
    """Whether the server neither answers nor closes for so long."""
    wire.settimeout(seconds)
    try:
        wire.recv(1)
    except TimeoutError:
        return True
    finally:
        wire.settimeout(5)
    return False


def read_answer(wire: socket.socket) -> bytes:
    """One answer with a Content-Length."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += wire.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    while len(body) < length:
        body += wire.recv(65536)
    return head + b"\r\n\r\n" + body


def refusal(answer: bytes) -> tuple[int, str, str]:
    """Status, code and message of an answer, whose headers and body are those of every error."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert re.search(rb"\r\nx-request-id: req_[0-9a-z]{26}\r\n", head)
    assert b"\r\ncontent-type: application/json\r\n" in head
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" or error["code"] == "overloaded"
    return int(head.split()[1]), error["code"], error["message"]


async def reply(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_body(served: Served, receive: Any) -> int | None:
    size = 0
    while True:
        message = await receive()
        served.events.append(message["type"])
        if message["type"] == "http.disconnect":
            return None
        size += len(message["body"])
        if not message["more_body"]:
            return size


def application(served: Served) -> Any:
    """`/echo` reads its body and tells its size; `/slow` is late to read; `/wait` answers when told; else 401.

    `/large` answers with 16 MiB, in pieces without a length.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        served.events.append(path)
        if path == "/slow":
            await asyncio.sleep(0.6)
        if path == "/wait":
            await asyncio.to_thread(served.go_on.wait, 5)
        if path == "/headers":
            await read_body(served, receive)
            await reply(send, json.dumps([name.decode() for name, _ in scope["headers"]]).encode())
        elif path == "/large":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for left in reversed(range(256)):
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": left > 0})
        elif path == "/watch":
            await read_body(served, receive)
            served.events.append((await receive())["type"])
        elif path in {"/echo", "/slow", "/wait"}:
            size = await read_body(served, receive)
            await reply(send, str(size).encode())
        else:
            await reply(send, json.dumps(NO_SUCH_KEY).encode(), 401)
        served.done.set()

    return app


@contextlib.contextmanager
def serving(limits: WireLimits, app: Any = None) -> Iterator[Served]:
    """A server with these limits, of `application` unless another application is given."""
    # The socket listens before the server runs, so that no test has to wait for it.
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    served = Served(port=listener.getsockname()[1])

    class Counting(protocol(limits)):
        def data_received(self, data: bytes) -> None:
            served.bytes_read += len(data)
            super().data_received(data)

    config = uvicorn.Config(
        application(served) if app is None else app,
        http=Counting,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level="error",
        timeout_keep_alive=5,
    )
    served.server = uvicorn.Server(config)
    thread = threading.Thread(target=served.server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield served
    finally:
        served.go_on.set()
        served.server.should_exit = True
        thread.join(timeout=10)
        listener.close()
        assert not thread.is_alive()


def get(path: str, *headers: str, close: bool = True) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: here", *headers, *(["Connection: close"] if close else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def post(path: str, length: int, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {length}", *headers, "", ""]).encode()
