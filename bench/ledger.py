"""The ledger's lifecycles (open, mark_sent, post, close) a second, and the milliseconds that they add to a request.

Runs against the embedded server of a gateway that serves, every write synced as in production, from one process.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from statistics import median
from typing import Any

from bench import processes, report
from bench.ping import quantile
from bench.processes import BenchError
from gateway.ids import new_id
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Admitted, LedgerAnswer, Opening, Scope, Settled
from gateway.process.data_folder import DataFolder
from gateway.store.client import CommandQueue
from gateway.store.embedded import running_url
from gateway.store.windows import Calendar

NAME = "ledger"
HELP = "lifecycles of the ledger a second (open, mark_sent, post, close), and what they add to a request"

LEAST = 500
"""Lifecycles a second that 64 requests at once must reach."""

AT_ONCE = (1, 16, 64, 256)
_HELD_AT = 64
_LIMITS = {
    "usd_total": 10**15,
    "usd_month": 10**15,
    "usd_week": 10**15,
    "usd_day": 10**15,
    "images_month": 10**12,
    "images_day": 10**12,
    "images_minute": 10**7,
    "requests_minute": 10**7,
    "concurrent_requests": 10**6,
}
_TEAM = "bench"


@dataclass(frozen=True)
class Round:
    """One round: lifecycles a second, and the milliseconds of each."""

    rate: float
    waits: list[float]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case, whose median counts (3)")
    parser.add_argument("--lifecycles", type=int, default=3000, help="lifecycles of one round (3000)")


def run(options: argparse.Namespace) -> bool:
    """Measure, print the table, write the results; True if the limit is kept."""
    with processes.simulator() as vendors, processes.gateway(vendors.url) as gateway:
        rows = asyncio.run(_measure_all(gateway.data_dir, options.rounds, options.lifecycles))
    held = next(row for row in rows if row["limits"] == len(_LIMITS) * 3 and row["at_once"] == _HELD_AT)
    is_kept = held["rate"] >= LEAST
    document = {"run": report.describe_run(), "least": LEAST, "rows": rows}
    report.write(NAME, document)
    head = ("limits on the key, team and everyone", "at once", "lifecycles/s", "worst round", "ms p50", "ms p99")
    cells = [
        [str(row["limits"]), row["at_once"], *(f"{row[name]:,.0f}" for name in ("rate", "worst"))]
        + [f"{row[name]:.1f}" for name in ("p50", "p99")]
        for row in rows
    ]
    sys.stdout.write(f"{report.table(head, cells)}\n\n{report.describe_line(document['run'])}\n")
    if not is_kept:
        sys.stdout.write(f"OVER THE LIMIT: {held['rate']:.0f} lifecycles/s at {_HELD_AT} at once, {LEAST} are due\n")
    return is_kept


async def _measure_all(data_dir: Any, rounds: int, lifecycles: int) -> list[dict[str, Any]]:
    url = running_url(DataFolder(data_dir))
    if url is None:
        raise BenchError("the gateway's embedded server does not answer")
    command_queue = CommandQueue(url)
    ledger = Ledger(command_queue, Calendar())
    try:
        worker = new_id("worker")
        await ledger.renew(worker, 3600 * 1_000_000)
        free = await _measure(ledger, worker, 0, rounds, lifecycles)
        key = new_id("key")
        for scope in (Scope(key=key), Scope(team=_TEAM), Scope()):
            for limit, value in _LIMITS.items():
                await ledger.set_limit(new_id("change"), scope, limit, value)
        return free + await _measure(ledger, worker, len(_LIMITS) * 3, rounds, lifecycles, key)
    finally:
        await command_queue.aclose()


async def _measure(
    ledger: Ledger, worker: str, limits: int, rounds: int, lifecycles: int, key: str = ""
) -> list[dict[str, Any]]:
    found: dict[int, list[Round]] = {at_once: [] for at_once in AT_ONCE}
    # Interleaved, so that other load of the machine affects all cases equally.
    for _ in range(rounds):
        for at_once, done in found.items():
            count = lifecycles if at_once > 1 else lifecycles // 4
            done.append(await _run_round(ledger, worker, key or new_id("key"), at_once, count))
    return [{"limits": limits, "at_once": at_once} | _sum_up(done) for at_once, done in found.items()]


def _sum_up(done: list[Round]) -> dict[str, Any]:
    waits = [wait for one in done for wait in one.waits]
    rates = [one.rate for one in done]
    return {
        "rate": median(rates),
        "worst": min(rates),
        "p50": quantile(waits, 0.5),
        "p99": quantile(waits, 0.99),
        "rounds": [asdict(one) | {"waits": len(one.waits)} for one in done],
    }


async def _run_round(ledger: Ledger, worker: str, key: str, at_once: int, count: int) -> Round:
    waits: list[float] = []
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            began = time.perf_counter()
            await _live(ledger, worker, key)
            waits.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return Round(count / (time.perf_counter() - began), waits)


async def _live(ledger: Ledger, worker: str, key: str) -> None:
    """One lifecycle of a request in the ledger."""
    task, call = new_id("task"), new_id("call")
    # All different: the ledger would search a hundred equal unanswered tasks for one to join.
    fingerprint = sha256(task.encode()).hexdigest()
    opening = Opening(task=task, key=key, team=_TEAM, fingerprint=fingerprint, price=30_000, images=1, worker=worker)
    admitted = await ledger.open(opening)
    if not isinstance(admitted, Admitted):
        raise BenchError(f"a task was not admitted: {admitted}")
    if await ledger.mark_sent(task, call, [0], 30_000, admitted.fence) is not LedgerAnswer.HELD:
        raise BenchError("a call was not marked")
    if not isinstance(await ledger.post(task, call, 30_000, 1), Settled):
        raise BenchError("a call was not posted")
    await ledger.close(task, admitted.fence)
