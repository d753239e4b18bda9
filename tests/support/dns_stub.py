"""A DNS server on loopback whose answers may change between two look-ups."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Callable, Sequence

A, AAAA, IN = 1, 28, 1
KINDS = {4: A, 6: AAAA}

Answers = Callable[[str], Sequence[str]]
"""The addresses of a name at this look-up; A and AAAA are one look-up, in either order."""


class DnsStub:
    """Answers A and AAAA over UDP until it is closed; no record may be kept by who asks, since its TTL is 0.

    `answers` is asked once for each name's look-up: the first question of a pair asks it, the other gets the rest.
    """

    def __init__(self, answers: Answers, host: str = "127.0.0.1", port: int = 0) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self._pending: dict[str, tuple[set[int], Sequence[str]]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="dns")
        self._thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, peer = self._socket.recvfrom(512)
            if not question:
                return
            name, end = _read_name(question)
            kind = struct.unpack("!H", question[end : end + 2])[0]
            self._socket.sendto(_answer(question, end, kind, self._look_up(name, kind)), peer)

    def _look_up(self, name: str, kind: int) -> list[str]:
        seen, addresses = self._pending.pop(name, (set(), ()))
        if kind in seen or not seen:
            self.asked.append(name)
            seen, addresses = set(), self.answers(name)
        if len(seen) == 0:
            self._pending[name] = ({kind}, addresses)
        return [one for one in addresses if KINDS[ipaddress.ip_address(one).version] == kind]


def _read_name(question: bytes) -> tuple[str, int]:
    labels, at = [], 12
    while size := question[at]:
        labels.append(question[at + 1 : at + 1 + size].decode("ascii"))
        at += 1 + size
    return ".".join(labels).lower(), at + 1


def _answer(question: bytes, end: int, kind: int, addresses: Sequence[str]) -> bytes:
    head = question[:2] + struct.pack("!HHHHH", 0x8580, 1, len(addresses), 0, 0)
    records = b"".join(
        struct.pack("!HHHIH", 0xC00C, kind, IN, 0, len(packed)) + packed
        for packed in (ipaddress.ip_address(one).packed for one in addresses)
    )
    return head + question[12 : end + 4] + records
