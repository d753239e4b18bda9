"""The customers' own libraries with their retries on, at an upstream that is slow, refuses and cuts: nothing twice.

The simulator's book tells what was bought, the ledger what was charged.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateways import OFFICIAL, TASKS, Gateways
from tests.support.ledgers import is_soak
from tests.support.sdk_calls import SdkCalls, call_all, check_charges, explain, purchases

pytestmark = pytest.mark.slow

CALLS = 500 if is_soak() else 40
"""Of each library."""

LIMITED = 40

SYNCHRONOUS: tuple[dict[str, Any], ...] = (
    {"kind": "latency", "seconds": 2.4},
    {"kind": "reset", "when": "after"},
    {"kind": "reset", "when": "before"},
    {"kind": "latency", "seconds": 4.2},
    {"kind": "truncate", "share": 0.5},
    {"kind": "status", "status": 429, "retry_after": 1},
    {"kind": "status", "status": 502, "html": True, "accepted": True},
    {"kind": "status", "status": 503},
)

BY_TASKS: tuple[dict[str, Any], ...] = (
    {"kind": "latency", "seconds": 2.4},
    {"kind": "reset", "when": "after", "endpoint": "generations"},
    {"kind": "reset", "when": "before", "endpoint": "tasks"},
    {"kind": "latency", "seconds": 4.2},
    {"kind": "status", "status": 500, "endpoint": "tasks"},
    {"kind": "task_failed", "refunded": True},
    {"kind": "status", "status": 429, "retry_after": 1, "endpoint": "edits"},
    {"kind": "status", "status": 503, "endpoint": "generations"},
    {"kind": "truncate", "share": 0.5, "endpoint": "edits"},
)


@pytest.mark.parametrize(("model", "faults"), [(OFFICIAL, SYNCHRONOUS), (TASKS, BY_TASKS)], ids=["sync", "tasks"])
def test_bad_upstream_is_never_paid_twice(
    gateways: Gateways, node: None, tmp_path: Path, model: str, faults: tuple[dict[str, Any], ...]
) -> None:
    """Calls by three libraries with default retries: no duplicate, and what came is charged once, to the µ$."""
    # Its breaker would soon spare it, and this test the point.
    spared = {"calls": 100, "unknown": 100, "refusals": 100, "presumed_per_hour": None}
    upstream = {"timeouts": {"call": 6}, "health": spared}
    gateway = gateways.open(
        upstreams={"anyfast": upstream, "apiany": upstream}, accounting={"keep_prompts": True}, limits={"queue": 999}
    )
    # Drawn once: two cores are soon busy with drawing.
    gateway.simulator.fault("pad", times=None, bytes=100_000)
    for number in range(int(1.5 * CALLS)):
        fault = faults[number % len(faults)]
        # Each rate limit stops everything for a second.
        if fault.get("status") != 429 or number < LIMITED:
            gateway.simulator.fault(**fault, skip=number)
    ends = call_all(SdkCalls(gateway.url, gateway.key, model, CALLS), tmp_path)
    assert len(ends) == 3 * CALLS
    assert set(ends.values()) <= {0, 200, 424, 429, 502, 503, 504}
    assert Counter(ends.values())[200] >= len(ends) / 3
    gateway.settle()
    prices = purchases(gateway)
    bought = dict(prices)
    twice = [prompt for prompt, count in Counter(prompt for prompt, _ in prices).items() if count > 1]
    assert not twice, explain(gateway, twice, ends)
    assert {prompt for prompt, status in ends.items() if status == 200} <= bought.keys()
    check_charges(gateway, bought)
