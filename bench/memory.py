"""The worker's memory under large pictures: 8 answers of 20 MB at once, 8 edits of 50 MB at once.

Each case has a gateway of its own and is compared with the memory after small warm-up requests; memory
that a round leaves behind therefore counts in the next one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import load, processes, report, samples
from bench.load import Load
from bench.ping import Pings, quantile
from bench.processes import BenchError, Gateway, Simulator
from bench.resident_memory import MIB, PeakWatch, details, resident

NAME = "memory"
HELP = "resident memory and loop stalls with 8 answers of 20 MB, or 8 edits of 50 MB, at once"

UPSTREAMS = {"anyfast": "anyfast/gpt-image-2", "anyfast-c": "anyfast/gpt-image-2-c", "apiany": "apiany/gpt-image-2"}
ANSWER_BYTES = 15_000_000
"""One picture's bytes; its base64 has 20 million."""

ANSWER_LIMIT, EDIT_LIMIT = 16 * MIB, 8 * MIB
"""Bytes of memory that each of the requests at once may add."""

_GENERATIONS, _EDITS = "/v1/images/generations", "/v1/images/edits"
_IDLE_S = 2.0
_HOLD_S = 3.0
"""Seconds that late readers leave their answers unread, while these wait in the worker."""


@dataclass(frozen=True)
class Case:
    """The requests of a case, and the limit on its memory."""

    name: str
    path: str
    limit: int
    make_body: Callable[[Path, str, str], samples.Body]
    upstreams: tuple[str, ...] = tuple(UPSTREAMS)
    faults: tuple[dict[str, Any], ...] = ()
    hold_s: float = 0.0
    answered: int = 0
    """Bytes that each answer must have at least."""
    uploaded: int = 0
    """Bytes that each request must have sent to its upstream at least."""


@dataclass(frozen=True)
class Round:
    """One round: bytes of memory, seconds, and milliseconds that pings waited."""

    peak: int
    sampled: int
    left: int
    seconds: float
    slowest: float
    half_full: float
    waits: list[float]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case (3)")
    parser.add_argument("--at-once", type=int, default=8, help="requests at once (8)")
    parser.add_argument("--only", default="", help="only cases whose `upstream case` holds this text")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="set for the gateway; repeatable"
    )
    parser.add_argument("--no-write", action="store_true", help="leave bench/results as it is")


def run(options: argparse.Namespace) -> bool:
    """Measure, write and print; True if every case kept its limit."""
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as name, processes.simulator() as simulator:
        folder = Path(name)
        results = [
            _measure(simulator, folder, upstream, case, options)
            for case in _cases(folder)
            for upstream in case.upstreams
            if options.only in f"{upstream} {case.name}"
        ]
    document = report.describe_run() | {"requests_at_once": options.at_once, "env": options.env, "results": results}
    if not options.no_write:
        report.write(NAME, document)
    sys.stdout.write(_render(document) + "\n")
    return all(result["is_kept"] for result in results)


def _cases(folder: Path) -> list[Case]:
    return [*_answers(), *_edits(samples.pixel_heavy(folder), samples.metadata_heavy(folder))]


def _answers() -> list[Case]:
    pad = {"kind": "pad", "bytes": ANSWER_BYTES}
    inside = {"kind": "shape", "shape": "result.data.b64_json"}
    whole = ANSWER_BYTES // 3 * 4

    def case(name: str, limit: int, faults: tuple[dict[str, Any], ...], **more: Any) -> Case:
        return Case(name, _GENERATIONS, limit, samples.plain, faults=faults, answered=whole, **more)

    return [
        case("answer of 20 MB", ANSWER_LIMIT, (pad,)),
        case("answer of 20 MB, in the task", ANSWER_LIMIT, (pad, inside), upstreams=("apiany",)),
        case("answer of 20 MB, read late", ANSWER_LIMIT, (pad,), upstreams=("anyfast",), hold_s=_HOLD_S),
    ]


def _edits(pixels: Path, metadata: Path) -> list[Case]:
    def case(name: str, make: Callable[..., samples.Body], image: Path, uploaded: int) -> Case:
        return Case(name, _EDITS, EDIT_LIMIT, lambda at, stem, to: make(at, stem, to, image), uploaded=uploaded)

    return [
        case("edit of 50 MB, pixels", samples.form, pixels, pixels.stat().st_size),
        # The gateway strips metadata: the upstream gets only the pixels.
        case("edit of 50 MB, metadata", samples.form, metadata, 1),
        case("edit of 50 MB, JSON", samples.data_url, pixels, pixels.stat().st_size),
    ]


def _measure(
    simulator: Simulator, folder: Path, upstream: str, case: Case, options: argparse.Namespace
) -> dict[str, Any]:
    simulator.reset()
    body = case.make_body(folder, "case", UPSTREAMS[upstream])
    extra = dict(pair.split("=", 1) for pair in options.env)
    with processes.gateway(simulator.url, extra) as gateway:
        for warm in UPSTREAMS:
            _request(gateway, _GENERATIONS, samples.plain(folder, "warm", UPSTREAMS[warm]), 1, warm)
        with Pings(gateway.port) as idle:
            time.sleep(_IDLE_S)
        base = resident(gateway.pid)
        for fault in case.faults:
            simulator.fault(**fault)
        rounds = [_round(gateway, case, body, upstream, options.at_once) for _ in range(options.rounds)]
        after = details(gateway.pid)
    body.path.unlink()
    if case.uploaded:
        _check_uploads([size for size in simulator.uploads() if size >= case.uploaded], options)
    result = _conclude(upstream, case, base, rounds, options.at_once)
    result |= {"idle_p99_ms": round(quantile(idle.waits, 0.99), 1), "after": after}
    _tell(result)
    return result


def _round(gateway: Gateway, case: Case, body: samples.Body, upstream: str, at_once: int) -> Round:
    with Pings(gateway.port) as pings, PeakWatch(gateway.pid) as watch:
        started = time.monotonic()
        answers = _request(gateway, case.path, body, at_once, upstream, case.hold_s)
        seconds = time.monotonic() - started
    if min(answer.bytes for answer in answers) < case.answered:
        raise BenchError("an answer was smaller than its picture")
    left = resident(gateway.pid)
    slowest = max(answer.seconds for answer in answers)
    return Round(watch.peak, watch.sampled, left, seconds, slowest, watch.half_full, pings.waits)


def _check_uploads(uploads: list[int], options: argparse.Namespace) -> None:
    if len(uploads) != options.rounds * options.at_once:
        raise BenchError(f"the upstream got {len(uploads)} whole images of {options.rounds * options.at_once}")


def _request(
    gateway: Gateway, path: str, body: samples.Body, count: int, upstream: str, hold_s: float = 0
) -> list[load.Answered]:
    """Answers that are whole, right and simulated. Raises BenchError for any other."""
    answers = load.run(Load(gateway.port, gateway.key, path, body.content_type, str(body.path), count, hold_s))
    wrong = [one for one in answers if not (one.status == 200 and one.is_whole and one.is_simulated)]
    wrong += [one for one in answers if one.upstream != upstream]
    if wrong or len(answers) != count:
        raise BenchError(f"{len(answers)} of {count} answers came, one of them wrong: {wrong[:1]}")
    return answers


def _conclude(upstream: str, case: Case, base: int, rounds: list[Round], at_once: int) -> dict[str, Any]:
    growths = [(one.peak - base) / at_once / MIB for one in rounds]
    waits = [wait for one in rounds for wait in one.waits]
    return {
        "upstream": upstream,
        "case": case.name,
        "base_mib": round(base / MIB, 1),
        "growth_mib_each": round(median(growths), 2),
        "growth_mib_each_rounds": [round(growth, 2) for growth in growths],
        "limit_mib_each": case.limit // MIB,
        # One round over the limit fails: the median is typical, the limit is a promise.
        "is_kept": max(growths) * MIB <= case.limit,
        "left_mib": round((rounds[-1].left - base) / MIB, 1),
        "stall_p99_ms": round(median(quantile(one.waits, 0.99) for one in rounds), 1),
        "stall_max_ms": round(max(waits), 1),
        "seconds": round(median(one.slowest for one in rounds), 2),
        "rounds": [asdict(one) | {"waits": len(one.waits)} for one in rounds],
    }


def _tell(result: dict[str, Any]) -> None:
    sys.stderr.write(
        f"{result['upstream']}, {result['case']}: {result['growth_mib_each_rounds']} MiB each, "
        f"{result['left_mib']} MiB left, stall p99 {result['stall_p99_ms']} max {result['stall_max_ms']} ms, "
        f"{result['seconds']} s\n"
    )


def _render(document: dict[str, Any]) -> str:
    head = ("upstream", "case", "MiB each", "worst", "limit", "idle MiB", "stall p99 ms", "max ms", "seconds", "")
    rows = [
        (
            one["upstream"],
            one["case"],
            f"{one['growth_mib_each']:.1f}",
            f"{max(one['growth_mib_each_rounds']):.1f}",
            one["limit_mib_each"],
            f"{one['base_mib']:.0f}",
            f"{one['stall_p99_ms']:.0f}",
            f"{one['stall_max_ms']:.0f}",
            f"{one['seconds']:.1f}",
            "kept" if one["is_kept"] else "**passed**",
        )
        for one in document["results"]
    ]
    return report.table(head, rows) + "\n\n" + report.describe_line(document)
