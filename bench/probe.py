"""The probe: a proxy that does as little as any proxy can that keeps evidence, as a measure for imagegate.

`python -m bench.probe PORT UPSTREAM STORE FOLDER` serves every POST on 127.0.0.1 by uvicorn: three scripts in the
Valkey behind the socket STORE, the request over a new connection, the answer in one synced file in FOLDER. It reads no
key, checks nothing, and holds each body in memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from redis.asyncio import Redis

_SCRIPT = "return redis.call('HSET', KEYS[1], 'state', ARGV[1])"

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Probe:
    """The ASGI application."""

    def __init__(self, upstream: str, store: str, folder: Path) -> None:
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._store = Redis(unix_socket_path=store)
        self._script = self._store.register_script(_SCRIPT)
        self._folder = folder

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, is_more = b"", True
        while is_more:
            message = await receive()
            body += message.get("body", b"")
            is_more = message.get("more_body", False)
        task = uuid.uuid4().hex
        await self._note(task, "opened")
        await self._note(task, "sent")
        status, answer = await self._ask(scope["path"], dict(scope["headers"]).get(b"content-type", b""), body)
        await asyncio.to_thread(self._keep, task, answer)
        await self._note(task, "ended")
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _note(self, task: str, state: str) -> None:
        await self._script(keys=[f"probe:{task}"], args=[state])

    async def _ask(self, path: str, content_type: bytes, body: bytes) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=1 << 20)
        try:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nConnection: close\r\n"
                f"Content-Type: {content_type.decode('latin-1')}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode("latin-1") + body)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            named = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            return int(lines[0].split()[1]), await reader.readexactly(int(named["content-length"]))
        finally:
            writer.close()

    def _keep(self, task: str, answer: bytes) -> None:
        with (self._folder / task).open("xb") as file:
            file.write(answer)
            file.flush()
            os.fsync(file.fileno())


def main() -> None:
    port, upstream, store, folder = sys.argv[1:]
    uvicorn.run(Probe(upstream, store, Path(folder)), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
