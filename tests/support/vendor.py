"""A vendor of a test's own making, where the simulator is too well-behaved."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Sent:
    """One request as it arrived. `key` is its Authorization header."""

    method: str
    path: str
    key: str
    body: bytes


@dataclass(frozen=True)
class Raw:
    """An answer that is no plain JSON: its status, its reason phrase, its headers and the bytes of its body."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    reason: str = "OK"


@contextmanager
def vendor(answer: Callable[[str, str], Any]) -> Iterator[tuple[str, list[Sent]]]:
    """A vendor that answers 200 with what `answer(method, path)` makes: bytes, a value for JSON, or a Raw answer.

    Yields its URL, and what it was sent.
    """
    seen: list[Sent] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append(Sent(self.command, self.path, self.headers.get("authorization", ""), sent))
            made = answer(self.command, self.path)
            raw = made if isinstance(made, Raw) else Raw(made if isinstance(made, bytes) else json.dumps(made).encode())
            self.send_response(raw.status, raw.reason)
            self.send_header("content-length", str(len(raw.body)))
            if not any(name.lower() == "content-type" for name, _ in raw.headers):
                self.send_header("content-type", "application/json")
            for name, value in raw.headers:
                self.send_header(name, value)
            self.end_headers()
            # Whoever has read enough ends the connection.
            with suppress(ConnectionError):
                self.wfile.write(raw.body)

        do_POST = do_GET  # noqa: N815 (the name the base class looks for)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name the base class gave it)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
