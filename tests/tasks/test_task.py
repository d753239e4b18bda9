"""Work that outlives its request: it ends, it is written down, and every wait gets the ending."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway import errors
from gateway.callers.auth import Caller
from gateway.catalogue.catalogue import Catalogue
from gateway.delivery.dispatch import Outcome
from gateway.errors import PublicError
from gateway.jobs.job import ImageJob, Size
from gateway.pictures.spool import StorageFullError
from gateway.pipeline import work
from gateway.routing.plan import Plan, plan
from gateway.services import Services
from gateway.state.task_store import End, Promise, TaskImage, TaskRecord
from gateway.tasks.task import (
    Delivered,
    Failed,
    PartlyDelivered,
    Refused,
    StillRunning,
    Task,
    TaskSpec,
    name_ending,
    open_task,
    wait_for,
)
from tests.conftest import Valkey
from tests.support.gateways import OFFICIAL, VARIANT, Gateway, Simulator, serve, wait_until

JOB = ImageJob("generation", "a cat", size=Size(1024, 640))
NOTHING = Plan((), ())


def caller_of(gateway: Gateway) -> Caller:
    assert gateway.record is not None
    return Caller(gateway.record)


def plan_of(job: ImageJob, model: str, catalogue: Catalogue) -> Plan:
    found = catalogue.find_model(model)
    assert found is not None
    return plan(job, model, found[0], catalogue)


class BreakingStore:
    """A store of artifacts that breaks, in a way nobody foresaw, at the second picture."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._puts = 0

    def describe(self, picture: Any) -> Any:
        return self._inner.describe(picture)

    async def put(self, picture: Any, artifact: Any) -> Any:
        self._puts += 1
        if self._puts == 2:
            raise RuntimeError("nobody foresaw this")
        return await self._inner.put(picture, artifact)

    async def close(self) -> None:
        await self._inner.close()


class FullUpstream:
    """An upstream whose preparation finds the disk full."""

    async def prepare(self, job: ImageJob, spool: Any) -> Any:
        raise StorageFullError("No space left on device")


async def test_fault_of_ours_ends_the_wait(services: Services, gateway: Gateway) -> None:
    """Work that breaks off ends the wait with an error, and a failed task in the store; never a hang."""

    async def break_off(task: Task) -> Outcome:
        raise RuntimeError("nobody foresaw this")

    spool = services.new_spool()
    task = await open_task(services, caller_of(gateway), TaskSpec(JOB, NOTHING), spool, break_off)
    ending = await wait_for(task, 5)
    assert isinstance(ending, Refused)
    assert ending.error.status == 500
    assert ending.error.should_retry is False
    assert spool.is_closed
    record = await services.task_store.read(task.task)
    assert record is not None
    assert record.end is not None
    assert record.end.status == "failed"
    assert record.end.error is not None
    assert record.end.error["kind"] == "InternalError"


async def test_waiter_may_leave(services: Services, gateway: Gateway) -> None:
    """A wait that ends, by time or by cancellation, ends nothing but itself."""
    may_end = asyncio.Event()

    async def linger(task: Task) -> Outcome:
        await may_end.wait()
        return Outcome()

    task = await open_task(services, caller_of(gateway), TaskSpec(JOB, NOTHING), services.new_spool(), linger)
    assert await wait_for(task, 0.01) == StillRunning(task.task)
    waiter = asyncio.create_task(wait_for(task, 5))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    may_end.set()
    assert isinstance(await wait_for(task, 5), Delivered)


async def test_wait_ends_with_its_work(services: Services, gateway: Gateway) -> None:
    """A wait ends at once when a shutdown cuts off the work that it waits for."""

    async def linger(task: Task) -> Outcome:
        await asyncio.Event().wait()
        return Outcome()

    task = await open_task(services, caller_of(gateway), TaskSpec(JOB, NOTHING), services.new_spool(), linger)
    waiter = asyncio.create_task(wait_for(task, 600))
    await asyncio.sleep(0)
    services.shutdown.begin()
    services.running[task.task].cancel()
    async with asyncio.timeout(30):
        assert await waiter == StillRunning(task.task)


async def test_lost_store_at_end_delivers(services: Services, gateway: Gateway, valkey: Valkey) -> None:
    """When the store goes away under a running task, its images are delivered all the same."""
    may_end = asyncio.Event()

    async def linger(task: Task) -> Outcome:
        await may_end.wait()
        return Outcome()

    task = await open_task(services, caller_of(gateway), TaskSpec(JOB, NOTHING), services.new_spool(), linger)
    with valkey.paused():
        may_end.set()
        assert isinstance(await wait_for(task, 4), Delivered)


async def test_lost_store_starts_nothing(services: Services, gateway: Gateway, valkey: Valkey) -> None:
    """A task that cannot be written down is not started, and its spool stays the caller's."""

    async def never(task: Task) -> Outcome:
        raise AssertionError("work without a record")

    spool = services.new_spool()
    with valkey.paused(), pytest.raises(errors.QuotaStoreUnavailable):
        await open_task(services, caller_of(gateway), TaskSpec(JOB, NOTHING), spool, never)
    assert not spool.is_kept
    assert not services.running
    await services.pending_posts.wait()
    assert (await services.ledger.look()).spent[0].usd_held == 0
    await spool.close()


async def test_unmarked_call_is_not_sent(services: Services, gateway: Gateway, valkey: Valkey) -> None:
    """When the store goes away between a task's start and its paid call, the call is not made."""
    job = replace(JOB, n=3)
    wanted = plan_of(job, VARIANT, services.catalogue)
    may_go = asyncio.Event()

    async def wait_and_work(task: Task) -> Outcome:
        await may_go.wait()
        return await work(task)

    task = await open_task(services, caller_of(gateway), TaskSpec(job, wanted), services.new_spool(), wait_and_work)
    with valkey.paused():
        may_go.set()
        ending = await wait_for(task, 8)
    assert isinstance(ending, Refused)
    assert isinstance(ending.error, errors.QuotaStoreUnavailable)
    assert not gateway.simulator.paid()


async def test_one_lost_picture_spares_the_rest(services: Services, gateway: Gateway) -> None:
    """A fault nobody foresaw at one picture leaves the others delivered."""
    breaking = replace(services, artifacts=BreakingStore(services.artifacts))  # type: ignore[arg-type]
    job = replace(JOB, n=3)
    wanted = plan_of(job, OFFICIAL, services.catalogue)
    task = await open_task(breaking, caller_of(gateway), TaskSpec(job, wanted), services.new_spool(), work)
    await asyncio.wait(breaking.running.values())
    ending = await wait_for(task, 5)
    assert isinstance(ending, PartlyDelivered)
    assert [image.slot for image in ending.record.images] == [0, 2]
    assert len(gateway.simulator.book()) == 1


async def test_full_disk_sends_nothing(services: Services, gateway: Gateway) -> None:
    """When the disk is full before the paid call, nothing is sent to anybody and the caller may come back."""
    full = replace(services, upstreams={label: FullUpstream() for label in services.upstreams})  # type: ignore[arg-type,misc]
    wanted = plan_of(JOB, "gpt-image-2", services.catalogue)
    task = await open_task(full, caller_of(gateway), TaskSpec(JOB, wanted), services.new_spool(), work)
    ending = await wait_for(task, 5)
    assert isinstance(ending, Refused)
    assert isinstance(ending.error, errors.StorageFull)
    assert not gateway.simulator.log()


@pytest.mark.parametrize(
    ("images", "calls", "is_whole", "name"),
    [(1, 1, True, Delivered), (1, 1, False, PartlyDelivered), (0, 0, False, Refused), (0, 1, False, Failed)],
)
def test_endings_have_names(images: int, calls: int, is_whole: bool, name: type) -> None:
    """How a task ended is told by whether images came, and whether any may have been billed."""
    made = tuple(make_image(slot) for slot in range(images))
    error = None if is_whole else PublicError("no").to_facts()
    end = End(status="succeeded", completed=1, calls=calls, error=error)
    promise = Promise(key="key", operation="generation", n=2, created=1)
    assert isinstance(name_ending(TaskRecord(id="task", promise=promise, images=made, end=end)), name)


def make_image(slot: int) -> TaskImage:
    size = {"width": 1, "height": 1, "bytes": 1}
    return TaskImage(slot=slot, artifact="img", format="png", created=1, expires=2, upstream="anyfast", **size)


def test_shutdown_waits_for_paid_work(simulator: Simulator, valkey: Valkey) -> None:
    """A stop keeps the process until work that nobody waits for any more is done and written down."""
    simulator.fault("latency", seconds=1)
    with serve(simulator, valkey.url) as gateway:
        gateway.record, gateway.key = gateway.new_key()
        answer = gateway.generate(headers={"x-stainless-read-timeout": "0.5"})
        assert answer.status_code == 504
        wait_until(simulator.book, "the submission")
        task_id = answer.headers["x-gateway-task"]
        assert gateway.read_task(task_id)["status"] == "processing"
    assert gateway.read_task(task_id)["status"] == "succeeded"
    assert not gateway.services.running
