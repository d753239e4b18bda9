"""The listening socket, bound once by the supervisor before anything else starts, and inherited by every worker.

Never accepts a connection itself.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing

from gateway.process.settings import StartRefused

_BACKLOG = 4096


class PortTaken(StartRefused):
    """Nobody can listen there. The text says why and what to do."""


def listen(host: str, port: int) -> closing[socket.socket]:
    """A listening socket, closed at the end of a `with`. Raises PortTaken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise PortTaken(f"{host!r} is no address to listen on ({error.strerror}). Use 127.0.0.1 or 0.0.0.0") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # Without it a restart would wait a minute for the connections of the last run to be forgotten.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise PortTaken(_explain(host, port, error)) from error
    listener.setblocking(False)
    return closing(listener)


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def address_for_people(host: str, port: int) -> str:
    """The URL under which this machine reaches a gateway that listens there."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use. Stop what uses it, or choose another: --port {min(port + 1, 65535)}"
    if error.errno == errno.EACCES:
        return f"Port {port} may not be used by this user. Choose one above 1023, such as --port 8080"
    return f"Cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}"
