"""A client in a process of its own: equal requests at once, uploads from a file, answers counted and discarded.

`python -m bench.load` reads one `Load` as JSON on stdin and writes the answers as JSON on stdout. Never parses a body.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass

TIMEOUT_S = 120.0
"""Seconds without a byte in either direction, after which the client gives a request up."""

_PIECE = 512 * 1024


@dataclass(frozen=True)
class Load:
    """`count` times one POST of the file at `body`, all at once; the answer is left unread for `hold_s` seconds."""

    port: int
    key: str
    path: str
    content_type: str
    body: str
    count: int = 1
    hold_s: float = 0.0


@dataclass(frozen=True)
class Answered:
    """One answer: its body's bytes, the seconds from the first byte sent to the last one read, and its own words."""

    status: int
    bytes: int
    is_whole: bool
    seconds: float
    upstream: str
    is_simulated: bool
    start: str


def run(load: Load) -> list[Answered]:
    """Send the load from a process of its own and wait for all answers."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"], input=json.dumps(asdict(load)), capture_output=True, text=True, check=True
    )
    return [Answered(**one) for one in json.loads(done.stdout)]


def _send(load: Load, barrier: threading.Barrier, answers: list[Answered]) -> None:
    buffer = bytearray(_PIECE)
    with socket.create_connection(("127.0.0.1", load.port), TIMEOUT_S) as wire, open(load.body, "rb") as body:
        length = body.seek(0, 2)
        body.seek(0)
        head = (
            f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nAuthorization: Bearer {load.key}\r\n"
            f"Content-Type: {load.content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )
        barrier.wait(TIMEOUT_S)
        started = time.monotonic()
        wire.sendall(head.encode("ascii"))
        wire.sendfile(body)
        start = b""
        while b"\r\n\r\n" not in start:
            if not (piece := wire.recv(4096)):
                raise ConnectionError("the answer ended in its headers")
            start += piece
        head_bytes, _, first = start.partition(b"\r\n\r\n")
        size = len(first)
        time.sleep(load.hold_s)
        while got := wire.recv_into(buffer):
            size += got
        answers.append(_read_head(head_bytes, size, time.monotonic() - started, first))


def _read_head(head: bytes, size: int, seconds: float, first: bytes) -> Answered:
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Answered(
        status=int(lines[0].split()[1]),
        bytes=size,
        is_whole=headers.get("content-length") == str(size),
        seconds=seconds,
        upstream=headers.get("x-gateway-upstream", ""),
        is_simulated=headers.get("x-gateway-simulated") == "1",
        start=first[:300].decode("utf-8", "replace"),
    )


def main() -> None:
    load = Load(**json.load(sys.stdin))
    barrier = threading.Barrier(load.count)
    answers: list[Answered] = []
    threads = [threading.Thread(target=_send, args=(load, barrier, answers)) for _ in range(load.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump([asdict(answer) for answer in answers], sys.stdout)


if __name__ == "__main__":
    main()
