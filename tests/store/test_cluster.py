"""The Cluster form: a smoke test. Everything lives in one slot, whose owner is found, also after it has moved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from gateway.callers.key_store import KeyStore
from gateway.money.ledger import Ledger, LedgerAnswer
from gateway.process.data_folder import Secrets
from gateway.server.store_checks import StoreRefused, check_store
from gateway.state.task_store import End, Hook, Promise, TaskRecord, TaskStore
from gateway.state.webhook_queue import WebhookQueue
from gateway.store.client import CommandQueue, StoreUnavailable, connect
from gateway.store.names import TAG
from gateway.store.windows import Calendar
from tests.support.ledgers import ZONE, make_id, make_opening
from tests.support.redis_fleets import Cluster, folder_for_servers

pytestmark = pytest.mark.slow

SECRETS = Secrets(pepper=b"p" * 32, signing_key=b"s" * 32)
SLOT = key_slot(TAG.encode())


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with folder_for_servers() as folder:
        made = Cluster(folder)
        yield made
        made.close()


@pytest.fixture
def cluster(nodes: Cluster) -> Cluster:
    """A Cluster without a key in it."""
    nodes.flush()
    return nodes


async def test_whole_life_is_in_one_slot(cluster: Cluster) -> None:
    """Keys and a task's whole life work on a Cluster that is named by a node which does not own the slot."""
    owner = cluster.owner(SLOT)
    others = [node for node in cluster.nodes if node is not owner]
    url = cluster.url(*others)
    await check_store(url, SECRETS, wait_s=2)
    client, command_queue = connect(url), CommandQueue(url)
    keys, ledger = KeyStore(client, SECRETS.pepper), Ledger(command_queue, Calendar(ZONE))
    record, secret = await keys.create("ana")
    assert await keys.lookup(secret) == record
    task, call = make_id("task", 1), make_id("call", 1)
    await ledger.open(make_opening(1, price=10, images=2))
    assert await ledger.raise_price(task, 15, 1) == LedgerAnswer.RAISED
    assert await ledger.mark_sent(task, call, [0], 15, 1) == LedgerAnswer.HELD
    await ledger.post(task, call, 12, 1)
    assert await ledger.close(task, 1) == LedgerAnswer.CLOSED
    ended = TaskRecord(id=task, promise=Promise(key=record.id, operation="generation", n=2, created=1))
    tasks, hook = (
        TaskStore(client, command_queue),
        Hook(id="msg_1", key=record.id, url="https://a.test/", base_url="https://b.test"),
    )
    await tasks.open(ended, hook)
    await tasks.end(ended.with_end(End(status="succeeded", completed=2)))
    found, _ = await WebhookQueue(command_queue).claim(10, 10, ())
    assert [one.id for one in found] == ["msg_1"]
    await client.aclose()
    await command_queue.aclose()
    assert {key_slot(name.encode()) for name in owner.ask("KEYS", "*")} == {SLOT}
    assert not any(node.ask("DBSIZE") for node in others)
    assert owner.ask("HGET", "{igw}:window:everyone:total", "usd_posted") == "12"


async def test_moved_slot_is_followed(cluster: Cluster) -> None:
    """When the slot has another owner, clients that are connected to the old one find it."""
    giver = cluster.owner(SLOT)
    taker = next(node for node in cluster.nodes if node is not giver)
    client = connect(cluster.url(*cluster.nodes))
    assert await client.get("{igw}:nothing") is None
    cluster.hand_over(SLOT, giver, taker)
    async with asyncio.timeout(10):
        while True:
            try:
                await client.set("{igw}:moved", "1")
                break
            except StoreUnavailable:
                await asyncio.sleep(0.02)
    assert taker.ask("GET", "{igw}:moved") == "1"
    await client.aclose()


async def test_node_alone_is_refused(cluster: Cluster) -> None:
    """A Cluster's node that is named like a server of its own is refused, with the form that is right."""
    url = f"redis://127.0.0.1:{cluster.nodes[0].port}"
    with pytest.raises(StoreRefused, match=r"redis\+cluster://"):
        await check_store(url, SECRETS, wait_s=1)
