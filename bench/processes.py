"""The gateway and its simulator as real processes, with a new data folder, on loopback only.

Takes no upstream key and no setting from the environment, so that no real upstream is ever called.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.process.children import spawn, stop
from gateway.server.demo import SIMULATED_BY

ROOT = Path(__file__).parent.parent
STOP_S = 20.0

_TAKEN_AWAY = ("GATEWAY_", "ANYFAST_", "APIANY_", "MALLOC_", SIMULATED_BY)


class BenchError(Exception):
    """The benchmark could not be run; a figure over its limit is no such error."""


@dataclass(frozen=True)
class Simulator:
    """The simulated vendors."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reset(self) -> None:
        """Forget rules, book, log and links."""
        self._post("/_reset", None)

    def fault(self, kind: str, **options: Any) -> None:
        """Set a rule for every paid request from now on."""
        self._post("/_faults", {"times": None, "fault": {"kind": kind, **options}})

    def uploads(self) -> list[int]:
        """The bytes of every body that was sent to an edit or an upload."""
        seen = [one for one in self._ask("GET", "/_log") if one["endpoint"] in ("edits", "upload")]
        return [int(one["headers"].get("content-length", 0)) for one in seen]

    def polls(self) -> int:
        """The number of polls of a task."""
        return sum(one["endpoint"] == "tasks" for one in self._ask("GET", "/_log"))

    def book(self) -> list[dict[str, Any]]:
        """The accepted paid submissions."""
        return self._ask("GET", "/_book")

    def _post(self, path: str, document: Any) -> None:
        self._ask("POST", path, document)

    def _ask(self, method: str, path: str, document: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, json.dumps(document), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise BenchError(f"the simulator refused {path}: {text[:500]!r}")
        return json.loads(text) if text else None


@dataclass(frozen=True)
class Gateway:
    """A gateway with one worker. `pid` is the worker's process."""

    port: int
    key: str
    pid: int
    data_dir: Path


@contextmanager
def simulator(*, latency: float = 0.05) -> Iterator[Simulator]:
    words = [sys.executable, "-m", "gateway.simulator", "--port", "0", "--latency", str(latency)]
    process = spawn(words, dies_by=9, env=environment({}), stdout=subprocess.PIPE)
    try:
        yield Simulator(port_in(read_until(process, "http://")))
    finally:
        stop(process, STOP_S)


@contextmanager
def gateway(simulator_url: str, extra: Mapping[str, str] | None = None, port: int = 0) -> Iterator[Gateway]:
    """A gateway in demo mode over the simulator, by default on any free port. `extra` is added to its environment."""
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as folder:
        log = Path(folder, "log")
        env = environment({"GATEWAY_SIMULATOR_URL": simulator_url, "GATEWAY_LOG_LEVEL": "warning", **(extra or {})})
        words = [sys.executable, "-m", "gateway", "serve", "--demo", "--port", str(port)]
        words += ["--data-dir", f"{folder}/data"]
        with log.open("wb") as errors:
            process = spawn(words, dies_by=9, env=env, stdout=subprocess.PIPE, stderr=errors)
        try:
            try:
                port = port_in(read_until(process, "answers on http://"))
            except BenchError as error:
                raise BenchError(f"{error}\n{log.read_text(errors='replace')[-4000:]}") from None
            key = Path(folder, "data", "demo.key").read_text(encoding="ascii").strip()
            worker = _find_worker(process.pid)
            yield Gateway(port, key, worker, Path(folder, "data"))
            if process.poll() is not None or _find_worker(process.pid) != worker:
                raise BenchError("the gateway or its worker ended while it was measured")
        finally:
            if process.poll() is not None:
                sys.stderr.write(f"the gateway had ended before it was stopped, with {process.returncode}\n")
            stop(process, STOP_S)
            sys.stderr.write(log.read_text(errors="replace")[-4000:])


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that finds the benchmark's own modules, and this checkout's gateway."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_TAKEN_AWAY)}
    return kept | {"PYTHONPATH": str(ROOT)} | dict(extra)


def read_until(process: subprocess.Popen[bytes], mark: str) -> str:
    """The first line on the process's output that holds the mark."""
    assert process.stdout is not None
    for line in process.stdout:
        if mark in (text := line.decode(errors="replace")):
            return text
    raise BenchError("a process ended before it said where it listens")


def port_in(line: str) -> int:
    return int(line.partition("http://")[2].partition(":")[2].split("/")[0].strip())


def _find_worker(supervisor: int) -> int:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii").split()
    for child in children:
        if b"gateway.server.worker" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
            return int(child)
    raise BenchError("the gateway has no worker")
