"""A retry whose first request was at a worker that died: it gets what that worker came to, at any replica."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway import errors
from gateway.ids import new_id
from gateway.jobs.job import ImageJob, Size, take_fingerprint
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Admitted, LedgerAnswer, Opening, Settled
from gateway.state.task_store import Promise, TaskImage, TaskRecord
from tests.api.test_joining import RETRY, pictures_of
from tests.support.gateways import OFFICIAL, Gateway, Gateways, error_of
from tests.support.simulators import wait_until
from tests.support.store_reader import keep_error, open_tasks, with_ledger

DEAD_IN_US = 300_000
TIMES = {"timeouts": {"connect": 0.2, "call": 0.3}}
FINGERPRINT = take_fingerprint(ImageJob("generation", "a cat", size=Size(1024, 640)), OFFICIAL, None)


@pytest.fixture
def heir(gateways: Gateways) -> Gateway:
    """A gateway that soon takes over what a dead worker left."""
    upstreams = dict.fromkeys(("anyfast", "anyfast-c", "apiany"), TIMES)
    return gateways.open(accounting={"lease": 0.6}, upstreams=upstreams, join={"look_every": 0.1})


def bequeath(heir: Gateway, *, is_sent: bool, made: TaskImage | None = None, doubt: str = "") -> str:
    """A task of a worker that lives a moment longer: opened, perhaps sent, perhaps with its image stored and paid.

    `doubt` is what was found out of its call, which is not whether it was billed.
    """
    assert heir.record is not None
    key, task, call, worker = heir.record.id, new_id("task"), new_id("call"), new_id("worker")

    async def write(ledger: Ledger) -> None:
        await ledger.renew(worker, DEAD_IN_US)
        assert isinstance(await ledger.open(Opening(task, key, FINGERPRINT, 30_000, 1, worker)), Admitted)
        if is_sent:
            assert await ledger.mark_sent(task, call, (0,), 30_000, 1) is LedgerAnswer.HELD
        if made:
            assert isinstance(await ledger.post(task, call, 30_000, 1), Settled)
        await ledger.leave(task, task, "left")

    async def promise() -> None:
        async with open_tasks(heir.store_url) as store:
            await store.open(TaskRecord(id=task, promise=Promise(key=key, operation="generation", n=1, created=1)))
            if made:
                await store.add(task, [made])

    asyncio.run(promise())
    asyncio.run(with_ledger(heir.store_url, write))
    if doubt:
        error = errors.UpstreamOutcomeUnknown(doubt, should_retry=False)
        asyncio.run(keep_error(heir.store_url, task, call, error.to_facts()))
    return task


def retry(heir: Gateway, task: str) -> httpx.Response:
    answer = heir.generate(headers=RETRY)
    if answer.status_code != 200 or "x-gateway-joined" in answer.headers:
        assert answer.headers["x-gateway-task"] == task
    return answer


def test_unsent_work_is_begun_anew(heir: Gateway) -> None:
    """A retry that joined a task whose worker died before it sent anything begins it anew, once."""
    task = bequeath(heir, is_sent=False)
    answer = retry(heir, task)
    assert pictures_of(answer)
    assert "x-gateway-joined" not in answer.headers
    assert len(heir.simulator.book()) == 1
    lost = heir.get(f"/v1/tasks/{task}").json()
    assert (lost["status"], lost["cost_usd"], lost["error"]["code"]) == ("failed", "0.000000", "upstream_unavailable")


def test_sent_work_is_never_sent_again(heir: Gateway) -> None:
    """A retry of what a dead worker had sent hears that its outcome is unknown, and nothing is sent.

    It hears so at once, though its price is held until an answer can no longer come.
    """
    answer = retry(heir, bequeath(heir, is_sent=True))
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_outcome_unknown")
    assert not heir.simulator.paid()
    wait_until(lambda: heir.spent().usd_presumed == 30_000, "the resolver")
    assert heir.spent().usd_held == 0


def test_what_was_found_out_is_told(heir: Gateway) -> None:
    """A retry of what was looked for at its vendor in vain hears that, not only that its process ended."""
    answer = retry(heir, bequeath(heir, is_sent=True, doubt="The upstream's task expired; it may have been billed."))
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_outcome_unknown")
    assert "task expired" in error_of(answer)["message"]
    assert not heir.simulator.paid()


def test_stored_picture_is_delivered(heir: Gateway) -> None:
    """A retry of what a dead worker had stored and paid gets that picture."""
    first = heir.generate(prompt="another cat")
    made = asyncio.run(_read_made(heir, first.headers["x-gateway-task"]))
    answer = retry(heir, bequeath(heir, is_sent=True, made=made))
    assert pictures_of(answer) == pictures_of(first)
    assert len(heir.simulator.book()) == 1


async def _read_made(gateway: Gateway, task: str) -> TaskImage:
    async with open_tasks(gateway.store_url) as store:
        found = await store.read(task)
    assert found is not None
    return found.images[0]
