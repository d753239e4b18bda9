"""Requests as bytes: sent over TCP as they are, and printed as a command that can be pasted into a shell."""

from __future__ import annotations

import base64
import http.client
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import hypothesis

from tests.support.ledgers import is_soak
from tests.support.stopwatch import running_seconds

HANG_S = 2
"""Seconds of this process within which every answer must come."""

PATIENCE_S = 60
"""Seconds of the clock, on a machine that may stand still meanwhile."""

_PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b"'\\")


def examples(few: int, many: int) -> hypothesis.settings:
    """As many examples as the profile has: the same ones each time in `make test`, others each time in a long run."""
    return hypothesis.settings(
        max_examples=many if is_soak() else few,
        derandomize=not is_soak(),
        database=None,
        deadline=None,
        print_blob=is_soak(),
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )


@dataclass(frozen=True)
class WireRequest:
    """A request with any bytes in its headers and its body. Its `repr` is a command for bash."""

    path: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    method: str = "POST"

    def to_bytes(self) -> bytes:
        lines = [
            f"{self.method} {self.path} HTTP/1.1".encode(),
            *(name + b": " + value for name, value in self.headers),
        ]
        if not {b"content-length", b"transfer-encoding"} & {name.lower() for name, _ in self.headers}:
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body

    def add(self, *headers: tuple[bytes, bytes]) -> WireRequest:
        return WireRequest(self.path, (*headers, *self.headers), self.body, self.method)

    def __repr__(self) -> str:
        return f"<pipe into a socket: {paste(self.to_bytes())}>"


def paste(data: bytes) -> str:
    """A command for bash that prints the bytes: readable where they are text, base64 where they are not."""
    if all(byte in _PLAIN or byte in b"\r\n\t'\\" for byte in data):
        return f"printf '%b' {quote_bash(data)}"
    return f"base64 -d <<< {base64.b64encode(data).decode()}"


def quote_bash(data: bytes) -> str:
    """Bytes without NUL as one word of bash, for `printf %b`."""
    signs = {0x0D: r"\r", 0x0A: r"\n", 0x09: r"\t", 0x27: r"\0047", 0x5C: r"\\"}
    return "'" + "".join(signs.get(byte, chr(byte)) for byte in data) + "'"


@dataclass(frozen=True)
class WireAnswer:
    """An answer that was read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class WireClient:
    """One connection to a server, opened again when the server has closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._address = (parts.hostname, parts.port)
        self._wire: socket.socket | None = None

    def ask(self, request: WireRequest) -> WireAnswer:
        """The answer to one request; a failure that can be pasted, where none comes in time."""
        began = running_seconds()
        try:
            answer = self._exchange(request)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise AssertionError(f"{error!r}\n{self.paste(request)}") from error
        assert running_seconds() - began < HANG_S, f"too slow\n{self.paste(request)}"
        return answer

    def paste(self, request: WireRequest) -> str:
        """The command that sends the request again; it needs nothing but bash."""
        host, port = self._address
        return f"exec 3<>/dev/tcp/{host}/{port}; {paste(request.to_bytes())} >&3; timeout 5 cat <&3"

    def _exchange(self, request: WireRequest) -> WireAnswer:
        if self._wire is None:
            self._wire = socket.create_connection(self._address, timeout=PATIENCE_S)
        self._wire.sendall(request.to_bytes())
        answer = http.client.HTTPResponse(self._wire, method=request.method)
        try:
            answer.begin()
            read = WireAnswer(answer.status, answer.headers, answer.read())
        finally:
            answer.close()
        if answer.will_close:
            self.close()
        return read

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


def read_status(url: str, pieces: list[bytes]) -> int:
    """The status that answers these bytes, sent in pieces; 0 where the server closes without an answer."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE_S) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                wire.sendall(piece)
            answer = http.client.HTTPResponse(wire)
            answer.begin()
            answer.close()
        except (ConnectionError, http.client.RemoteDisconnected):
            return 0
        return answer.status
