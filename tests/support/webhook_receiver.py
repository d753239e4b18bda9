"""A caller's own server that is told of tasks: it answers as a test says, and keeps what it was sent."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import orjson
import pytest
from standardwebhooks import Webhook
from typing_extensions import override

from tests.support.simulators import wait_until


@dataclass(frozen=True)
class Told:
    """One message as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def facts(self) -> dict[str, Any]:
        return orjson.loads(self.body)

    def verify(self, secret: str) -> Any:
        """What Standard Webhooks' own library reads. Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: Receiver


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers["content-length"]))
        told = Told(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        with receiver.lock:
            receiver.told.append(told)
            status, headers = receiver.answers.popleft() if receiver.answers else (204, {})
        if receiver.hold.is_set():
            receiver.release.wait(10)
        try:
            self.send_response(status)
            for name, value in {"content-length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
        except OSError:
            # The gateway's time was up.
            return

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


class Receiver:
    """Answers 204, unless a test laid other answers down, and at once, unless it is held."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.told: list[Told] = []
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.hold = threading.Event()
        self.release = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.receiver = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.origin = f"http://127.0.0.1:{cast(int, self._server.server_address[1])}"
        self.url = f"{self.origin}/hook"

    def answer(self, *statuses: int, **headers: str) -> None:
        """The answers to the next messages."""
        self.answers.extend(
            (status, {name.replace("_", "-"): value for name, value in headers.items()}) for status in statuses
        )

    def wait(self, count: int = 1) -> list[Told]:
        """All messages, once there are so many."""
        wait_until(lambda: len(self.told) >= count, f"the message {count}", 10)
        return list(self.told)

    def reset(self) -> None:
        self.hold.clear()
        self.release.set()
        with self.lock:
            self.told.clear()
            self.answers.clear()
        self.release = threading.Event()

    def close(self) -> None:
        self.reset()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture(scope="session")
def receiver_thread() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def receiver(receiver_thread: Receiver) -> Iterator[Receiver]:
    receiver_thread.reset()
    yield receiver_thread
    receiver_thread.reset()
