"""Runs the same tests against one mistake after another, each in a fork of a process that has imported the libraries.

The tests that found the most mistakes run first. Read from a file: the jobs; written to the output: a line for each.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.abc
import importlib.util
import inspect
import json
import os
import select
import signal
import subprocess
import sys
import time
import types
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

ROOT = Path(__file__).parents[2]
LONGEST_S = 120
"""Seconds for one mistake, on a busy machine; a mistake that never ends is found out by it."""

LIBRARIES = (
    "httptools",
    "fastapi",
    "httpx",
    "hypothesis",
    "orjson",
    "PIL.Image",
    "pydantic",
    "redis.asyncio",
    "structlog",
)


@dataclass(frozen=True)
class Job:
    """The tests, and the mistakes by name: the wrong text of a Lua file, or of a Python module.

    `module` is the module's name; empty for Lua, where the texts are of files in the ledger's folder. `near` has, by
    file, the names by which a test calls it: such tests run first.
    """

    tests: tuple[str, ...]
    wrong: dict[str, tuple[str, str]]
    module: str = ""
    near: dict[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Verdict:
    """One mistake's end: the test that found it, or None, and how long that took. `is_late`: it never ended."""

    name: str
    killer: str | None = None
    seconds: float = 0.0
    is_late: bool = False


@dataclass(eq=False)
class _Order:
    """Puts the tests first that found the most in this file, then those near to it, and notes the first that fails."""

    file: str
    near: Sequence[str]
    kills: Counter[str]
    killer: str | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=self._rank)

    def _rank(self, item: pytest.Item) -> tuple[int, int, int]:
        source = inspect.getsource(item.function) if isinstance(item, pytest.Function) else ""
        is_near = any(f"{word}(" in source or f"[{word}]" in item.name for word in self.near)
        return -self.kills[f"{self.file} {item.nodeid}"], -is_near, -self.kills[item.nodeid]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.killer is None:
            self.killer = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.killer is None:
            self.killer = f"{report.nodeid} (collection)"


def run_mutants(job: Job, folder: Path) -> list[Verdict]:
    """The end of each mistake, in a process of its own. Raises AssertionError if the right code fails its tests."""
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(job)))
    command = [sys.executable, "-m", "tests.support.mutation_runner", str(path)]
    # The tests' short form: a mistake has seconds.
    env = {name: value for name, value in os.environ.items() if name != "TEST_PROFILE"}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"the right code fails its tests: {done.stdout[-2000:]}"
    return [Verdict(**json.loads(line)) for line in done.stdout.splitlines()]


def _main(path: str) -> int:
    job = Job(**json.loads(Path(path).read_text()))
    for library in LIBRARIES if job.module else (*LIBRARIES, "gateway.app"):
        importlib.import_module(library)
    kills: Counter[str] = Counter()
    right = _run(job, "", ("", ""), kills)
    if right.killer or right.is_late:
        sys.stdout.write(f"{right}\n")
        return 1
    for name, wrong in job.wrong.items():
        verdict = _run(job, name, wrong, kills)
        if verdict.killer:
            kills.update((verdict.killer, f"{wrong[0]} {verdict.killer}"))
        sys.stdout.write(f"{json.dumps(asdict(verdict))}\n")
        sys.stdout.flush()
    return 0


def _run(job: Job, name: str, wrong: Sequence[str], kills: Counter[str]) -> Verdict:
    """Run the tests in a fork, and end all that it started."""
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_child(job, wrong, kills, writer)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], LONGEST_S)
    text = os.read(reader, 65_536).decode() if ready else ""
    os.close(reader)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seconds = round(time.monotonic() - began, 2)
    # A fork that ended without a word was ended by its mistake.
    return Verdict(name, text if text != "-" else None, seconds, is_late=not text)


def _be_child(job: Job, wrong: Sequence[str], kills: Counter[str], writer: int) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    order = _Order(wrong[0], job.near.get(wrong[0], ()), kills)
    if not job.module:
        os.environ["TEST_LEDGER_MUTANT"] = "drawn"  # as in tests/support/ledgers.py, which is imported later
    try:
        if wrong[0]:
            _replace(job.module, *wrong)
        options = [
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--hypothesis-seed=0",
            "--tb=no",
            "--assert=plain",
        ]
        ended = pytest.main([*options, *job.tests], plugins=[order])
        killer = order.killer or ("-" if ended == 0 else f"pytest ended with {ended}")
    except BaseException as error:  # noqa: BLE001 (whatever a mistake raises has found it out)
        killer = type(error).__name__
    os.write(writer, killer.encode())
    os._exit(0)


def _replace(module: str, file: str, text: str) -> None:
    """Let the wrong text stand for the right one in this process."""
    if module:
        sys.meta_path.insert(0, _Finder(module, file, text))
        return
    names = ("gateway.store.lua", "gateway.money.ledger", "gateway.money.audit", "gateway.state.call_store")
    right = importlib.import_module("gateway.store.lua").read_sources

    def read_sources(*inner: str) -> dict[str, str]:
        sources: dict[str, str] = right(*inner)
        return sources | {file: text} if inner == ("ledger",) else sources

    for name in names:
        vars(importlib.import_module(name))["read_sources"] = read_sources


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module, with another text."""

    def __init__(self, module: str, file: str, text: str) -> None:
        self._module, self._file, self._text = module, file, text

    @override
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self._module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._file, loader=self)

    @override
    def create_module(self, spec: Any) -> None:
        return None

    @override
    def exec_module(self, module: types.ModuleType) -> None:
        exec(compile(ast.parse(self._text), self._file, "exec"), vars(module))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
