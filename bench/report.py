"""What was measured, on what, as JSON and as Markdown.

Used by every benchmark. Names no host, path or user: results are kept with the code.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.serving import ROOT

RESULTS = ROOT / "bench" / "results"

_PACKAGES = (
    "imagegate",
    "fastapi",
    "uvicorn",
    "uvloop",
    "httptools",
    "aiohttp",
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
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
    }


def describe_line(run: dict[str, Any]) -> str:
    """The run in one sentence, for under a table."""
    machine, versions = run["machine"], run["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "imagegate")
    return (
        f"Measured {run['measured'][:10]} at {run['commit']} on {machine['cores']} × {machine['cpu']}, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel'].split('-')[0]}, {machine['libc']}; {packages}."
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
