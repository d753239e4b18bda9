"""The report of a benchmark: results and machine as JSON and as Markdown.

Names no host, path or user: results are kept with the code.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from bench.processes import ROOT
from gateway.store.embedded import find_binary

RESULTS = ROOT / "bench" / "results"

_PACKAGES = (
    "imagegate",
    "fastapi",
    "uvicorn",
    "uvloop",
    "httptools",
    "httpx",
    "pybase64",
    "python-multipart",
)


def describe_run() -> dict[str, Any]:
    """The day, the machine and the versions."""
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "cpu": _first("/proc/cpuinfo", "model name"),
            "cores": os.cpu_count(),
            "memory_gib": round(int(_first("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
            "kernel": platform.release(),
            "libc": " ".join(platform.libc_ver()),
        },
        "writing_s_gb": measure_writing(),
        "pass_ms": measure_python(),
        "versions": {"python": platform.python_version(), "Valkey": _valkey()}
        | {name: metadata.version(name) for name in _PACKAGES},
    }


def measure_python() -> float:
    """Milliseconds of processor time for a million passes of an empty loop, which show how Python was built."""
    seconds: list[float] = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(1_000_000):
            pass
        seconds.append(time.process_time() - began)
    return round(min(seconds) * 1000, 1)


def measure_writing() -> dict[str, float]:
    """Seconds of processor time for a gigabyte written to new files, and over the same bytes again.

    The kernel copies the bytes either way. A virtual machine whose host gives it memory only as it is touched pays for
    that on top, and so does every process measured on it.
    """
    piece, count = os.urandom(2**19), 128
    found: dict[str, list[float]] = {"new": [], "again": []}
    for _ in range(3):
        # Memory that was just freed is still there for a moment.
        time.sleep(2)
        with tempfile.TemporaryFile(buffering=0) as file:
            for seconds in found.values():
                began = time.process_time()
                for index in range(count):
                    os.pwrite(file.fileno(), piece, index * len(piece))
                seconds.append((time.process_time() - began) / (count * len(piece)) * 1e9)
    return {name: round(median(seconds), 2) for name, seconds in found.items()}


def describe_line(run: dict[str, Any]) -> str:
    """The run in one sentence, for under a table."""
    machine, versions, writing = run["machine"], run["versions"], run["writing_s_gb"]
    # Results of earlier runs do not have it.
    passes = f"; a million passes of an empty loop in Python {run['pass_ms']} ms" if "pass_ms" in run else ""
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "imagegate")
    return (
        f"Measured {run['measured'][:10]} at {run['commit']} on {machine['cores']} × {machine['cpu']}, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel'].split('-')[0]}, {machine['libc']}; {packages}. "
        f"A gigabyte written to new files costs {writing['new']} s of processor time there, over old bytes "
        f"{writing['again']} s{passes}."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; columns after the second are figures."""
    rule = ["---" if index < 2 else "---:" for index in range(len(head))]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in (head, rule, *rows))


def write(name: str, document: dict[str, Any]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _valkey() -> str:
    """The version of the embedded server, and the allocator that it was built with."""
    done = subprocess.run([str(find_binary()), "--version"], capture_output=True, text=True, check=True)
    words = dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)
    return f"{words['v']} ({words['malloc']})"


def _first(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "0 unknown"


def _commit() -> str:
    words = ["git", "describe", "--always", "--dirty", "--abbrev=9"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or metadata.version("imagegate")
