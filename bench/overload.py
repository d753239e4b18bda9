"""Waiting requests, and more requests than a worker can serve: failures, waits, memory, and the growth of the cost.

imagegate alone, with everything on, before the played upstream of `bench.native`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import contestants, native, report, rows, tree
from bench.contestants import Contestant
from bench.native import Shot, Upstream
from bench.ping import Pings, quantile
from bench.resident_memory import MIB, resident

NAME = "overload"
HELP = "thousands of waiting requests, three times more than can be served, and how the cost grows"

_SETTLE_S = 0.5
_PLACES, _DELAY_S = 200, 2.0
_CAPACITY = _PLACES / _DELAY_S
"""Requests a second that a worker with so many places can serve."""

_BODY_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Seen:
    """One shot at a gateway."""

    cpu: float
    growth: int
    answers: dict[str, Any]
    pings: list[float]
    reached: dict[str, int]

    @property
    def statuses(self) -> dict[str, Any]:
        return self.answers["statuses"]

    @property
    def good(self) -> int:
        return self.statuses.get("200", {}).get("count", 0)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60, help="seconds of the overload (60)")
    parser.add_argument("--only", default="", help="only: waiting, growth or overload")
    parser.add_argument("--no-write", action="store_true", help="leave bench/results as it is")


def run(options: argparse.Namespace) -> bool:
    """Measure, print the tables, write the results; True if the limits are kept."""
    parts: dict[str, Callable[[Upstream, Path], tuple[str, list[dict[str, Any]]]]] = {
        "waiting": _measure_waiting,
        "growth": _measure_growth,
        "overload": lambda upstream, plain: _measure_overload(upstream, plain, options.seconds),
    }
    document: dict[str, Any] = report.describe_run()
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as name:
        made = rows.make(Path(name))
        with native.upstream(made.answers) as upstream:
            for part, measure in parts.items():
                if options.only in part:
                    table, found = measure(upstream, made.cases[0].body)
                    document[part] = found
                    sys.stdout.write(table + "\n\n")
                    sys.stdout.flush()
    sys.stdout.write(report.describe_line(document) + "\n")
    if not options.no_write:
        report.write(NAME, document)
    return all(one.get("is_kept", True) for part in parts for one in document.get(part, []))


def _fire(
    who: Contestant, upstream: Upstream, shot: Shot, *, answer: int = 0, delay_s: float = 0.0, base: int = 0
) -> Seen:
    """Memory is counted from `base`, or from what is resident now."""
    upstream.choose(answer, delay_s)
    before = tree.cpu_seconds(who.pids)
    with tree.Growth(who.pids) as growth, Pings(who.port) as pings:
        base = base or growth.most
        answers = native.fire(shot)
        time.sleep(_SETTLE_S)
    return Seen(tree.cpu_seconds(who.pids) - before, growth.most - base, answers, pings.waits, upstream.count())


def _shot(who: Contestant, body: Path, count: int, **more: Any) -> Shot:
    return Shot(who.port, rows.GENERATIONS, who.headers | _BODY_HEADERS, body, count, **more)


def _warm(who: Contestant, upstream: Upstream, body: Path) -> None:
    _fire(who, upstream, _shot(who, body, 200, at_once=16))


def _measure_waiting(upstream: Upstream, body: Path) -> tuple[str, list[dict[str, Any]]]:
    """Requests that each wait five seconds for their upstream."""
    found: list[dict[str, Any]] = []
    for workers, count, over_s in ((1, 2000, 5.0), (1, 2000, 0.0), (2, 5000, 5.0), (2, 5000, 0.0)):
        with contestants.imagegate(upstream.url, workers=workers) as who:
            _warm(who, upstream, body)
            shot = _shot(who, body, count, at_once=count, over_s=over_s, timeout_s=120)
            seen = _fire(who, upstream, shot, delay_s=5)
        is_even = over_s and workers == 1
        row = {
            "requests": count,
            "workers": workers,
            "over_s": over_s,
            "failed": count - seen.good,
            "at_once": seen.reached["most_at_once"],
            "p99_s": round(seen.statuses.get("200", {}).get("p99", 0) / 1000, 2),
            "cpu_ms": round(seen.cpu / count * 1000, 2),
            "growth_mib": round(seen.growth / MIB, 1),
            "healthz_p99_ms": round(quantile(seen.pings, 0.99), 1),
            "answers": seen.answers,
        }
        is_calm = row["p99_s"] <= 8 and row["growth_mib"] <= 100 and row["healthz_p99_ms"] <= 250
        found.append(row | {"is_kept": not row["failed"] and (is_calm or not is_even)})
        sys.stderr.write(f"{found[-1]}\n")
    head = (
        "requests",
        "workers",
        "arriving",
        "failed",
        "upstream at once",
        "p99 s",
        "CPU ms",
        "MiB",
        "/healthz p99 ms",
    )
    names = ("failed", "at_once", "p99_s", "cpu_ms", "growth_mib", "healthz_p99_ms")
    lines = [
        [f"{row['requests']:,}", row["workers"], f"over {row['over_s']:g} s" if row["over_s"] else "at one instant"]
        + [row[name] for name in names]
        for row in found
    ]
    return report.table(head, lines), found


def _measure_growth(upstream: Upstream, body: Path) -> tuple[str, list[dict[str, Any]]]:
    """The growth of the cost with the waiting requests, and with the bytes of an answer."""
    found: list[dict[str, Any]] = []
    with contestants.imagegate(upstream.url) as who:
        _warm(who, upstream, body)
        base = resident(who.pids[0])
        for count in (500, 1000, 2000):
            shot = _shot(who, body, count, at_once=count, over_s=count / 400, timeout_s=120)
            found.append(_grow("waiting requests", count, _fire(who, upstream, shot, delay_s=5, base=base)))
    with contestants.imagegate(upstream.url) as who:
        _warm(who, upstream, body)
        base = resident(who.pids[0])
        for answer, size in ((3, "5 MB"), (4, "10 MB"), (2, "20 MB")):
            shot = _shot(who, body, 32, at_once=8)
            found.append(_grow("an answer's bytes", size, _fire(who, upstream, shot, answer=answer, base=base)))
    with contestants.imagegate(upstream.url) as who:
        _warm(who, upstream, body)
        base = resident(who.pids[0])
        for count in (1, 2, 4):
            several = body.with_name(f"n{count}.json")
            several.write_text(body.read_text()[:-1] + f', "n": {count}}}')
            shot = _shot(who, several, 200, at_once=8)
            found.append(_grow("n", count, _fire(who, upstream, shot, answer={1: 1, 2: 5, 4: 6}[count], base=base)))
    head = ("what is doubled", "", "CPU s", "MiB", "failed")
    lines = [[row["what"], row["size"], row["cpu_s"], row["growth_mib"], row["failed"]] for row in found]
    return report.table(head, lines), found


def _grow(what: str, size: Any, seen: Seen) -> dict[str, Any]:
    failed = sum(one["count"] for status, one in seen.statuses.items() if status != "200")
    row = {"what": what, "size": size, "cpu_s": round(seen.cpu, 2), "growth_mib": round(seen.growth / MIB, 1)}
    sys.stderr.write(f"{row}\n")
    return row | {"failed": failed}


def _measure_overload(upstream: Upstream, body: Path, seconds: float) -> tuple[str, list[dict[str, Any]]]:
    """As much as a worker can serve, and three times as much."""
    found: list[dict[str, Any]] = []
    with contestants.imagegate(upstream.url, limits=f"requests: {_PLACES}") as who:
        _warm(who, upstream, body)
        for load, lasts in ((0.95, min(seconds, 20)), (3.0, seconds)):
            count = int(_CAPACITY * load * lasts)
            shot = _shot(who, body, count, over_s=lasts, timeout_s=60)
            seen = _fire(who, upstream, shot, delay_s=_DELAY_S)
            refused = seen.statuses.get("503", {"count": 0, "p99": 0, "max": 0, "retry_after": 0})
            found.append(
                {
                    "load": load,
                    "offered": round(count / lasts, 1),
                    "served": round(seen.good / (seen.answers["seconds"] - _DELAY_S), 1),
                    "refused": refused["count"],
                    "refused_p99_ms": refused["p99"],
                    "told_when": refused["retry_after"],
                    "failed": count - seen.good - refused["count"],
                    "cpu_ms": round(seen.cpu / max(1, seen.good) * 1000, 2),
                    "growth_mib": round(seen.growth / MIB, 1),
                }
            )
            sys.stderr.write(f"{found[-1]} {seen.answers}\n")
    peak, heavy = found
    is_kept = heavy["served"] >= 0.9 * peak["served"] and heavy["refused_p99_ms"] <= 100 and not heavy["failed"]
    heavy["is_kept"] = is_kept and heavy["told_when"] == heavy["refused"]
    head = ("of what it can serve", "offered/s", "served/s", "refused", "refusal p99 ms", "failed", "MiB")
    names = ("offered", "served", "refused", "refused_p99_ms", "failed", "growth_mib")
    return report.table(head, [[f"{row['load']:g}×", *(row[name] for name in names)] for row in found]), found
