"""The load generator and the upstream of the load benchmarks: two small C programs, compiled on demand.

Neither may be the bottleneck: each costs tens of microseconds a request.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import ROOT, STOP_S, BenchError
from gateway.process.children import spawn, stop

SOURCES = ROOT / "bench" / "native"
BUILD = ROOT / ".build" / "bench"


@dataclass(frozen=True)
class Shot:
    """`count` POSTs: `at_once` under way, or all due within `over_s`, each over a `fresh` connection or a kept one."""

    port: int
    path: str
    headers: dict[str, str]
    body: Path
    count: int
    at_once: int = 0
    over_s: float = 0.0
    is_fresh: bool = False
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Upstream:
    """The played upstream. `choose` sets its answer and delay, and returns the counts since the last call."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def choose(self, answer: int, delay_s: float = 0.0) -> dict[str, int]:
        return self._ask(f"/_set?answer={answer}&delay={delay_s * 1000:.3f}")

    def count(self) -> dict[str, int]:
        """The counts since the last `choose`."""
        return self._ask("/_stats")

    def _ask(self, path: str) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def upstream(answers: Sequence[Path]) -> Iterator[Upstream]:
    """Serves the files as answers, the first one until another is chosen."""
    process = spawn([str(program("upstream")), *map(str, answers)], dies_by=9, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Upstream(int(process.stdout.readline().decode().rpartition(":")[2]))
    finally:
        stop(process, STOP_S)


def fire(shot: Shot) -> dict[str, Any]:
    """Send the shot; returns the counts and times by status, as `load.c` reports them."""
    with tempfile.NamedTemporaryFile("w", encoding="ascii", newline="") as head:
        head.write(f"POST {shot.path} HTTP/1.1\r\nHost: 127.0.0.1:{shot.port}\r\n")
        head.writelines(f"{name}: {value}\r\n" for name, value in shot.headers.items())
        head.flush()
        words = [shot.port, shot.body, head.name, shot.count, shot.at_once, shot.over_s, int(shot.is_fresh)]
        done = subprocess.run(
            [str(program("load")), *map(str, words), str(shot.timeout_s)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise BenchError(f"the load generator ended with {done.returncode}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def program(name: str) -> Path:
    """The compiled program; compiled anew where its source is newer."""
    source, made = SOURCES / f"{name}.c", BUILD / name
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise BenchError("there is no C compiler; on Debian: apt-get install gcc libc6-dev")
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(made), str(source)], check=True)
    return made
