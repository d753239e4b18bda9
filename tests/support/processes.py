"""A gateway as an operator runs it: `imagegate` processes, started and looked at from outside."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.command_server import CommandServer

Found = TypeVar("Found")

NO_SIMULATOR = "http://127.0.0.1:9"


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without anything that would configure a gateway."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GATEWAY_", "IMAGEGATE_")) and not name.endswith("_API_KEY")
    }
    return kept | extra


@functools.cache
def command_server() -> CommandServer:
    """The one of this process."""
    made = CommandServer()
    atexit.register(made.close)
    return made


def imagegate(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    with (
        open(os.devnull) as nothing,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        descriptors = (nothing.fileno(), out.fileno(), err.fileno())
        code = command_server().start(arguments, clean_environment(**env), descriptors).wait(60)
        return subprocess.CompletedProcess(arguments, code, _all_of(out.fileno()), _all_of(err.fileno()))


def until(look: Callable[[], Found], *, within: float = 60, what: str = "") -> Found:
    """The first true answer of `look`."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within} s: {what or look}"
        time.sleep(0.02)
    return found


def children(pid: int) -> dict[int, str]:
    """The children of a process by number, with their command lines."""
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Gateway:
    """`imagegate serve` in a process group of its own, as a shell would start it."""

    def __init__(self, data: Path, arguments: tuple[str, ...] = ("--demo", "--port", "0"), **env: str) -> None:
        self.data = data
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read until the end of the test
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        env = clean_environment(**({"GATEWAY_SIMULATOR_URL": NO_SIMULATOR, "GATEWAY_DRAIN_S": "2"} | env))
        with open(os.devnull) as nothing:
            streams = (nothing.fileno(), self._out.fileno(), self._err.fileno())
            self.process = self.start(("serve", "--data-dir", str(data), *arguments), env, streams)
        self.pid = self.process.pid

    def start(self, arguments: Sequence[str], env: dict[str, str], streams: tuple[int, int, int]) -> Any:
        """Start the command, with these descriptors as its input, output and errors; its process."""
        return command_server().start(arguments, env, streams, is_leader=True)

    def wait_ready(self, within: float = 60) -> Gateway:
        """Return when the banner is out."""
        until(lambda: "Ctrl-C stops" in self.out or self.process.poll() is not None, within=within, what="the banner")
        assert self.process.poll() is None, self.err
        return self

    @property
    def out(self) -> str:
        return _all_of(self._out.fileno())

    @property
    def err(self) -> str:
        return _all_of(self._err.fileno())

    @property
    def url(self) -> str:
        return _found(re.search(r"answers on (http://\S+)/v1", self.out))

    def example(self, first: str, last: str) -> str:
        """The banner's lines from the one that begins with `first` to the next that begins with `last`."""
        return _found(
            re.search(rf"^({re.escape(first)}.*?^{re.escape(last)}[^\n]*)$", self.out, re.DOTALL | re.MULTILINE)
        )

    @property
    def demo_key(self) -> str:
        return _found(re.search(r"Bearer (igw_\w+)", self.out))

    def child(self, word: str) -> int:
        """The one child whose command line has this word, once there is one."""
        return until(lambda: next((pid for pid, line in children(self.pid).items() if word in line), 0), what=word)

    def status(self, path: str, key: str = "") -> int:
        """The status of a GET, or 0 when nothing answers."""
        asked = urllib.request.Request(self.url + path, headers={"authorization": f"Bearer {key}"} if key else {})
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def press_ctrl_c(self) -> None:
        os.killpg(self.pid, signal.SIGINT)

    def end(self, number: signal.Signals = signal.SIGTERM, within: float = 15) -> int:
        """Signal the first process; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(within)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()
        self._err.close()


@contextlib.contextmanager
def gateway(data: Path, *arguments: str, **env: str) -> Iterator[Gateway]:
    """A gateway that answers, killed at the end if it still runs."""
    run = Gateway(data, arguments or ("--demo", "--port", "0"), **env)
    try:
        yield run.wait_ready()
    finally:
        run.close()


def _all_of(descriptor: int) -> str:
    return os.pread(descriptor, 1_000_000, 0).decode()


def _found(match: re.Match[str] | None) -> str:
    assert match is not None
    return match[1]
