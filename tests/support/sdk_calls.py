"""Many calls by the callers' own libraries at once, with their retries on, and what the vendor's book says of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.dollars import parse_usd
from tests.support.gateways import Gateway
from tests.support.plain_pictures import png
from tests.support.processes import clean_environment

PARALLEL = 12

TIMEOUT_S = 2

SIZE = "1024x1024"
"""One that both upstreams make exactly."""

NODE = Path(__file__).parent.parent / "sdk" / "node"

Ends = Mapping[str, int]
"""The status that each call ended with, by its prompt; 0 where none came."""


def status_of(error: openai.APIError) -> int:
    return error.status_code if isinstance(error, openai.APIStatusError) else 0


@dataclass(frozen=True)
class SdkCalls:
    """So many calls of each library for a model, sent to `url`. `is_keyed`: every fifth has an Idempotency-Key."""

    url: str
    key: str
    model: str
    count: int
    is_keyed: bool = False
    timeout_s: float = TIMEOUT_S

    def headers(self, number: int, prompt: str) -> dict[str, str]:
        return {"Idempotency-Key": prompt} if self.is_keyed and number % 5 == 0 else {}

    def fields(self, number: int, prompt: str) -> dict[str, Any]:
        return {"model": self.model, "prompt": prompt, "size": SIZE, "extra_headers": self.headers(number, prompt)}


def call_sync(calls: SdkCalls) -> Ends:
    """openai-python's ordinary client, in threads; every other call is an edit."""
    picture = png()
    with openai.OpenAI(base_url=f"{calls.url}/v1", api_key=calls.key, timeout=calls.timeout_s) as sdk:

        def call(number: int) -> tuple[str, int]:
            prompt = f"sync {number}"
            try:
                if number % 2:
                    sdk.images.edit(image=("a.png", picture), **calls.fields(number, prompt))
                else:
                    sdk.images.generate(**calls.fields(number, prompt))
            except openai.APIError as error:
                return prompt, status_of(error)
            return prompt, 200

        with ThreadPoolExecutor(PARALLEL) as threads:
            return dict(threads.map(call, range(calls.count)))


def call_async(calls: SdkCalls) -> Ends:
    """Its asynchronous client, on one loop."""
    picture, places = png(), asyncio.Semaphore(PARALLEL)

    async def call(sdk: openai.AsyncOpenAI, number: int) -> tuple[str, int]:
        prompt = f"async {number}"
        async with places:
            try:
                if number % 2:
                    await sdk.images.edit(image=("a.png", picture), **calls.fields(number, prompt))
                else:
                    await sdk.images.generate(**calls.fields(number, prompt))
            except openai.APIError as error:
                return prompt, status_of(error)
            return prompt, 200

    async def run() -> Ends:
        async with openai.AsyncOpenAI(base_url=f"{calls.url}/v1", api_key=calls.key, timeout=calls.timeout_s) as sdk:
            return dict(await asyncio.gather(*(call(sdk, number) for number in range(calls.count))))

    return asyncio.run(run())


def call_node(calls: SdkCalls, folder: Path) -> Ends:
    """npm `openai`, in a process of its own."""
    (folder / "picture.png").write_bytes(png())
    numbers = [str(number) for number in (calls.count, PARALLEL, calls.timeout_s)]
    command = ["node", "retries.mjs", f"{calls.url}/v1", calls.key, calls.model, str(folder), *numbers]
    command += ["keyed"] if calls.is_keyed else []
    ended = subprocess.run(
        command, cwd=NODE, env=clean_environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture(scope="session")
def node() -> None:
    """A Node that has the packages."""
    subprocess.run([NODE.parents[2] / "scripts" / "node.sh"], check=True, timeout=600)


def call_all(calls: SdkCalls, folder: Path, node_url: str | None = None) -> Ends:
    """Every library's calls, all at the same time; those of Node to `node_url`, where it is given."""
    runs: list[Callable[[], Ends]] = [
        lambda: call_sync(calls),
        lambda: call_async(calls),
        lambda: call_node(replace(calls, url=node_url or calls.url), folder),
    ]
    with ThreadPoolExecutor(len(runs)) as threads:
        ends = [future.result() for future in [threads.submit(run) for run in runs]]
    return {prompt: status for each in ends for prompt, status in each.items()}


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
