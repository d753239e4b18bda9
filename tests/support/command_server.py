"""A process that has loaded the command line, and forks one process for each command that a test starts.

Python and the gateway's modules take most of a second to load, and the tests start some 200 commands. A command is a
real process with its own environment, folder, descriptors and exit code; only its modules were loaded before.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

LOADED = ("serve", "keys", "limits", "operators", "usage", "history", "money", "audit", "upstreams", "quote", "check")


class ForkedProcess:
    """One command's process, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, words: Sequence[str], connection: socket.socket) -> None:
        self._words, self._connection = list(words), connection
        self._lines = connection.makefile("r")
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self._read_code()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self._words, timeout or 0)
            self._read_code()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        # Its parent waits for it at once, so that a number may be another process's later.
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read_code(self) -> None:
        self.returncode = int(self._lines.readline())
        self._lines.close()
        self._connection.close()


class CommandServer:
    """The process that forks; it ends with the test's process."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.command_server", str(theirs.fileno())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()

    def start(
        self,
        words: Sequence[str],
        env: Mapping[str, str],
        descriptors: tuple[int, int, int],
        *,
        is_leader: bool = False,
    ) -> ForkedProcess:
        """Start `imagegate` with these words, environment and standard descriptors, in this process's folder.

        `is_leader`: it leads a process group of its own.
        """
        ours, theirs = socket.socketpair()
        order = {"words": list(words), "env": dict(env), "folder": str(Path.cwd()), "is_leader": is_leader}
        body = json.dumps(order).encode()
        socket.send_fds(self._socket, [len(body).to_bytes(8, "big")], [theirs.fileno(), *descriptors])
        self._socket.sendall(body)
        theirs.close()
        return ForkedProcess(words, ours)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(10)


def serve(orders: socket.socket) -> None:
    """Fork a command for each order, until the other end is closed."""
    # The keepers of ended commands need nobody who waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        head, descriptors, _, _ = socket.recv_fds(orders, 8, 4)
        if not head:
            return
        size, body = int.from_bytes(head, "big"), b""
        while len(body) < size:
            body += orders.recv(size - len(body))
        if os.fork() == 0:
            orders.close()
            _keep(json.loads(body), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(order: dict[str, object], descriptors: Sequence[int]) -> None:
    """Fork the command, report its number and its exit code, and end it with its test."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    report, *standard = descriptors
    pid = os.fork()
    if pid == 0:
        os.close(report)
        _run(order, standard)
    for descriptor in standard:
        os.close(descriptor)
    ended = os.pidfd_open(pid)
    with socket.socket(fileno=report) as connection, contextlib.suppress(OSError):
        connection.sendall(f"{pid}\n".encode())
        if ended not in select.select([ended, connection], [], [])[0]:
            # The test's end of the connection is closed: a command does not outlive its test.
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(order: dict[str, object], standard: Sequence[int]) -> None:
    """Be the command, to its end."""
    words, env, folder = order["words"], order["env"], order["folder"]
    assert isinstance(words, list)
    assert isinstance(env, dict)
    if order["is_leader"]:
        os.setsid()
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(str(folder))
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["imagegate", *words]
    code = 0
    try:
        app(prog_name="imagegate")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 (as Python does at the end of a process)
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    from importlib import import_module

    from gateway.cli.main import app

    for name in LOADED:
        import_module(f"gateway.cli.{name}")
    serve(socket.socket(fileno=int(sys.argv[1])))
