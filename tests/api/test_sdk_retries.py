"""The customers' own libraries with their retries on, at an upstream that is slow, refuses and cuts: nothing twice.

The simulator's book tells what was bought, the ledger what was charged.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.dollars import parse_usd
from tests.support.gateways import OFFICIAL, TASKS, Gateway, Gateways
from tests.support.ledgers import is_soak
from tests.support.plain_pictures import png
from tests.support.processes import clean_environment

pytestmark = pytest.mark.slow

CALLS = 500 if is_soak() else 40
"""Of each library."""

PARALLEL = 12

TIMEOUT_S = 2

LIMITED = 40

SIZE = "1024x1024"
"""One that both upstreams make exactly."""

NODE = Path(__file__).parent.parent / "sdk" / "node"

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

Ends = Mapping[str, int]
"""The status that each call ended with, by its prompt; 0 where none came."""


def status_of(error: openai.APIError) -> int:
    return error.status_code if isinstance(error, openai.APIStatusError) else 0


def call_sync(gateway: Gateway, model: str) -> Ends:
    """openai-python's ordinary client, in threads; every other call is an edit."""
    picture = png()
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, timeout=TIMEOUT_S) as sdk:

        def call(number: int) -> tuple[str, int]:
            prompt = f"sync {number}"
            try:
                if number % 2:
                    sdk.images.edit(model=model, prompt=prompt, size=SIZE, image=("a.png", picture))
                else:
                    sdk.images.generate(model=model, prompt=prompt, size=SIZE)
            except openai.APIError as error:
                return prompt, status_of(error)
            return prompt, 200

        with ThreadPoolExecutor(PARALLEL) as threads:
            return dict(threads.map(call, range(CALLS)))


def call_async(gateway: Gateway, model: str) -> Ends:
    """Its asynchronous client, on one loop."""
    picture, places = png(), asyncio.Semaphore(PARALLEL)

    async def call(sdk: openai.AsyncOpenAI, number: int) -> tuple[str, int]:
        prompt = f"async {number}"
        async with places:
            try:
                if number % 2:
                    await sdk.images.edit(model=model, prompt=prompt, size=SIZE, image=("a.png", picture))
                else:
                    await sdk.images.generate(model=model, prompt=prompt, size=SIZE)
            except openai.APIError as error:
                return prompt, status_of(error)
            return prompt, 200

    async def run() -> Ends:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, timeout=TIMEOUT_S) as sdk:
            return dict(await asyncio.gather(*(call(sdk, number) for number in range(CALLS))))

    return asyncio.run(run())


def call_node(gateway: Gateway, model: str, folder: Path) -> Ends:
    """npm `openai`, in a process of its own."""
    (folder / "picture.png").write_bytes(png())
    numbers = [str(number) for number in (CALLS, PARALLEL, TIMEOUT_S)]
    command = ["node", "retries.mjs", f"{gateway.url}/v1", gateway.key, model, str(folder), *numbers]
    ended = subprocess.run(
        command, cwd=NODE, env=clean_environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture(scope="session")
def node() -> None:
    """A Node that has the packages."""
    subprocess.run([NODE.parents[2] / "scripts" / "node.sh"], check=True, timeout=600)


def call_all(gateway: Gateway, model: str, folder: Path) -> Ends:
    """Every library's calls, all at the same time."""
    runs: list[Callable[[], Ends]] = [
        lambda: call_sync(gateway, model),
        lambda: call_async(gateway, model),
        lambda: call_node(gateway, model, folder),
    ]
    with ThreadPoolExecutor(len(runs)) as threads:
        ends = [future.result() for future in [threads.submit(run) for run in runs]]
    return {prompt: status for each in ends for prompt, status in each.items()}


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
    ends = call_all(gateway, model, tmp_path)
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


def purchases(gateway: Gateway) -> list[tuple[str, int]]:
    """Each purchase that was not given back: prompt and µ$."""
    book = gateway.simulator.book()
    return [(one["prompt"], parse_usd(one["price_usd"])) for one in book if not one["refunded"]]


def explain(gateway: Gateway, prompts: list[str], ends: Ends) -> str:
    """All that was recorded of some prompts, a request a line: a failure must show how its cause came about."""
    lines = [f"{prompt} ended with {ends[prompt]}" for prompt in prompts]
    for one in gateway.records():
        if one.prompt in prompts:
            calls = [(call.id, call.target, call.outcome, call.state) for call in one.calls]
            how = "joined" if one.is_joined else "opened"
            lines.append(f"{one.id} {one.request} {how} {one.task} {one.status} {one.error} {one.seconds} s {calls}")
    lines += [str(entry) for entry in gateway.simulator.book() if entry["prompt"] in prompts]
    return "\n".join(lines)


def check_charges(gateway: Gateway, bought: Mapping[str, int]) -> None:
    """The ledger has posted what was bought and came, presumed what may have been bought, and holds nothing."""
    posted = presumed = 0
    paid: Counter[str] = Counter()
    for record in gateway.records():
        for call in record.calls:
            assert call.state in ("posted", "presumed", "void"), call
            assert record.prompt is not None
            paid[record.prompt] += call.state != "void"
            if call.state == "posted":
                assert call.usd == bought[record.prompt]
                posted += call.usd
            elif call.state == "presumed":
                presumed += call.usd or 0
    assert bought.keys() <= paid.keys()
    assert set(paid.values()) <= {0, 1}
    spent = gateway.spent()
    assert (spent.usd_posted, spent.usd_presumed, spent.usd_held) == (posted, presumed, 0)
