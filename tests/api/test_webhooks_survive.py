"""A message survives what a gateway does not: kill -9, a dead worker, Redis away; replicas do not double it."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.ids import new_id
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Admitted, Opening
from gateway.state.task_store import Hook, Promise, TaskRecord, TaskStore
from gateway.store.client import CommandQueue, connect
from gateway.tasks.webhook_signature import make_secret
from tests.api.test_tasks import ASYNC
from tests.conftest import Valkey
from tests.support.gateways import GENERATIONS, TASKS, Gateway, catalogue_of, serve, small
from tests.support.processes import gateway as served_by_processes
from tests.support.simulators import Simulator, wait_until
from tests.support.store_reader import SECRETS, with_ledger
from tests.support.webhook_receiver import Receiver

QUICK = {"retries": [0.05] * 10, "timeout": 0.4, "look_every": 0.1}
DEAD_IN_US = 300_000


def changes_for(receiver: Receiver, **rules: object) -> dict[str, object]:
    return {"webhooks": {**QUICK, "origins": [receiver.origin], **rules}}


@pytest.mark.slow
def test_killed_gateway_tells_after_its_start(tmp_path: Path, simulator: Simulator, receiver: Receiver) -> None:
    """A gateway that is killed while it tells a receiver tells it again after its start, the same under the same id."""
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump(catalogue_of(simulator.url, changes_for(receiver))))
    env = {"GATEWAY_CONFIG": str(config), "GATEWAY_SIMULATOR_URL": simulator.url}
    with served_by_processes(tmp_path / "data", "--demo", "--port", "0", **env) as run:
        receiver.hold.set()
        headers = {"authorization": f"Bearer {run.demo_key}", "X-Gateway-Webhook": receiver.url, **ASYNC}
        httpx.post(run.url + GENERATIONS, json=small(), headers=headers).raise_for_status()
        receiver.wait()
        run.end(signal.SIGKILL)
    receiver.hold.clear()
    known = len(receiver.told)
    with served_by_processes(tmp_path / "data", "--demo", "--port", "0", **env):
        told = receiver.wait(known + 1)
    assert len({(one.id, one.body) for one in told}) == 1
    assert told[-1].facts["type"] == "image.task.succeeded"


def test_dead_workers_task_is_told(simulator: Simulator, lone_valkey: Valkey, receiver: Receiver) -> None:
    """The end that an heir writes for a dead worker is told too, once, though several gateways might be the heir."""
    lone_valkey.flush()
    changes = {"accounting": {"lease": 0.6}, **changes_for(receiver)}
    with ExitStack() as stack:
        heir, _ = (stack.enter_context(serve(simulator, lone_valkey.url, changes)) for _ in range(2))
        record, _ = heir.new_key()
        task = asyncio.run(bequeath(heir, record.id, receiver.url))
        (told,) = receiver.wait()
        facts = told.verify(make_secret(SECRETS.signing_key, record.id, 1))
        assert (facts["type"], facts["data"]["task_id"]) == ("image.task.failed", task)
        assert facts["data"]["error"]["code"] == "upstream_unavailable"
        wait_until(lambda: not keys_of_webhooks(heir.store_url), "the end of the delivery")
    assert len(receiver.told) == 1


async def bequeath(heir: Gateway, key: str, url: str) -> str:
    """A promised task of a worker that dies before it sends anything."""
    task, worker = new_id("task"), new_id("worker")

    async def open_hold(ledger: Ledger) -> None:
        await ledger.renew(worker, DEAD_IN_US)
        assert isinstance(await ledger.open(Opening(task, key, "f" * 64, 30_000, 1, worker)), Admitted)

    redis, command_queue = connect(heir.store_url), CommandQueue(heir.store_url)
    promise = Promise(key=key, operation="generation", model=TASKS, n=1, created=1)
    hook = Hook(id=new_id("msg"), key=key, url=url, base_url=heir.url)
    await TaskStore(redis, command_queue).open(TaskRecord(id=task, promise=promise), hook)
    await command_queue.aclose()
    await redis.aclose()
    await with_ledger(heir.store_url, open_hold)
    return task


def keys_of_webhooks(store_url: str) -> list[str]:
    async def look() -> list[str]:
        redis = connect(store_url)
        try:
            return [name async for name in redis.scan_iter("{igw}:webhook*")]
        finally:
            await redis.aclose()

    return asyncio.run(look())


def test_end_without_redis_is_told_later(simulator: Simulator, lone_valkey: Valkey, receiver: Receiver) -> None:
    """A task that ends while Redis is away is told once Redis is back, once."""
    lone_valkey.flush()
    with serve(simulator, lone_valkey.url, changes_for(receiver)) as gateway:
        gateway.record, gateway.key = gateway.new_key()
        simulator.fault("latency", seconds=0.4)
        gateway.generate(headers=ASYNC | {"X-Gateway-Webhook": receiver.url})
        wait_until(simulator.book, "the submission")
        lone_valkey.kill()
        try:
            wait_until(lambda: gateway.services.pending_posts.is_behind, "the end that cannot be written")
        finally:
            lone_valkey.start()
        assert receiver.wait()[0].facts["type"] == "image.task.succeeded"
        wait_until(lambda: not keys_of_webhooks(gateway.store_url), "the end of the delivery")
        assert len(receiver.told) == 1


def test_replicas_tell_once(simulator: Simulator, lone_valkey: Valkey, receiver: Receiver) -> None:
    """While nobody dies, two replicas that look for the same messages tell each of them once, refused ones again."""
    lone_valkey.flush()
    with ExitStack() as stack:
        replicas = [stack.enter_context(serve(simulator, lone_valkey.url, changes_for(receiver))) for _ in range(2)]
        _, key = replicas[0].new_key()
        receiver.answer(*[500] * 5)
        headers = ASYNC | {"X-Gateway-Webhook": receiver.url}
        for replica in replicas:
            replica.key = key
        with ThreadPoolExecutor(4) as pool:
            asked = list(pool.map(lambda number: replicas[number % 2].generate(headers=headers).json(), range(12)))
        receiver.wait(12 + 5)
        wait_until(lambda: not keys_of_webhooks(lone_valkey.url), "the end of the deliveries")
        told = receiver.told
    assert {one.facts["data"]["task_id"] for one in told} == {one["task_id"] for one in asked}
    assert (len(told), len({one.id for one in told})) == (17, 12)
