"""2,000 of apiany's tasks open at once on one worker: the polls of each, and the delay of its answer.

Polling and callbacks have a gateway each, which first learns the duration of such a task. A task is ready when the
simulator has the picture, and answered when the caller has the last byte.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import Any

from bench import callers, processes, report
from bench.callers import Answer, Burst
from bench.ping import Pings, quantile
from bench.processes import BenchError, Simulator
from bench.resident_memory import MIB, PeakWatch, resident

NAME = "tasks"
HELP = "2,000 tasks open at once: polls of each, delay from ready to answered, CPU and memory"

MODEL = "apiany/gpt-image-2"
WAYS = ("polls", "polls and callbacks")

MOST_POLLS = {"polls": 9.0, "polls and callbacks": 2.0}
"""The limit on the average polls of one task."""

MOST_HEALTHZ_MS = 250.0

_WARMING = 24
_PICTURE_BYTES = 100_000
_TICK = os.sysconf("SC_CLK_TCK")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", type=int, default=2000, help="tasks open at once (2000)")
    parser.add_argument("--seconds", type=float, default=40, help="seconds that each picture takes (40)")
    parser.add_argument("--over", type=float, default=38, help="seconds over which the requests arrive (38)")
    parser.add_argument("--only", default="", help="only the way of this name: " + ", ".join(WAYS))
    parser.add_argument("--no-write", action="store_true", help="leave bench/results as it is")


def run(options: argparse.Namespace) -> bool:
    """Measure, write and print; True if every limit was kept."""
    if options.over >= options.seconds:
        raise BenchError("the first task would end before the last one is open")
    rows = [_measure(way, options) for way in WAYS if options.only in ("", way)]
    document = {"run": report.describe_run(), "tasks": options.tasks, "seconds": options.seconds, "rows": rows}
    if not options.no_write:
        report.write(NAME, document)
    head = (
        "how ends are heard of",
        "tasks",
        "polls each",
        "delay s p50",
        "p99",
        "CPU ms each",
        "MiB",
        "healthz ms p99",
    )
    forms = {"tasks": ",", "polls": ".1f", "delay_p50": ".2f", "delay_p99": ".2f", "cpu_ms": ".1f", "growth_mib": ".1f"}
    forms["healthz_p99"] = ".0f"
    cells = [[row["way"], *(format(row[name], form) for name, form in forms.items())] for row in rows]
    sys.stdout.write(f"{report.table(head, cells)}\n\n{report.describe_line(document['run'])}\n")
    passed = [problem for row in rows for problem in _passed(row)]
    sys.stdout.writelines(f"OVER THE LIMIT: {problem}\n" for problem in passed)
    return not passed


def _passed(row: dict[str, Any]) -> list[str]:
    limits = {"polls": MOST_POLLS[row["way"]], "healthz_p99": MOST_HEALTHZ_MS}
    return [
        f"{row['way']}: {name} {row[name]:.1f}, at most {most:g}" for name, most in limits.items() if row[name] > most
    ]


def _measure(way: str, options: argparse.Namespace) -> dict[str, Any]:
    port = _free_port()
    extra = {"GATEWAY_PUBLIC_URL": f"http://127.0.0.1:{port}"}
    if "callbacks" in way:
        extra["GATEWAY_CALLBACK_SECRET"] = "bench" * 7
    with (
        processes.simulator(latency=options.seconds) as simulator,
        processes.gateway(simulator.url, extra, port=port) as gateway,
    ):
        # One picture, drawn once: the vendor's drawing is not measured.
        simulator.fault("pad", bytes=_PICTURE_BYTES)
        _check(callers.run(Burst(gateway.port, gateway.key, MODEL, "warm", _WARMING, 1)))
        asked, base, spent = simulator.polls(), resident(gateway.pid), _cpu(gateway.pid)
        with Pings(gateway.port) as pings, PeakWatch(gateway.pid) as watch:
            answers = callers.run(Burst(gateway.port, gateway.key, MODEL, "task", options.tasks, options.over))
        spent = _cpu(gateway.pid) - spent
        _check(answers)
        delays = _delays(simulator, answers, options.seconds)
        polls = simulator.polls() - asked
    row = {
        "way": way,
        "tasks": len(answers),
        "polls": polls / len(answers),
        "delay_p50": quantile(delays, 0.5),
        "delay_p99": quantile(delays, 0.99),
        "cpu_ms": spent * 1000 / len(answers),
        "growth_mib": (watch.peak - base) / MIB,
        "healthz_p50": quantile(pings.waits, 0.5),
        "healthz_p99": quantile(pings.waits, 0.99),
        "healthz_max": max(pings.waits),
    }
    sys.stderr.write(f"{row}\n")
    return row


def _check(answers: list[Answer]) -> None:
    wrong = [answer for answer in answers if answer.status != 200]
    if wrong:
        raise BenchError(f"{len(wrong)} of {len(answers)} requests failed: {wrong[:3]}")


def _delays(simulator: Simulator, answers: list[Answer], seconds: float) -> list[float]:
    """Seconds from ready to answered. Raises BenchError unless all tasks were open at one time."""
    accepted = {one["prompt"]: one["time"] for one in simulator.book() if one["prompt"].startswith("task ")}
    if len(accepted) != len(answers):
        raise BenchError(f"{len(answers)} pictures were bought {len(accepted)} times")
    if max(accepted.values()) > min(accepted.values()) + seconds:
        raise BenchError("the first task had ended before the last one was open")
    return [answer.ended - accepted[answer.prompt] - seconds for answer in answers]


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
