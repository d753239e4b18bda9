"""Child processes that end with their parent and do not get a terminal's Ctrl-C. This module never starts a shell."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import IO

EXIT_CONFIG = 78
"""sysexits.h: the configuration is wrong, and another start would fail too."""

SHORTAGES = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT})
"""Numbers of errors of a machine without processes, memory, descriptors or disk space. They pass."""

_BARE = frozenset({"PATH", "LD_LIBRARY_PATH", "TMPDIR", "TZ", "LANG", "LC_ALL"})

_PR_SET_PDEATHSIG = 1
# Resolved here: a child between fork and exec may not take the loader's lock.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class ChildFailed(Exception):
    """A child ended, or did not become ready in time. Another start may succeed."""


def spawn(  # noqa: PLR0913 (the options of one system call)
    command: list[str],
    *,
    dies_by: signal.Signals,
    env: Mapping[str, str] | None = None,
    pass_fds: Iterable[int] = (),
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    keeps_umask: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own. The child gets the signal `dies_by` when this process ends in any way.

    Without an `env` it gets none of the operator's secrets: its environment is `bare_environment`. No other user can
    read the files that it makes, unless `keeps_umask`. Raises OSError.

    The kernel sends that signal when the starting *thread* ends, so only the main thread may start one: another gets
    RuntimeError. Outside Linux there is no such signal.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("only the main thread may start a child, which ends with its thread")
    return subprocess.Popen(  # noqa: S603 - the command is the gateway's own, and no shell reads it
        command,
        env=bare_environment() if env is None else dict(env),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
        umask=-1 if keeps_umask else 0o077,
        preexec_fn=_die_with_parent(dies_by),
    )


def bare_environment() -> dict[str, str]:
    """The variables of this process that a program needs to start, without any setting or secret."""
    return {name: value for name, value in os.environ.items() if name in _BARE or name.startswith("PYTHON")}


def stop(process: subprocess.Popen[bytes], wait_s: float) -> None:
    """End a child with SIGTERM, and with SIGKILL after `wait_s` seconds. Blocks until the child has ended."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class ChildWatch:
    """Waits for children of this process without a thread, by the handler of SIGCHLD in the running event loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._wake)

    def close(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    async def exit_of(self, process: subprocess.Popen[bytes]) -> int:
        """Wait until a child has ended. Returns its exit code; minus the signal's number if a signal ended it."""
        while (code := process.poll()) is None:
            changed = self._changed
            # The time-out is for a SIGCHLD that another library's handler took.
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await changed.wait()
        return code

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def name_exit(code: int) -> str:
    """An exit code in words: `exit code 1`, or `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    libc, parent = _LIBC, os.getpid()
    if libc is None:
        return None

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        # The parent may have died before the line above.
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel
