"""Redis away, through the HTTP API: spending closes at once, what runs is finished and booked, and it opens by itself.

The judge is the simulator's book: what the ledger has posted in the end is what was bought, and nothing is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from gateway.store import embedded
from tests.conftest import Valkey
from tests.support.gateways import GENERATIONS, VARIANT, Gateway, Simulator, error_of, serve, small, wait_until
from tests.support.ledgers import Store, is_soak
from tests.support.lossy_proxy import LossyProxy, lossy_proxy
from tests.support.processes import gateway as served_by_processes
from tests.support.redis_fleets import Sentinels, folder_for_servers

AWAY_S = 1.5
"""The longest that a refusal may take, in seconds."""


def tell(valkey: Valkey, *lines: str) -> None:
    for line in lines:
        assert embedded.ask(valkey.socket, f"{line}\r\n".encode(), wait_s=5) == b"+OK\r\n", line


@contextlib.contextmanager
def told(valkey: Valkey, line: str, after: str) -> Iterator[None]:
    tell(valkey, line)
    try:
        yield
    finally:
        tell(valkey, after)


@contextlib.contextmanager
def dead(valkey: Valkey) -> Iterator[None]:
    valkey.kill()
    try:
        yield
    finally:
        valkey.start()


WAYS: dict[str, Callable[[Valkey], AbstractContextManager[None]]] = {
    "killed": dead,
    "stopped": Valkey.paused,
    "holding back": lambda valkey: told(valkey, "CLIENT PAUSE 60000 WRITE", "CLIENT UNPAUSE"),
    "read-only": lambda valkey: told(valkey, "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "full": lambda valkey: told(valkey, "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
}


def buy(gateway: Gateway) -> httpx.Response:
    return gateway.generate(model=VARIANT)


def assert_closed(gateway: Gateway) -> None:
    """A request that would cost money is refused in time, as it should be."""
    began = time.monotonic()
    answer = buy(gateway)
    assert time.monotonic() - began < AWAY_S
    assert (answer.status_code, error_of(answer)["code"]) == (503, "quota_store_unavailable")
    assert answer.headers["retry-after"] == "5"


def assert_right(gateway: Gateway) -> None:
    """Once all is booked, what was posted is what was bought, and nothing is held."""
    gateway.settle()
    wait_until(lambda: not gateway.services.pending_posts.is_behind, "the last booking", 10)
    spent = gateway.spent()
    assert (spent.usd_posted, spent.usd_presumed, spent.usd_held) == (gateway.booked(), 0, 0)
    assert (spent.images_posted, spent.images_held) == (len(gateway.simulator.book()), 0)


@contextlib.contextmanager
def bought_meanwhile(gateway: Gateway) -> Iterator[Future[httpx.Response]]:
    """A picture that is paid for when the block begins, and is made in it."""
    gateway.simulator.fault("latency", seconds=0.7)
    before = len(gateway.simulator.book())
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(buy, gateway)
        wait_until(lambda: len(gateway.simulator.book()) > before, "the purchase")
        yield answer


@pytest.mark.parametrize("way", WAYS)
def test_spending_closes_and_opens_again(gateway: Gateway, valkey: Valkey, way: str) -> None:
    """However Redis fails: refusals within 1.5 s, the paid picture arrives, other routes answer, and it goes on."""
    assert buy(gateway).status_code == 200
    with bought_meanwhile(gateway) as running, WAYS[way](valkey):
        assert_closed(gateway)
        assert gateway.get("/healthz").status_code == 200
        assert gateway.get("/readyz").json()["problems"] == {"redis": "unavailable"}
        assert gateway.get("/v1/models").status_code == 200
        assert_closed(gateway)
        assert running.result(timeout=10).status_code == 200
    wait_until(lambda: buy(gateway).status_code == 200, "the end of the outage", 10)
    assert len(gateway.simulator.book()) == 3
    assert_right(gateway)


@pytest.mark.parametrize("kills", [20 if is_soak() else 3])
def test_killed_again_and_again(gateway: Gateway, valkey: Valkey, kills: int) -> None:
    """Redis dies in the middle of many purchases, several times: nothing is bought twice, and all is booked."""
    answers: list[httpx.Response] = []
    is_over = threading.Event()

    def keep_buying() -> None:
        while not is_over.is_set():
            answers.append(buy(gateway))

    with ThreadPoolExecutor(4) as pool:
        buyers = [pool.submit(keep_buying) for _ in range(4)]
        try:
            for _ in range(kills):
                good = sum(answer.status_code == 200 for answer in answers) + 5
                wait_until(lambda: sum(one.status_code == 200 for one in answers) >= good, "purchases", 15)  # noqa: B023
                valkey.kill()
                wait_until(lambda: answers[-1].status_code == 503, "the refusals")
                valkey.start()
        finally:
            is_over.set()
        for buyer in buyers:
            buyer.result()
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = {error_of(answer)["code"] for answer in answers if answer.status_code == 503}
    assert refused == {"quota_store_unavailable"}
    assert sum(answer.status_code == 200 for answer in answers) == len(gateway.simulator.book())
    assert_right(gateway)


def test_embedded_server_comes_back(tmp_path: Path, simulator: Simulator) -> None:
    """An embedded server that is killed three times under load costs no restart, no picture and no micro-dollar."""
    answers: list[int] = []
    is_over = threading.Event()
    with served_by_processes(tmp_path, GATEWAY_SIMULATOR_URL=simulator.url) as run:
        body, auth = small(model="gpt-image-2"), {"authorization": f"Bearer {run.demo_key}"}

        def keep_buying() -> None:
            with httpx.Client(base_url=run.url, timeout=30, trust_env=False, verify=False) as client:
                while not is_over.is_set():
                    answers.append(client.post(GENERATIONS, json=body, headers=auth).status_code)

        with ThreadPoolExecutor(2) as pool:
            buyers = [pool.submit(keep_buying) for _ in range(2)]
            try:
                for _ in range(3):
                    good = answers.count(200) + 2
                    wait_until(lambda: answers.count(200) >= good, "purchases", 20)  # noqa: B023
                    killed = run.child("valkey-server")
                    os.kill(killed, signal.SIGKILL)
                    wait_until(lambda: run.child("valkey-server") != killed, "the server's return", 20)  # noqa: B023
                    assert run.status("/healthz") == 200
                good = answers.count(200) + 2
                wait_until(lambda: answers.count(200) >= good, "purchases", 20)
            finally:
                is_over.set()
            for buyer in buyers:
                buyer.result()
        assert set(answers) <= {200, 503}
        bought = len(simulator.book())
        assert bought == answers.count(200)
        store = Store(embedded.url_of(run.data / "valkey.sock"))
        wait_until(lambda: store.window("everyone", "total").get("images_posted") == bought, "the last booking", 10)
        assert not {"usd_held", "images_held", "usd_presumed"} & set(store.window("everyone", "total"))
        store.close()


@pytest.mark.soak
@pytest.mark.skipif(not is_soak(), reason="part of the soak profile")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_failover_is_survived(simulator: Simulator, end: signal.Signals) -> None:
    """A replica takes the place of a master that died or is cut off: the gateway buys on, and books every purchase."""
    answers: list[int] = []
    is_over = threading.Event()
    with folder_for_servers() as folder, contextlib.closing(Sentinels(folder, replicas=2)) as sentinels:
        outside = {"redis_url": sentinels.url, "redis_wait_replicas": 1}
        with serve(simulator, sentinels.url, settings=outside) as gateway:
            gateway.record, gateway.key = gateway.new_key()

            def keep_buying() -> None:
                while not is_over.is_set():
                    answers.append(buy(gateway).status_code)

            with ThreadPoolExecutor(4) as pool:
                buyers = [pool.submit(keep_buying) for _ in range(4)]
                try:
                    wait_until(lambda: answers.count(200) >= 5, "purchases", 15)
                    sentinels.master.process.send_signal(end)
                    assert sentinels.chosen() is not sentinels.master
                    good = answers.count(200) + 5
                    wait_until(lambda: answers.count(200) >= good, "purchases at the new master", 15)
                finally:
                    is_over.set()
                for buyer in buyers:
                    buyer.result()
            sentinels.master.kill()
            assert set(answers) <= {200, 503}
            assert len(simulator.book()) == answers.count(200)
            assert_right(gateway)


def test_forgotten_scripts_are_sent_again(gateway: Gateway, valkey: Valkey) -> None:
    """A server that has forgotten every script, before and in the middle of a purchase, costs nobody an error."""
    tell(valkey, "SCRIPT FLUSH")
    assert buy(gateway).status_code == 200
    with bought_meanwhile(gateway) as running:
        tell(valkey, "SCRIPT FLUSH")
        assert running.result(timeout=10).status_code == 200
    assert_right(gateway)


class ProxyThread:
    """A lossy door with a loop of its own, before which a whole gateway may stand."""

    def __init__(self, valkey: Valkey, every: int) -> None:
        self.path = valkey.folder / "away.sock"
        self._inside = valkey.socket
        self._every = every
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._keep_open()), name="door")
        self._thread.start()
        assert self._ready.wait(5)

    async def _keep_open(self) -> None:
        self._closing = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with lossy_proxy(self._inside, self.path, self._every) as self.concurrency_queue:
            self._ready.set()
            await self._closing.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def lossy(simulator: Simulator, valkey: Valkey) -> Iterator[tuple[Gateway, LossyProxy]]:
    """A gateway that loses every fourth answer of its Redis, together with the connection."""
    proxy = ProxyThread(valkey, every=4)
    with serve(simulator, f"unix://{proxy.path}") as gateway:
        # The test's own questions go past the door.
        gateway.store_url = valkey.url
        gateway.record, gateway.key = gateway.new_key()
        yield gateway, proxy.concurrency_queue
    proxy.close()


def test_lost_replies_cost_nothing(lossy: tuple[Gateway, LossyProxy]) -> None:
    """Lost replies, one after another: each purchase is paid for and posted once, each refusal left nothing behind."""
    gateway, proxy = lossy
    answers: list[httpx.Response] = []

    def keep_buying() -> None:
        while proxy.lost < (1000 if is_soak() else 30):
            answers.append(buy(gateway))

    with ThreadPoolExecutor(8) as pool:
        for buyer in [pool.submit(keep_buying) for _ in range(8)]:
            buyer.result()
    assert {answer.status_code for answer in answers} <= {200, 503}
    refused = {error_of(answer)["code"] for answer in answers if answer.status_code == 503}
    assert refused <= {"quota_store_unavailable"}
    bought = sum(answer.status_code == 200 for answer in answers)
    assert bought == len(gateway.simulator.book()) > 0
    assert_right(gateway)
