"""A vendor that gives any answer at all: generated ones, played over raw sockets in a thread of its own.

Nothing in it is judged: it counts the paid POSTs that it read whole, and says where each of them came in.
"""

from __future__ import annotations

import asyncio
import gzip
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from tests.support.fault_server import Connection, FaultServer

HERE = b"http://vendor.here"
"""Stands for the vendor's own address in what it answers."""

Framing = Literal[
    "length", "chunked", "close", "http10", "early", "short", "long", "cut chunk", "bad chunk", "reset", "head"
]
WHOLE: frozenset[Framing] = frozenset({"length", "chunked", "close", "http10", "early"})
"""Framings in which the body arrives whole."""

TORN: frozenset[Framing] = frozenset({"short", "bad chunk", "reset", "head"})
"""Framings in which nobody can know the body. In the others that break, only what follows the document is missing."""

BREAKS: tuple[Framing, ...] = ("short", "long", "cut chunk", "bad chunk", "reset", "head")

Encoding = Literal["identity", "gzip", "deflate", "br", "broken gzip", "bom", "utf-16"]

ENCODERS: Mapping[Encoding, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "broken gzip": lambda data: gzip.compress(data)[:-9],
    "bom": lambda data: b"\xef\xbb\xbf" + data,
    "utf-16": lambda data: data.decode("utf-8", "replace").encode("utf-16"),
}
TOKENS: Mapping[Encoding, bytes] = {"gzip": b"gzip", "deflate": b"deflate", "br": b"br", "broken gzip": b"gzip"}


@dataclass(frozen=True)
class VendorAnswer:
    """One answer: its parts as they are generated, and as bytes."""

    status: int = 200
    body: bytes = b"{}"
    framing: Framing = "length"
    encoding: Encoding = "identity"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    kind: bytes = b"application/json"

    def to_bytes(self, own_url: bytes) -> bytes:
        body = self.body.replace(HERE, own_url)
        body = ENCODERS.get(self.encoding, bytes)(body)
        version = b"HTTP/1.0" if self.framing == "http10" else b"HTTP/1.1"
        headers = [b"Content-Type: " + self.kind]
        if self.encoding in TOKENS:
            headers.append(b"Content-Encoding: " + TOKENS[self.encoding])
        headers += [name + b": " + value.replace(HERE, own_url) for name, value in self.headers]
        framed, length = _frame(self.framing, body)
        early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" if self.framing == "early" else b""
        head = b"\r\n".join([early + version + b" %d Some reason" % self.status, *headers, *length])
        if self.framing == "head":
            return head
        return head + b"\r\n\r\n" + framed


def _frame(framing: Framing, body: bytes) -> tuple[bytes, list[bytes]]:
    """The body as it is sent, and the headers that declare it."""
    match framing:
        case "chunked":
            half = len(body) // 2
            pieces = [piece for piece in (body[:half], body[half:]) if piece]
            chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
            return chunks + b"0\r\nx-trailer: 1\r\n\r\n", [b"Transfer-Encoding: chunked"]
        case "cut chunk":
            return b"%x\r\n%s" % (len(body) + 1, body), [b"Transfer-Encoding: chunked"]
        case "bad chunk":
            return b"zz\r\n" + body, [b"Transfer-Encoding: chunked"]
        case "close" | "http10":
            return body, [b"Connection: close"]
        case "short" | "reset":
            return body[: len(body) // 2], [b"Content-Length: %d" % (len(body) + 1)]
        case "long":
            return body, [b"Content-Length: %d" % (len(body) + 99)]
        case _:
            return body, [b"Content-Length: %d" % len(body)]


@dataclass
class PlayedVendor:
    """Answers a paid POST with `submission`, polls with `polls` in turn and then with `last`, files by their path."""

    url: str = ""
    submission: VendorAnswer = field(default_factory=VendorAnswer)
    last: VendorAnswer = field(default_factory=VendorAnswer)
    second: VendorAnswer = field(default_factory=VendorAnswer)
    polls: list[VendorAnswer] = field(default_factory=list)
    files: dict[str, VendorAnswer] = field(default_factory=dict)
    paid: list[str] = field(default_factory=list)
    """The first folder of the path of each paid POST that was read whole."""
    _number: int = 0

    def start(self, submission: VendorAnswer, polls: list[VendorAnswer]) -> None:
        """Play the next one; TICKET in its bodies becomes a text that no other had."""
        self._number += 1
        self.submission, *self.polls = [
            replace(answer, body=answer.body.replace(b"TICKET", b"ticket-%d" % self._number))
            for answer in (submission, *polls)
        ]
        self.paid = []

    async def play(self, connection: Connection) -> None:
        method, path = (await connection.read_request()).split(b" ")[:2]
        place, _, rest = path.decode("latin-1").lstrip("/").partition("/")
        if method == b"POST":
            self.paid.append(place)
            answer = self.second if place == "second" else self.submission
        elif place == "files":
            answer = self.files.get(rest, VendorAnswer(404))
        else:
            answer = self.polls.pop(0) if self.polls else self.last
        await connection.send(answer.to_bytes(self.url.encode()))
        if answer.framing == "reset":
            connection.reset()
        else:
            connection.finish()
            await connection.wait_gone()


@contextmanager
def played_vendor() -> Iterator[PlayedVendor]:
    """A vendor on a free port."""
    vendor, is_ready = PlayedVendor(), threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with FaultServer(vendor.play) as server:
            vendor.url = server.url
            is_ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="vendor")
    thread.start()
    is_ready.wait()
    try:
        yield vendor
    finally:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(over.set)
        thread.join(10)
        assert not thread.is_alive()
        loop.close()
