"""Pings, which show stalls of the worker's event loop: `GET /healthz` every 50 ms from a process of its own.

`python -m bench.ping PORT` pings until its stdin ends, then writes the waits in milliseconds as JSON.
"""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import threading
import time
from types import TracebackType

from bench.processes import BenchError

EVERY_S = 0.05
_TIMEOUT_S = 60.0


class Pings:
    """While entered, pings; afterwards `waits` are milliseconds, each from the moment its ping was due.

    A ping that waits for the one before counts that time too, so that one long stall is not counted as a single wait.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.waits: list[float] = []

    def __enter__(self) -> Pings:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.ping", str(self._port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        output, _ = self._process.communicate(timeout=_TIMEOUT_S)
        if error is None and self._process.returncode != 0:
            raise BenchError("the pings broke off")
        self.waits = json.loads(output or "[]")


def quantile(values: list[float], share: float) -> float:
    """The quantile of the values; 0 if there are none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0


def _ping(wire: socket.socket) -> None:
    wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while b"}" not in answer:
        if not (piece := wire.recv(4096)):
            raise ConnectionError("the gateway closed the connection")
        answer += piece


def main(port: int) -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    waits: list[float] = []
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _ping(wire)
        sys.stdout.write("pinging\n")
        sys.stdout.flush()
        due = time.monotonic()
        while not ended.is_set():
            due += EVERY_S
            time.sleep(max(0.0, due - time.monotonic()))
            _ping(wire)
            waits.append((time.monotonic() - due) * 1000)
    json.dump(waits, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
