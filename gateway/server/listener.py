"""The listening socket: bound once before any worker starts, and shared by all workers.

This module never accepts a connection itself.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing

from gateway.process.settings import StartRefused

_BACKLOG = 4096


class PortTaken(StartRefused):
    """The address cannot be used. The message has the reason and the remedy."""


def listen(host: str, port: int) -> closing[socket.socket]:
    """Open a listening socket, closed at the end of a `with`. Raises PortTaken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise PortTaken(f"{host!r} is no address to listen on ({error.strerror}). Use 127.0.0.1 or 0.0.0.0") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # Otherwise a restart would wait a minute for the end of the last run's connections.
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
    """Return the URL at which this machine reaches a gateway that listens on an address."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _name_port(port: int) -> str:
    """The two ways to choose a port; `make run` takes the variable alone."""
    return f"--port {port}, or GATEWAY_PORT={port} in the environment"


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        other = min(port + 1, 65535)
        return f"Port {port} on {host} is in use. Stop the program that uses it, or choose another: {_name_port(other)}"
    if error.errno == errno.EACCES:
        return f"Port {port} may not be used by this user. Choose one above 1023: {_name_port(8080)}"
    return f"Cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}"
