"""A gateway that dies between its submission and the ticket: the callback reaches its adopter."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from gateway.process.settings import SOURCE_CONFIG
from tests.support.gateways import GENERATIONS, TASKS, wait_until
from tests.support.plain_pictures import decode
from tests.support.ports import free_port
from tests.support.processes import Gateway, gateway
from tests.support.simulators import Simulator


def ask(run: Gateway, key: str, retry: int) -> httpx.Response:
    fields = {"model": TASKS, "prompt": "a cat", "size": "1024x1024"}
    headers = {"authorization": f"Bearer {key}", "x-stainless-retry-count": str(retry)}
    return httpx.post(run.url + GENERATIONS, json=fields, headers=headers, timeout=30, trust_env=False, verify=False)


@pytest.mark.slow
def test_killed_gateways_picture_is_told_of(tmp_path: Path, simulator: Simulator) -> None:
    """Killed before the ticket came, started again: a callback names it, and the retry gets what was paid for."""
    port = str(free_port())
    catalogue = tmp_path / "gateway.yaml"
    catalogue.write_text(SOURCE_CONFIG.read_text() + "\naccounting: {lease: 1}\n")
    env = {
        "GATEWAY_SIMULATOR_URL": simulator.url,
        "GATEWAY_CONFIG": str(catalogue),
        "GATEWAY_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "GATEWAY_CALLBACK_SECRET": "c" * 32,
    }
    simulator.fault("delay", seconds=20, when="after", endpoint="generations")
    simulator.fault("callback", count=0)
    data = tmp_path / "data"
    with ThreadPoolExecutor(1) as pool:
        with gateway(data, "--demo", "--port", port, **env) as first:
            lost = pool.submit(ask, first, first.demo_key, 0)
            (bought,) = wait_until(simulator.book, "the submission")
            os.killpg(first.pid, signal.SIGKILL)
        with suppress(httpx.TransportError):
            lost.result()
        with gateway(data, "--demo", "--port", port, **env) as second:
            joined = pool.submit(ask, second, second.demo_key, 1)
            told = {"task_id": bought["task_id"], "status": "succeeded"}
            (seen,) = simulator.log("generations")
            assert (
                httpx.post(seen["fields"]["callback_url"], json=told, trust_env=False, verify=False).status_code == 200
            )
            answer = joined.result()
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gateway-joined"] == "1"
    assert decode(answer.json()["data"][0]).size == (1024, 1024)
    assert len(simulator.paid()) == 1
