"""The cost of TLS for a paid call: a new connection, its handshake and the check of the certificate.

Measures this process, which sends with the gateway's own transport; the server is another process.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import uvloop

from bench import report
from bench.processes import STOP_S, BenchError, read_until
from gateway.net.connection import TimeLimits
from gateway.net.transport import HttpTransport, send
from gateway.process.children import spawn, stop

NAME = "tls"
HELP = "processor time that TLS to the upstream adds to a paid call"

_AT_ONCE = 16
_BODY = b'{"model": "gpt-image-2", "prompt": "a red fox"}'
_SERVER = """
import asyncio, ssl, sys
ANSWER = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: 2000\\r\\n\\r\\n" + b" " * 2000
async def answer(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    await reader.readexactly(int(head.lower().split(b"content-length:")[1].split()[0]))
    writer.write(ANSWER)
    writer.close()
async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1])
    ports = []
    for tls in (None, context):
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls, backlog=256)
        ports.append(str(server.sockets[0].getsockname()[1]))
        await server.start_serving()
    print("ports", *ports, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each, whose median counts (7)")
    parser.add_argument("--calls", type=int, default=400, help="calls of one round (400)")


def run(options: argparse.Namespace) -> bool:
    """Measure, print the table, write the results; it has no limit."""
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as name:
        certificate = _make_certificate(Path(name))
        server = spawn([sys.executable, "-c", _SERVER, str(certificate)], dies_by=9, stdout=subprocess.PIPE)
        try:
            _, plain, tls = read_until(server, "ports").split()
            urls = {"plain": f"http://127.0.0.1:{plain}/", "TLS": f"https://127.0.0.1:{tls}/"}
            found = uvloop.run(_measure(urls, certificate, options.rounds, options.calls))
        finally:
            stop(server, STOP_S)
    document = report.describe_run() | {"cpu_ms": found, "openssl": ssl.OPENSSL_VERSION}
    report.write(NAME, document)
    rows = [[how, f"{cost:.2f}"] for how, cost in found.items()]
    rows.append(["what TLS adds", f"{found['TLS'] - found['plain']:.2f}"])
    sys.stdout.write(f"{report.table(('fresh connection', 'CPU ms a call'), rows)}\n\n")
    sys.stdout.write(f"{report.describe_line(document)} {ssl.OPENSSL_VERSION}.\n")
    return True


async def _measure(urls: dict[str, str], certificate: Path, rounds: int, calls: int) -> dict[str, float]:
    """Milliseconds of a call by each URL."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.set_alpn_protocols(["http/1.1"])
    transport = HttpTransport(fresh=True, ssl_context=context)
    costs: dict[str, list[float]] = {how: [] for how in urls}
    try:
        for number in range(rounds + 1):
            for how, url in urls.items():
                began = time.process_time()
                await asyncio.gather(*(_call(transport, url, calls // _AT_ONCE) for _ in range(_AT_ONCE)))
                # The first one warms up.
                if number:
                    costs[how].append((time.process_time() - began) / (calls // _AT_ONCE * _AT_ONCE) * 1000)
    finally:
        await transport.aclose()
    return {how: round(median(each), 3) for how, each in costs.items()}


async def _call(transport: HttpTransport, url: str, times: int) -> None:
    for _ in range(times):
        headers = {"content-type": "application/json"}
        response = await send(transport, "POST", url, headers, _BODY, TimeLimits(30, 30, 30))
        async for _piece in response.aiter_raw():
            pass
        await response.aclose()


def _make_certificate(folder: Path) -> Path:
    """Key and certificate for 127.0.0.1, on the curve that vendors use."""
    path = folder / "server.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(path), "-out", str(folder / "certificate.pem")]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"openssl made no certificate: {error}") from error
    path.write_text(path.read_text() + (folder / "certificate.pem").read_text())
    return path
