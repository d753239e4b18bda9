"""The embedded server: a real Valkey or Redis on a Unix socket, with every write on disk before its answer.

It holds the data folder's lock while it runs, so that no second server can open its files.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO
from urllib.parse import quote

from gateway.process.children import ChildFailed, name_exit, spawn, stop
from gateway.process.data_folder import DataFolder, ServerRecord, open_private
from gateway.process.settings import Settings
from gateway.store.binaries import ServerFailed, choose_binary, find_binaries, record_writer

SOCKET_PATH_LIMIT = 100
"""The longest socket path in bytes; Linux allows 107, and a server may first create a longer name beside it."""

START_S = 10.0
STOP_S = 10.0
_POLL_S = 0.01
_PRIVATE = "imagegate-"

_ADVICE = re.compile(r"[.:]? (You can: 1\) )?make a backup of your AOF file.*", re.IGNORECASE)
"""A server's advice for a file that it cannot read: to cut it. That would cut the ledger."""


class ServerKilled(ServerFailed, ChildFailed):
    """A signal ended the server while it started, as on a machine without memory. Another start may succeed."""


class EmbeddedServer:
    """One server over one data folder. `lock` is the descriptor of the folder's lock, which the server keeps too.

    If the folder's path is too long for a socket, a new temporary folder has the socket. `close` removes that folder.
    """

    def __init__(self, folder: DataFolder, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        self._files = folder.path / "valkey"
        self._log = folder.path / "valkey.log"
        self.socket = self._choose_socket()
        self.url = url_of(self.socket)

    async def start(self) -> subprocess.Popen[bytes]:
        """Start the server, wait until it answers, record it in the folder, and return its process.

        Raises ServerFailed, OSError; then the server is stopped.
        """
        self._files.mkdir(mode=0o700, exist_ok=True)
        binary = choose_binary(self._files)
        with open_private(self._log) as log:
            process = launch(self._files, self.socket, pass_fds=(self._lock,), log=log, binary=binary.path)
        try:
            await wait_ready(process, self.socket)
            record_writer(self._files, binary.release)
            self._folder.record_server(ServerRecord(process.pid, self.socket))
        except ServerFailed as error:
            stop(process, STOP_S)
            raise type(error)(f"{error}. Its log, {self._log}, ends: {self._read_log_end()}") from error
        except BaseException:
            # It holds the folder's lock, and nobody else would stop it.
            stop(process, STOP_S)
            raise
        return process

    def close(self, process: subprocess.Popen[bytes] | None) -> None:
        """Stop the server, wait for its end, and remove its socket and its record. None stops no server."""
        if process is not None:
            stop(process, STOP_S)
        self.socket.unlink(missing_ok=True)
        self._folder.forget_server()
        if self.socket.parent != self._folder.path:
            shutil.rmtree(self.socket.parent, ignore_errors=True)

    def _choose_socket(self) -> Path:
        inside = self._folder.path / "valkey.sock"
        before = self._folder.server()
        if before is not None and before.socket.parent.name.startswith(_PRIVATE):
            # A killed gateway left it. It is this folder's, since only the folder's gateway writes the record.
            shutil.rmtree(before.socket.parent, ignore_errors=True)
        if len(os.fsencode(inside)) <= SOCKET_PATH_LIMIT:
            return inside
        return Path(tempfile.mkdtemp(prefix=_PRIVATE)) / "valkey.sock"

    def _read_log_end(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        words = " | ".join(_ADVICE.sub("", line) for line in lines[-3:]) or "(nothing)"
        if not any(_ADVICE.search(line) for line in lines):
            return words
        return f"{words}. Restore a backup: cutting the file would lose what was spent last"


def launch(
    files: Path,
    socket_path: Path,
    *,
    pass_fds: tuple[int, ...] = (),
    log: IO[bytes] | int = subprocess.DEVNULL,
    binary: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server with its files in `files`, and return its process; the server does not answer yet.

    Removes an old socket first. A `binary` of None stands for that of `find_binary`. Raises ServerFailed, OSError.
    """
    socket_path.unlink(missing_ok=True)
    # SIGTERM rather than SIGKILL: a child that rewrites the log would outlive a killed server, and hold the lock.
    return spawn(
        command(binary or find_binary(), files, socket_path),
        dies_by=signal.SIGTERM,
        pass_fds=pass_fds,
        stdout=log,
        stderr=subprocess.STDOUT,
    )


def command(binary: Path, files: Path, socket_path: Path) -> list[str]:
    """Return the command line: no TCP port, and every write on disk before its answer."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(files),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]


def find_binary() -> Path:
    """Return the path of the server that opens a new store. Raises ServerFailed, OSError."""
    return find_binaries()[0].path


async def wait_ready(process: subprocess.Popen[bytes], socket_path: Path, wait_s: float = START_S) -> None:
    """Wait until the server answers PING. While it loads its files, the time starts again.

    Raises ServerKilled when a signal ended the server, and ServerFailed when it exited or `wait_s` seconds have passed.
    """
    deadline = time.monotonic() + wait_s
    while True:
        if (code := process.poll()) is not None:
            failed = ServerKilled if code < 0 else ServerFailed
            raise failed(f"The embedded server ended at its start ({name_exit(code)})")
        answer = ask(socket_path, b"PING\r\n")
        if answer.startswith(b"+PONG"):
            return
        if answer.startswith(b"-LOADING"):
            # It loads a long log, which may take longer.
            deadline = time.monotonic() + wait_s
        if time.monotonic() > deadline:
            raise ServerFailed(f"The embedded server did not answer within {wait_s:.0f} s")
        await asyncio.sleep(_POLL_S)


def ask(socket_path: Path, line: bytes, wait_s: float = 0.5) -> bytes:
    """Send one line to a server; return the first bytes of its answer, b"" when no server answers in time. Blocks."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(wait_s)
            link.connect(str(socket_path))
            link.sendall(line)
            return link.recv(64)
    except OSError:
        return b""


def running_url(folder: DataFolder) -> str | None:
    """Return the URL of the embedded server that answers in this folder now; None if none does."""
    record = folder.server()
    if record is None or not ask(record.socket, b"PING\r\n").startswith(b"+PONG"):
        return None
    return url_of(record.socket)


def store_url(settings: Settings) -> str:
    """Return the URL of a running gateway's store: the configured one, else its data folder's own server.

    Does not check that the server answers. Raises ServerFailed when the folder has no record of a server.
    """
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    record = DataFolder(settings.data_dir).server()
    if record is None:
        raise ServerFailed(f"No server runs in {settings.data_dir}. Start the gateway: imagegate serve")
    return url_of(record.socket)


def url_of(socket_path: Path) -> str:
    """Return the URL of a server on this socket; the path may have any characters."""
    return f"unix://{quote(str(socket_path))}"
