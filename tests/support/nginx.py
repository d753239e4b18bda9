"""A real nginx in front of a gateway, in the three ways in which operators usually write one."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.ports import free_ports
from tests.support.stopwatch import running_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

STYLES = {
    # Nothing but the address: HTTP/1.0 to the gateway, whole bodies.
    "plain": "proxy_set_header Host $http_host;",
    # HTTP/1.1, bodies and answers as they arrive.
    "streaming": """
        proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
        proxy_buffering off; proxy_request_buffering off;""",
    # As in guides to applications with WebSockets: every request is sent on with its offer, or with half of one.
    "upgrading": """
        proxy_http_version 1.1; proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";""",
}

_CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off; client_max_body_size 0;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {servers}
}}
"""


@contextlib.contextmanager
def proxied(folder: Path, url: str) -> Iterator[dict[str, int]]:
    """nginx as its own process in front of `url`, with its files in `folder`. The port of each style."""
    assert PROGRAM is not None, "nginx is missing: scripts/tools.sh installs it"
    ports = dict(zip(STYLES, free_ports(len(STYLES)), strict=True))
    servers = "\n".join(
        f"server {{ listen 127.0.0.1:{ports[name]}; location / {{ proxy_pass {url}; {lines} }} }}"
        for name, lines in STYLES.items()
    )
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, servers=servers))
    process = subprocess.Popen([PROGRAM, "-p", str(folder), "-c", str(config)], stderr=subprocess.PIPE)
    try:
        began = running_seconds()
        while not _listens(ports["plain"]):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert running_seconds() < began + 10, "nginx does not listen"
            time.sleep(0.01)
        yield ports
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
