"""A network of its own: every test address is on loopback, DNS is the stub, and port 443 notes who is reached.

Run as `unshare --user --map-root-user --mount --net python -m tests.fuzz.rebinding_world`. It prints what it counted as
JSON, and fails at the first connection to an address outside the public internet.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import ipaddress
import json
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gateway.net.fetcher import Fetcher, FetchFailed, FetchPolicy, FetchRefused
from gateway.net.transport import HttpTransport
from gateway.pictures.spool import MemoryBudget, Spool
from tests.support.dns_stub import DnsStub
from tests.support.ssrf_addresses import NOT_PUBLIC, forms

PEM = Path(__file__).parents[1] / "net" / "pictures.test.pem"
REAL = "93.184.216.34"
NAME = "pictures.test"
BIND = 4096
LIMIT_S = 5


def lay_out() -> None:
    """Bring loopback up, give it the addresses, and have the system's resolver ask 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        flags = struct.pack("16sh14x", b"lo", 0x1 | 0x40)
        fcntl.ioctl(wire, 0x8914, flags)
        v4 = [one for one in [REAL, *NOT_PUBLIC] if "." in one and ":" not in one]
        for number, address in enumerate(v4):
            request = struct.pack(
                "16sHH4s8x", b"lo:%d" % number, socket.AF_INET, 0, ipaddress.ip_address(address).packed
            )
            try:
                fcntl.ioctl(wire, 0x8916, request)
            except OSError:
                # The kernel gives nobody 0.0.0.0, multicast and the like.
                continue
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as wire:
        for address in [one for one in NOT_PUBLIC if ":" in one]:
            packed = ipaddress.ip_address(address).packed
            try:
                fcntl.ioctl(wire, 0x8916, struct.pack("=16sIi", packed, 128, socket.if_nametoindex("lo")))
            except OSError:
                continue
    libc = ctypes.CDLL(None, use_errno=True)
    texts = {
        "/etc/resolv.conf": "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n",
        "/etc/hosts": "127.0.0.1 localhost\n",
        "/etc/nsswitch.conf": "hosts: files dns\n",
    }
    for number, (path, text) in enumerate(texts.items()):
        other = Path(tempfile.gettempdir(), f"igw-world-{number}")
        other.write_text(text)
        where = Path(path).resolve()
        if libc.mount(str(other).encode(), str(where).encode(), None, BIND, None) != 0:
            raise OSError(ctypes.get_errno(), f"{path} cannot be replaced")


class Reached:
    """Every address at which a connection to port 443 came in, whether or not a TLS handshake followed."""

    def __init__(self, served: ssl.SSLContext) -> None:
        self._served = served
        self.addresses: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.addresses.append(writer.get_extra_info("sockname")[0])
        try:
            await writer.start_tls(self._served)
            await reader.readuntil(b"\r\n\r\n")
        except (OSError, EOFError):
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nreal")
        writer.close()


@contextmanager
def stub() -> Iterator[DnsStub]:
    server = DnsStub(lambda _: (), port=53)
    try:
        yield server
    finally:
        server.close()


async def run() -> dict[str, int]:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(PEM)
    reached = Reached(served)
    port443 = await asyncio.start_server(reached.answer, ["0.0.0.0", "::"], 443)
    trusted = ssl.create_default_context(cafile=PEM)
    fetcher = Fetcher(FetchPolicy(1000, LIMIT_S, LIMIT_S), transport=HttpTransport(fresh=True, ssl_context=trusted))
    folder = tempfile.mkdtemp(prefix="igw-world-")
    spool = Spool(Path(folder), MemoryBudget(0))
    async with port443:
        listening = await count_listening(reached)
        with stub() as dns:
            counts = await tell_apart(fetcher, spool, dns, reached)
    await fetcher.aclose()
    await spool.close()
    return {"listening": listening, **counts}


async def count_listening(reached: Reached) -> int:
    """The addresses at which a connection would be noticed; connections to them are opened here and forgotten."""
    opened = 0
    for address in NOT_PUBLIC:
        try:
            _, writer = await asyncio.open_connection(address, 443)
        except OSError:
            continue
        writer.close()
        opened += 1
    async with asyncio.timeout(LIMIT_S):
        while len(reached.addresses) < opened:
            await asyncio.sleep(0.01)
    reached.addresses.clear()
    return opened


async def refuse(fetcher: Fetcher, spool: Spool, url: str) -> None:
    try:
        await fetcher.fetch(url, spool)
    except (FetchRefused, FetchFailed):
        return
    raise AssertionError(f"opened: {url!r}")


async def tell_apart(fetcher: Fetcher, spool: Spool, dns: DnsStub, reached: Reached) -> dict[str, int]:
    """Every address in every form, as the second answer of a name, and beside a public one."""
    forms_tried = rebound = 0
    for address in NOT_PUBLIC:
        dns.answers = lambda _, address=address: (address,)
        for url in forms(address):
            await refuse(fetcher, spool, url)
            forms_tried += 1
        assert reached.addresses == [], (address, reached.addresses)
    for address in NOT_PUBLIC:
        turns: Iterator[Sequence[str]] = iter(
            [(REAL,), (address,), (REAL,), (address,), (REAL, address), (address, REAL)]
        )
        dns.answers = lambda _, turns=turns: next(turns)
        blob = await fetcher.fetch(f"https://{NAME}/a.png", spool)
        assert await blob.read() == b"real"
        await refuse(fetcher, spool, f"https://{NAME}/a.png")
        await fetcher.check(f"https://{NAME}/hook")
        try:
            await fetcher.post(f"https://{NAME}/hook", b"{}", {})
        except FetchRefused:
            rebound += 1
        await refuse(fetcher, spool, f"https://{NAME}/a.png")
        await refuse(fetcher, spool, f"https://{NAME}/a.png")
    assert set(reached.addresses) == {REAL}, set(reached.addresses)
    return {"addresses": len(NOT_PUBLIC), "forms": forms_tried, "rebound": rebound, "reached": len(reached.addresses)}


if __name__ == "__main__":
    lay_out()
    sys.stdout.write(json.dumps(asyncio.run(run())))
