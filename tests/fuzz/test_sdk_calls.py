"""Calls by the callers' own libraries through proxies that cut, delay, duplicate and truncate, on both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_proxy import FaultProxy, ProxyFault, fault_proxy
from tests.support.gateways import OFFICIAL, TASKS, Gateway, Gateways
from tests.support.ledgers import is_soak
from tests.support.plain_pictures import decode
from tests.support.sdk_calls import Ends, SdkCalls, call_all, call_sync, check_charges, explain, purchases

pytestmark = pytest.mark.slow

CALLS = 200 if is_soak() else 12
"""Of each library; in `make test` of one library alone."""

TIMEOUT_S = 30
"""No fault here is one of time alone."""

OUTSIDE: tuple[ProxyFault, ...] = (
    *(
        "pass",
        "cut answer",
        "pass",
        "truncate",
        "delay",
        "pass",
        "duplicate",
        "cut request",
        "pass",
        "drip",
        "duplicate",
    ),
)
"""Between a caller and the gateway. The lengths have no common divisor, so that every pair of faults is met."""

WHOLE = tuple(fault for fault in OUTSIDE if fault not in ("truncate", "drip"))
"""For Node 20, whose own fetch ends the process where a body is cut that the library no longer reads."""

INSIDE: tuple[ProxyFault, ...] = (
    "pass",
    "truncate",
    "pass",
    "delay",
    "pass",
    "cut answer",
    "duplicate",
    "drip",
    "cut request",
)
"""Between the gateway and its upstreams."""


@pytest.mark.parametrize("model", [OFFICIAL, TASKS], ids=["sync", "tasks"])
def test_nothing_is_bought_twice(
    gateways: Gateways, request: pytest.FixtureRequest, tmp_path: Path, model: str
) -> None:
    """A call buys at most once, what came is charged once, and every paid picture can be collected by its owner."""
    with fault_proxy(gateways.simulator.url, INSIDE) as inside:
        gateway = open_behind(gateways, inside)
        with fault_proxy(gateway.url, OUTSIDE) as outside, fault_proxy(gateway.url, WHOLE) as whole:
            calls = SdkCalls(outside.url, gateway.key, model, CALLS, is_keyed=True, timeout_s=TIMEOUT_S)
            ends = call_some(request, calls, tmp_path, whole.url)
        gateway.settle()
    assert set(ends.values()) <= {0, 200, 424, 429, 502, 503, 504}
    assert Counter(ends.values())[200] >= len(ends) / 3, Counter(ends.values())
    prices = purchases(gateway)
    twice = [prompt for prompt, count in Counter(prompt for prompt, _ in prices).items() if count > 1]
    assert not twice, explain(gateway, twice, ends)
    assert {prompt for prompt, status in ends.items() if status == 200} <= dict(prices).keys()
    check_charges(gateway, dict(prices))
    check_collectable(gateway)
    assert outside.met["cut answer"]
    assert inside.met["truncate"]


def open_behind(gateways: Gateways, inside: FaultProxy) -> Gateway:
    """A gateway that reaches its upstreams through the proxy alone, and whose health rules spare none."""
    patient = {"calls": 100, "unknown": 100, "refusals": 100, "presumed_per_hour": None}
    kinds = {"anyfast": "anyfast", "apiany": "apiany"}
    upstreams: dict[str, Any] = {
        name: {"base_url": f"{inside.url}/{kind}", "timeouts": {"call": 6}, "health": patient}
        for name, kind in kinds.items()
    }
    gateway = gateways.open(upstreams=upstreams, accounting={"keep_prompts": True}, limits={"queue": 999})
    gateway.simulator.fault("pad", times=None, bytes=100_000)
    return gateway


def call_some(request: pytest.FixtureRequest, calls: SdkCalls, folder: Path, node_url: str) -> Ends:
    """All three libraries in a long run, one of them every day."""
    if not is_soak():
        return call_sync(calls)
    request.getfixturevalue("node")
    return call_all(calls, folder, node_url)


def check_collectable(gateway: Gateway) -> None:
    """The owner gets the picture of every task that succeeded; no other key sees the task."""
    _, stranger = gateway.new_key()
    tasks = [one["id"] for one in gateway.task_records() if one["status"] == "succeeded"]
    assert tasks
    for task in tasks:
        answer = gateway.get(f"/v1/tasks/{task}")
        assert answer.status_code == 200, answer.text
        assert [decode(item) for item in answer.json()["result"]["data"]]
        other = gateway.get(f"/v1/tasks/{task}", headers={"authorization": f"Bearer {stranger}"})
        assert other.status_code == 404
