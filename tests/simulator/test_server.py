"""The simulator as a program: it says where it listens and ends when it is told to."""

import asyncio
import concurrent.futures
import signal
import subprocess
import sys
import time

import httpx
import pytest

from gateway.simulator.config import SimulatorConfig
from gateway.simulator.server import background


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_program_says_url_and_ends(number):
    """One line names the URL; a signal ends the program at once, even while a request hangs."""
    command = [sys.executable, "-m", "gateway.simulator", "--port", "0", "--latency", "30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        url = program.stdout.readline().split()[-1]
        assert httpx.get(f"{url}/_health").json() == {"status": "ok"}
        with (
            httpx.Client(base_url=url, verify=False) as client,
            concurrent.futures.ThreadPoolExecutor(1) as pool,
        ):
            headers = {"authorization": "Bearer sim-direct"}
            body = {"model": "gpt-image-2", "prompt": "x"}
            waiting = pool.submit(client.post, "/anyfast/v1/images/generations", headers=headers, json=body)
            deadline = time.monotonic() + 10
            while not client.get("/_book").json():
                assert time.monotonic() < deadline
            program.send_signal(number)
            assert program.wait(10) == 0
            assert program.stdout.read() == ""
            assert waiting.exception() is not None or waiting.result().status_code == 500


async def test_many_requests_wait_together():
    """A hundred requests wait at once, and each gets its own picture's answer."""
    limits = httpx.Limits(max_connections=100)
    body = {"model": "gpt-image-2-c", "prompt": "x"}
    headers = {"authorization": "Bearer sim-c"}
    with background(SimulatorConfig(latency=0.5)) as url:
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=20) as client:
            sends = [client.post("/anyfast/v1/images/generations", headers=headers, json=body) for _ in range(100)]
            answers = await asyncio.gather(*sends)
            times = sorted(entry["time"] for entry in (await client.get("/_book")).json())
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["data"][0]["url"] for answer in answers}) == 100
    assert len(times) == 100
