"""The TCP connection of a request, so that a fault can cut it.

`SimulatorProtocol` hands uvicorn's transport to the application; everything else is ordinary ASGI.
"""

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import MutableMapping
from typing import Any

from starlette.types import Receive, Scope
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_TRANSPORT = "simulator.transport"
_LONGEST_FLUSH_S = 5.0


class SimulatorProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the connection's transport among the scope's extensions."""

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: MutableMapping[str, Any] = self.scope.setdefault("extensions", {})  # type: ignore[assignment]
        extensions[_TRANSPORT] = self.transport


class Connection:
    """One request's connection. A cut needs `SimulatorProtocol`."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._transport: asyncio.Transport | None = scope.get("extensions", {}).get(_TRANSPORT)
        self._receive = receive

    @property
    def is_gone(self) -> bool:
        """True when the client is known to have disconnected."""
        return self._transport is not None and self._transport.is_closing()

    async def wait_gone(self) -> None:
        """Read and discard the client's bytes until it disconnects."""
        while (await self._receive())["type"] != "http.disconnect":
            continue

    async def reset(self) -> None:
        """Send a TCP reset now."""
        transport = self._require_transport()
        sock = transport.get_extra_info("socket")
        # A copy of the descriptor, because the event loop's own object may refuse options.
        with socket.socket(fileno=os.dup(sock.fileno())) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await self.wait_gone()

    async def close(self) -> None:
        """Send the written bytes and close normally."""
        self._require_transport().close()
        await self.wait_gone()

    async def flush(self) -> None:
        """Wait until the kernel has sent all written bytes, because a reset discards the rest."""
        transport = self._require_transport()
        descriptor = transport.get_extra_info("socket").fileno()
        deadline = asyncio.get_running_loop().time() + _LONGEST_FLUSH_S
        while asyncio.get_running_loop().time() < deadline and not transport.is_closing():
            unsent = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
            if transport.get_write_buffer_size() == 0 and unsent == 0:
                return
            await asyncio.sleep(0.002)

    def _require_transport(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("this fault needs a real connection: start the simulator with serve.run")
        return self._transport
