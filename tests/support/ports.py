"""Ports for servers that must be told theirs: the system gives none of them to anybody else in the meantime."""

from __future__ import annotations

import contextlib
import random
import socket

_PORTS = range(20_000, 32_768)
"""Below the ports that Linux gives to outgoing connections and for port 0, from 32768 on (ip(7))."""

_random = random.SystemRandom()
"""Hypothesis seeds the shared one, so two processes would choose the same ports."""


def free_port() -> int:
    """A port on which nothing listens."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many ports on which nothing listens, each another."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = _random.choice(_PORTS)
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found
