"""A simulator on a real port for the whole run, forgotten afresh for every test, and a hand to drive it."""

import io
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from gateway.simulator.config import SimulatorConfig
from gateway.simulator.server import background

KEYS = {"anyfast": "sim-direct", "apiany": "sim-apiany", "openai": "sim-openai"}


def draw(kind: str = "PNG", size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 120 if mode == "L" else "teal").save(out, kind, **options)
    return out.getvalue()


class Hand:
    """Drives one simulator as a caller and as a test."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self.client = client

    draw = staticmethod(draw)

    def headers(self, upstream: str, key: str | None = None) -> dict[str, str]:
        return {"authorization": f"Bearer {key or KEYS[upstream]}"}

    def generate(self, model: str = "gpt-image-2", key: str | None = None, **fields: Any) -> httpx.Response:
        body = {"model": model, "prompt": "a lighthouse", **fields}
        headers = self.headers("anyfast", key)
        return self.client.post("/anyfast/v1/images/generations", headers=headers, json=body)

    def edit(
        self,
        *files: tuple[str, bytes],
        upstream: str = "anyfast",
        model: str = "gpt-image-2",
        key: str | None = None,
        **fields: str,
    ) -> httpx.Response:
        parts = [(name, ("upload", data, "application/octet-stream")) for name, data in files]
        data = {"model": model, "prompt": "a lighthouse", **fields}
        headers = self.headers(upstream, key)
        return self.client.post(f"/{upstream}/v1/images/edits", headers=headers, data=data, files=parts)

    def submit(self, key: str | None = None, **fields: Any) -> httpx.Response:
        body = {"model": "gpt-image-2", "prompt": "a lighthouse", **fields}
        headers = self.headers("apiany", key)
        return self.client.post("/apiany/v1/images/generations", headers=headers, json=body)

    def read(self, path: str, upstream: str = "apiany", key: str | None = None) -> httpx.Response:
        return self.client.get(f"/{upstream}{path}", headers=self.headers(upstream, key))

    def finish(self, submission: httpx.Response) -> dict[str, Any]:
        """Ask for a task until it has neither of the words of an unfinished one."""
        path = f"/v1/tasks/{submission.json()['task_id']}"
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            task = self.read(path).json()
            if task["status"] not in ("pending", "processing"):
                return task
        raise AssertionError("the task never ended")

    def upload(self, data: bytes) -> str:
        headers = self.headers("apiany")
        answer = self.client.post("/apiany/v1/images/upload", headers=headers, files={"file": ("x", data)})
        assert answer.status_code == 200, answer.text
        return answer.json()["url"]

    def fault(self, kind: str, options: dict[str, Any] | None = None, **rule: Any) -> dict[str, Any]:
        body = {**rule, "fault": {"kind": kind, **(options or {})}}
        answer = self.client.post("/_faults", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def book(self) -> list[dict[str, Any]]:
        return self.client.get("/_book").json()

    def log(self) -> list[dict[str, Any]]:
        return self.client.get("/_log").json()

    @staticmethod
    def until(claim: Callable[[], bool]) -> None:
        """Ask again until the claim holds."""
        deadline = time.monotonic() + 10
        while not claim():
            assert time.monotonic() < deadline, "it never came true"

    def open_socket(self) -> socket.socket:
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname, parts.port), timeout=10)

    def raw_generate(self, wire: socket.socket, upstream: str = "anyfast") -> None:
        """Send a generation by hand, so that a test sees what TCP says."""
        body = b'{"model":"gpt-image-2","prompt":"a lighthouse"}'
        head = (
            f"POST /{upstream}/v1/images/generations HTTP/1.1\r\nhost: x\r\n"
            "content-type: application/json\r\n"
            f"authorization: Bearer {KEYS[upstream]}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        wire.sendall(head.encode() + body)

    @staticmethod
    def read_all(wire: socket.socket) -> tuple[bytes, str]:
        """Everything that came, and whether the end was a `close` or a `reset`."""
        received = b""
        while True:
            try:
                piece = wire.recv(65_536)
            except ConnectionResetError:
                return received, "reset"
            if not piece:
                return received, "close"
            received += piece


@pytest.fixture(scope="session")
def simulator_url() -> Iterator[str]:
    with background(SimulatorConfig(latency=0.02)) as url:
        yield url


@pytest.fixture
def hand(simulator_url: str) -> Iterator[Hand]:
    with httpx.Client(base_url=simulator_url, timeout=10, verify=False) as client:
        client.post("/_reset")
        yield Hand(simulator_url, client)
