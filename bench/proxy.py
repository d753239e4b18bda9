"""The cost of a request: processor time, memory and failures of imagegate, alone or beside other proxies.

`--against probe,nginx,litellm,portkey` measures all in one interleaved run before one upstream. Writes
`bench/results.json` and `bench/results.md`. Valkey's processor time is reported separately.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import contestants, native, report, rows, tree
from bench.contestants import Contestant
from bench.native import Shot, Upstream
from bench.processes import ROOT, BenchError
from bench.resident_memory import MIB, resident
from bench.rows import Case

NAME = "proxy"
HELP = "processor time and memory of a request, beside a probe, nginx, LiteLLM and Portkey if wanted"

_WARM = 2000
"""Requests before the first round: Portkey's compiler needs that many."""

_PAUSE_S = 0.3

_SDK_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "OpenAI/Python 2.9.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "2.9.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.11.2",
    "X-Stainless-Async": "false",
    "x-stainless-retry-count": "0",
    "x-stainless-read-timeout": "600",
}
"""What openai-python sends."""


@dataclass(frozen=True)
class Round:
    """One round of one case: seconds of processor time, bytes of memory above the start, answers by status."""

    cpu: float
    aside: float
    seconds: float
    growth: int
    bytes: int
    good: int
    answers: dict[str, Any]
    errors: dict[str, int]
    reached: dict[str, int]


@dataclass
class Standing:
    """One contestant under way: its memory after the warm-up, and its rounds by case."""

    who: Contestant
    base: int = 0
    rounds: dict[str, list[Round]] = field(default_factory=dict)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each case, whose median counts (5)")
    parser.add_argument("--against", default="", help="others, with commas: probe,nginx,litellm,portkey")
    parser.add_argument("--beside", default="", help="the Python of another checkout, measured as `other`")
    parser.add_argument("--without", action="append", default=[], help="leave out cases whose name holds this text")
    parser.add_argument("--only", default="", help="only cases whose name holds this text")
    parser.add_argument("--no-write", action="store_true", help="leave bench/results.json as it is")


def run(options: argparse.Namespace) -> bool:
    """Measure, print the table, write the results; True if imagegate kept its limits."""
    names = ["imagegate", *(name for name in options.against.split(",") if name)]
    if unknown := set(names) - set(contestants.ALL):
        raise BenchError(f"no contestant is called {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as folder, ExitStack() as stack:
        made = rows.make(Path(folder))
        cases = [case for case in made.cases if options.only in case.name and not _is_left_out(case, options.without)]
        upstream = stack.enter_context(native.upstream(made.answers))
        standings = [Standing(stack.enter_context(contestants.ALL[name](upstream.url))) for name in names]
        if options.beside:
            other = contestants.imagegate(upstream.url, python=options.beside, name="other")
            standings.append(Standing(stack.enter_context(other)))
        for standing in standings:
            _warm(standing, upstream, made.cases[0])
        for case in cases:
            # Interleaved, so that other load of the machine affects all equally.
            for _ in range(options.rounds):
                for standing in standings:
                    standing.rounds.setdefault(case.name, []).append(_round(standing, upstream, case))
            _tell(case, standings)
    results = [_conclude(case, standing) for case in cases for standing in standings]
    document = report.describe_run() | {"rounds": options.rounds, "results": results}
    document["versions"] |= {standing.who.name: standing.who.version for standing in standings}
    table = rows.render(document)
    if not options.no_write and not options.beside and len(cases) == len(made.cases):
        (ROOT / "bench" / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (ROOT / "bench" / "results.md").write_text(table + "\n", encoding="utf-8")
    sys.stdout.write(table + "\n")
    return all(result["is_kept"] for result in results if result["who"] == "imagegate")


def _is_left_out(case: Case, words: Sequence[str]) -> bool:
    return any(word in case.name for word in words)


def _warm(standing: Standing, upstream: Upstream, case: Case) -> None:
    upstream.choose(0)
    answers = native.fire(_shot(standing.who, case, _WARM))
    if answers["statuses"].get("200", {}).get("count") != _WARM:
        raise BenchError(f"{standing.who.name} does not answer: {answers}")
    standing.base = _memory(standing.who)


def _shot(who: Contestant, case: Case, count: int) -> Shot:
    headers = _SDK_HEADERS | who.headers | {"Content-Type": case.content_type}
    return Shot(who.port, case.path, headers, case.body, count, case.at_once, case.over_s, timeout_s=case.timeout_s)


def _round(standing: Standing, upstream: Upstream, case: Case) -> Round:
    who = standing.who
    time.sleep(_PAUSE_S)
    upstream.choose(case.answer, case.delay_s)
    cpu, aside = tree.cpu_seconds(who.pids), tree.cpu_seconds(who.aside)
    with tree.Growth(who.pids) as growth:
        answers = native.fire(_shot(who, case, case.count))
        # Work after the answer is part of its cost.
        time.sleep(_PAUSE_S)
    good = answers["statuses"].get("200", {}).get("count", 0)
    return Round(
        cpu=tree.cpu_seconds(who.pids) - cpu,
        aside=tree.cpu_seconds(who.aside) - aside,
        seconds=answers["seconds"],
        growth=growth.most - standing.base,
        bytes=answers["bytes"] + case.body.stat().st_size * case.count,
        good=good,
        answers=answers["statuses"],
        errors=answers["errors"],
        reached=upstream.count(),
    )


def _memory(who: Contestant) -> int:
    return sum(resident(pid) for pid in who.pids)


def _conclude(case: Case, standing: Standing) -> dict[str, Any]:
    found = standing.rounds[case.name]
    # The others are told by their best round, in their favour; this checkout and `other` by their median.
    choose = median if standing.who.name in ("imagegate", "other") else min
    result = {
        "who": standing.who.name,
        "case": case.name,
        "count": case.count,
        "cpu_ms": round(choose(one.cpu for one in found) / case.count * 1000, 3),
        "aside_ms": round(choose(one.aside for one in found) / case.count * 1000, 3),
        "cpu_s_gb": round(choose(one.cpu / max(one.bytes, 1) * 1e9 for one in found), 2),
        "growth_mib": round(median(one.growth for one in found) / MIB, 1),
        "failed": max(case.count - one.good for one in found),
        "p99_s": round(median(_quantile(one) for one in found) / 1000, 2),
        "rounds": [asdict(one) for one in found],
    }
    return result | {"is_kept": case.is_kept(result)}


def _quantile(one: Round) -> float:
    return one.answers.get("200", {}).get("p99", float("nan"))


def _tell(case: Case, standings: Sequence[Standing]) -> None:
    for standing in standings:
        found = _conclude(case, standing)
        sys.stderr.write(
            f"{case.name}: {found['who']}: {found['cpu_ms']} ms, Valkey {found['aside_ms']} ms, "
            f"{found['cpu_s_gb']} s/GB, +{found['growth_mib']} MiB, {found['failed']} failed, p99 {found['p99_s']} s\n"
        )
