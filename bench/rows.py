"""The rows of the comparison: requests, upstream answers, limits for imagegate, and the table.

Never measures anything.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report, samples

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
MODEL = "gpt-image-2"

Result = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """`count` requests, `at_once` under way or all due within `over_s`; `is_kept` judges imagegate's result."""

    name: str
    body: Path
    count: int
    show: Callable[[Result], str]
    is_kept: Callable[[Result], bool]
    path: str = GENERATIONS
    content_type: str = "application/json"
    at_once: int = 0
    over_s: float = 0.0
    answer: int = 0
    delay_s: float = 0.0
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Rows:
    cases: tuple[Case, ...]
    answers: tuple[Path, ...]


def make(folder: Path) -> Rows:
    """All cases, with their bodies and answers as files in the folder."""
    answers = tuple(_write_answer(folder, name, size, count) for name, (size, count) in _ANSWERS.items())
    plain = folder / "plain.json"
    # The place is filled with each request's number: all are different.
    plain.write_text(json.dumps({"model": MODEL, "prompt": "a red fox @@@@@@@@", "size": "1024x1024"}))
    tens = samples.form(folder, "tens", MODEL, samples.pixel_heavy(folder, megabytes=10))
    fifties = samples.form(folder, "fifties", MODEL, samples.pixel_heavy(folder))
    upload = {"path": EDITS, "content_type": tens.content_type, "at_once": 8, "count": 8}
    return Rows(
        cases=(
            Case("2 KB answers, 32 at once", plain, 1000, _ms, lambda one: one["cpu_ms"] <= 2.0, at_once=32),
            Case("2 MB answers, 16 at once", plain, 160, _ms, lambda one: one["cpu_ms"] <= 7.0, at_once=16, answer=1),
            Case("8 answers of 20 MB at once", plain, 8, _bulk, _is_light(8, 8), at_once=8, answer=2),
            Case("8 uploads of 10 MB at once", tens.path, show=_bulk, is_kept=_is_light(8, 4), **upload),
            Case("8 uploads of 50 MB at once", fifties.path, show=_bulk, is_kept=_is_light(8, 4), **upload),
            Case("2,000 over 5 s, each waits 5 s", plain, 2000, _of_waiting, _is_patient(8), over_s=5, delay_s=5),
        ),
        answers=answers,
    )


_ANSWERS = {
    "small": (1400, 1),
    "middle": (1_500_000, 1),
    "large": (15_000_000, 1),
    "quarter": (3_750_000, 1),
    "half": (7_500_000, 1),
    "two": (1_500_000, 2),
    "four": (1_500_000, 4),
}
"""Bytes of each picture, whose base64 is a third longer, and how many pictures there are."""


def _is_light(count: int, each_mib: float) -> Callable[[Result], bool]:
    return lambda one: one["cpu_s_gb"] <= 4 and one["growth_mib"] <= count * each_mib and not one["failed"]


def _is_patient(most_s: float) -> Callable[[Result], bool]:
    return lambda one: not one["failed"] and one["p99_s"] <= most_s and one["growth_mib"] <= 100


def _ms(one: Result) -> str:
    return f"{one['cpu_ms']:.2f} ms"


def _bulk(one: Result) -> str:
    failed = f", {one['failed']} failed" if one["failed"] else ""
    return f"{one['cpu_s_gb']:.1f} s/GB, +{max(0, one['growth_mib']):.0f} MiB{failed}"


def _of_waiting(one: Result) -> str:
    answered = f"{one['failed']} failed" if one["failed"] else "all answered"
    return f"{answered}, p99 {one['p99_s']:.1f} s, +{max(0, one['growth_mib']):.0f} MiB"


def render(document: dict[str, Any]) -> str:
    """The Markdown table, a column each, and imagegate's ratio to the others in processor time."""
    names = list(dict.fromkeys(one["who"] for one in document["results"]))
    shows = {case.name: case.show for case in _shapes()}
    found: dict[str, dict[str, Result]] = {}
    for one in document["results"]:
        found.setdefault(one["case"], {})[one["who"]] = one
    lines = []
    for name, by_who in found.items():
        own = by_who["imagegate"]
        cells = [shows[name](by_who[who]) + _ratio(by_who[who], own) for who in names]
        lines.append([name, *cells, f"{own['aside_ms']:.2f} ms"])
    versions = document["versions"]
    head = ["processor time of the process", *(f"{name} {versions[name]}" for name in names), "imagegate's Valkey"]
    return report.table(head, lines) + "\n\n" + report.describe_line(document)


def _shapes() -> tuple[Case, ...]:
    nothing = Path()
    shows = {
        "2 KB answers, 32 at once": _ms,
        "2 MB answers, 16 at once": _ms,
        "8 answers of 20 MB at once": _bulk,
        "8 uploads of 10 MB at once": _bulk,
        "8 uploads of 50 MB at once": _bulk,
        "2,000 over 5 s, each waits 5 s": _of_waiting,
    }
    return tuple(Case(name, nothing, 0, show, lambda _: True) for name, show in shows.items())


def _ratio(other: Result, own: Result) -> str:
    if other is own or not own["cpu_ms"]:
        return ""
    times = other["cpu_ms"] / own["cpu_ms"]
    return f" ({times:.{1 if times >= 0.1 else 2}f}×)"


def _write_answer(folder: Path, name: str, size: int, count: int) -> Path:
    path = folder / f"{name}.answer"
    with path.open("wb") as file:
        file.write(b'{"created":1780000000,"data":[{"b64_json":"')
        file.write(b'"},{"b64_json":"'.join([base64.b64encode(picture(size))] * count))
        file.write(b'"}]}')
    return path


def picture(size: int) -> bytes:
    """A valid 1024x1024 PNG of so many bytes: one colour, and a comment that fills it up."""
    rows = zlib.compress(bytes(1024 * (1 + 128)))
    head, end = struct.pack(">IIBBBBB", 1024, 1024, 1, 0, 0, 0, 0), b""
    parts = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", end)]
    missing = size - 8 - sum(12 + len(data) for _, data in parts) - 12
    parts.insert(1, (b"prVt", bytes(max(0, missing))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(samples.chunk(kind, data) for kind, data in parts)
