"""Gateways as an operator runs them, restarted in turn under load: nothing is lost, and nothing is bought twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.dollars import parse_usd
from gateway.money.ledger_results import Spent
from tests.conftest import Valkey, run_valkey
from tests.support.gateways import ENV, GENERATIONS, OFFICIAL, TASKS, catalogue_of, small
from tests.support.ledgers import is_soak
from tests.support.processes import Gateway, children, gateway, until
from tests.support.simulators import Simulator
from tests.support.store_reader import SECRETS, with_keys, with_ledger

pytestmark = pytest.mark.slow

ROUNDS = 10 if is_soak() else 1
LEAST = 40
"""Requests of a round, which goes on until both replicas were restarted."""

AT_ONCE = 8
TRIES = 40
LEASE = {"accounting": {"lease": 1.5}, "join": {"look_every": 0.5}}


@pytest.fixture
def store() -> Iterator[Valkey]:
    """A server of this test's own, which outlives its gateways."""
    with run_valkey() as server:
        yield server


class Fleet:
    """Two replicas with one Redis and one folder of pictures, and what a load balancer's clients do with them."""

    def __init__(self, folder: Path, simulator: Simulator, store: Valkey) -> None:
        self.store = store
        _, self.key = asyncio.run(with_keys(store.url, lambda keys: keys.create("test")))
        config = folder / "gateway.yaml"
        config.write_text(yaml.safe_dump(catalogue_of(simulator.url, LEASE)))
        (folder / "pictures").mkdir()
        self._folder = folder
        self._env = {
            **ENV,
            "GATEWAY_CONFIG": str(config),
            "GATEWAY_REDIS_URL": store.url,
            "GATEWAY_KEY_PEPPER": SECRETS.pepper.decode(),
            "GATEWAY_SIGNING_KEY": SECRETS.signing_key.decode(),
            "GATEWAY_STORAGE_URL": (folder / "pictures").as_uri(),
            "GATEWAY_DRAIN_S": "20",
        }
        self.replicas = [self._start(name, "0") for name in ("one", "other")]
        self.urls = [replica.wait_ready().url for replica in self.replicas]

    def _start(self, name: str, port: str) -> Gateway:
        return Gateway(self._folder / name, ("--port", port), **self._env)

    def restart(self, number: int) -> None:
        """End a replica as a deploy does, and start it again at the same address."""
        replica = self.replicas[number]
        assert replica.end(within=20) == 0, replica.err
        port = self.urls[number].rpartition(":")[2]
        replica.close()
        self.replicas[number] = self._start(replica.data.name, port)
        self.replicas[number].wait_ready()

    def ask(self, client: httpx.Client, **fields: Any) -> httpx.Response:
        """A picture, by a client that tries again wherever it is sent to, as the SDKs do."""
        for count, url in zip(range(TRIES), itertools.cycle(self.urls), strict=False):
            headers = {"authorization": f"Bearer {self.key}", "x-stainless-retry-count": str(count)}
            with contextlib.suppress(httpx.TransportError):
                answer = client.post(url + GENERATIONS, json=small(**fields), headers=headers)
                if answer.status_code == 200:
                    return answer
                assert answer.status_code in (503, 504), answer.text
            # The SDKs' own pause.
            time.sleep(0.3)
        raise AssertionError(f"no picture in {TRIES} tries")

    def spent(self) -> Spent:
        standings = asyncio.run(with_ledger(self.store.url, lambda ledger: ledger.look()))
        (found,) = [one for one in standings.spent if one.scope == "everyone" and one.window == "total"]
        return found

    def close(self) -> None:
        for replica in self.replicas:
            replica.close()


@pytest.fixture
def fleet(tmp_path: Path, simulator: Simulator, store: Valkey) -> Iterator[Fleet]:
    found = Fleet(tmp_path, simulator, store)
    yield found
    found.close()


def test_rolling_restart_loses_nothing(fleet: Fleet, simulator: Simulator) -> None:
    """Two replicas are restarted in turn under load: each request gets its picture, bought and charged once."""
    simulator.fault("latency", seconds=0.7, times=None)
    simulator.fault("pad", bytes=100_000, times=None)
    numbers, is_rolled = itertools.count(), threading.Event()
    asked: list[str] = []

    def work() -> None:
        with httpx.Client(timeout=30, trust_env=False, verify=False) as client:
            while (number := next(numbers)) < LEAST * ROUNDS or not is_rolled.is_set():
                prompt = f"cat {number}"
                fleet.ask(client, prompt=prompt, model=(OFFICIAL, TASKS)[number % 2], size="1024x1024")
                asked.append(prompt)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        working = [threads.submit(work) for _ in range(AT_ONCE)]
        try:
            for _ in range(ROUNDS):
                for number in (0, 1):
                    fleet.restart(number)
        finally:
            is_rolled.set()
        for each in working:
            each.result()
    book = [one for one in simulator.book() if not one["refunded"]]
    assert sorted(one["prompt"] for one in book) == sorted(asked)
    assert len(asked) >= LEAST * ROUNDS
    until(lambda: fleet.spent().usd_held == 0, what="the last settlement")
    spent = fleet.spent()
    assert (spent.usd_posted, spent.usd_presumed) == (sum(parse_usd(one["price_usd"]) for one in book), 0)


def worker_of(connection: socket.socket, run: Gateway) -> int:
    """The worker that accepted a connection."""
    ours = f"{connection.getsockname()[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    socket_of = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{ours}")}
    for pid, command in children(run.process.pid).items():
        with contextlib.suppress(OSError):
            links = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
            if "gateway.server.worker" in command and links & socket_of:
                return pid
    raise AssertionError("no worker has it")


def test_retry_waits_for_a_worker_that_stands_still(tmp_path: Path, simulator: Simulator) -> None:
    """A retry at another worker, while its first try's cannot hear that its caller has left, is no second purchase."""
    simulator.fault("latency", seconds=1.2, times=None)
    options = ("--demo", "--port", "0", "--workers", "2")
    with gateway(tmp_path / "data", *options, GATEWAY_SIMULATOR_URL=simulator.url) as run, ThreadPoolExecutor(1) as one:
        address, body = run.url.removeprefix("http://").split(":"), json.dumps(small()).encode()
        head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {run.demo_key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection((address[0], int(address[1])), timeout=10) as connection:
            connection.sendall(head.encode() + body)
            until(simulator.book, what="the submission")
            worker = worker_of(connection, run)
            os.kill(worker, signal.SIGSTOP)
        try:
            headers = {"authorization": f"Bearer {run.demo_key}", "x-stainless-retry-count": "1"}
            retry = one.submit(
                httpx.post,
                run.url + GENERATIONS,
                json=small(),
                headers=headers,
                timeout=20,
                trust_env=False,
                verify=False,
            )
            # Long enough for a retry that does not wait to be bought.
            wait({retry}, timeout=1)
        finally:
            os.kill(worker, signal.SIGCONT)
        answer = retry.result()
        assert (answer.status_code, answer.headers.get("x-gateway-joined")) == (200, "1")
        assert len(simulator.book()) == 1


def test_workers_share_their_tasks(tmp_path: Path, simulator: Simulator) -> None:
    """Of two workers of one gateway either answers the retry of what the other began; a stop waits for paid calls."""
    simulator.fault("latency", seconds=1.2, times=None)
    simulator.fault("pad", bytes=100_000, times=None)
    options = ("--demo", "--port", "0", "--workers", "2")
    env = {"GATEWAY_SIMULATOR_URL": simulator.url, "GATEWAY_DRAIN_S": "20"}
    with gateway(tmp_path / "data", *options, **env) as run, ThreadPoolExecutor(12) as threads:
        auth = {"authorization": f"Bearer {run.demo_key}"}

        def ask(prompt: str, **headers: str) -> httpx.Response:
            # A connection of its own, so that either worker may get it.
            fields = small(prompt=prompt, size="1024x1024")
            return httpx.post(
                run.url + GENERATIONS, json=fields, headers=auth | headers, timeout=20, trust_env=False, verify=False
            )

        def ask_twice(number: int) -> str:
            hurried = {"x-stainless-read-timeout": "0.4", "x-stainless-retry-count": "0"}
            assert ask(f"cat {number}", **hurried).status_code == 504
            again = ask(f"cat {number}", **{"x-stainless-retry-count": "1"})
            assert (again.status_code, again.headers["x-gateway-joined"]) == (200, "1")
            return again.headers["x-gateway-task"]

        assert len(set(threads.map(ask_twice, range(12)))) == 12
        last = threads.submit(ask, "the last cat")
        until(lambda: len(simulator.book()) == 13, what="the last submission")
        assert run.end(within=20) == 0
        assert last.result().status_code == 200
    assert len(simulator.book()) == 13
