"""The first call of a task, which the opening of the task begins: its permit, its mark, and what undoes them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from gateway import errors
from gateway.callers.auth import Caller
from gateway.delivery.outcome import Outcome
from gateway.health.concurrency_queue import WaitLimit
from gateway.health.health import SCRIPTS as TARGET_SCRIPTS
from gateway.health.health import CallReport, Permit
from gateway.jobs.job import ImageJob, Size
from gateway.pipeline import work
from gateway.routing.plan import Plan, plan
from gateway.services import Services
from gateway.state.task_store import SCRIPTS as TASK_SCRIPTS
from gateway.store.client import Command
from gateway.tasks.task import Delivered, Refused, Task, TaskSpec, open_task, wait_for
from tests.conftest import Valkey
from tests.support.gateways import OFFICIAL, TASKS, VARIANT, Gateway, Gateways

JOB = ImageJob("generation", "a cat", size=Size(1024, 1024))


def spec_of(services: Services, model: str, n: int = 1) -> TaskSpec:
    job, found = replace(JOB, n=n), services.catalogue.find_model(model)
    assert found is not None
    return TaskSpec(job, plan(job, model, found[0], services.catalogue))


async def begin(services: Services, gateway: Gateway, spec: TaskSpec, run: Any = work) -> Any:
    assert gateway.record is not None
    return await open_task(services, Caller(gateway.record), spec, services.new_spool(), run, begins_call=True)


async def states_of(services: Services, task: str) -> list[str]:
    hold = await services.ledger.show(task)
    assert hold is not None
    return sorted(call.state for call in hold.calls)


async def permits_of(services: Services, plan_: Plan) -> int:
    await services.health.reports.wait()
    label = plan_.choices[0].target.label
    return (await services.health.store.look([label]))[label].in_flight


async def assert_nothing_bought(services: Services, gateway: Gateway, spec: TaskSpec, task: str) -> None:
    assert not gateway.simulator.paid()
    assert await states_of(services, task) == ["void"]
    assert await permits_of(services, spec.plan) == 0
    spent = (await services.ledger.look()).spent[0]
    assert (spent.usd_held, spent.usd_presumed, spent.usd_posted) == (0, 0, 0)


@pytest.mark.parametrize("model", [OFFICIAL, VARIANT, TASKS])
@pytest.mark.parametrize("n", [1, 3])
async def test_opening_marks_the_first_call(services: Services, gateway: Gateway, model: str, n: int) -> None:
    """The work finds its first call marked, sends it without another mark, and every image comes once."""
    marked: list[list[str]] = []

    async def look_and_work(task: Task) -> Outcome:
        marked.append(await states_of(services, task.id))
        return await work(task)

    spec = spec_of(services, model, n)
    waiting = await begin(services, gateway, spec, look_and_work)
    ending = await wait_for(waiting, 20)
    assert isinstance(ending, Delivered), ending
    assert marked == [["held"]]
    assert len(ending.record.images) == sum(one["n"] for one in gateway.simulator.book()) == n
    assert set(await states_of(services, waiting.task)) == {"posted"}
    assert await permits_of(services, spec.plan) == 0


@pytest.fixture
def narrow(gateways: Gateways) -> Gateway:
    """A gateway whose variant takes one call at a time."""
    one = [{"key": "env:ANYFAST_C_API_KEY", "group": "direct", "max_concurrent": 1}]
    return gateways.open(upstreams={"anyfast-c": {"credentials": one}})


async def test_full_target_is_asked_again_in_its_turn(narrow: Gateway) -> None:
    """A target without a permit marks nothing; the call waits for its turn, and is sent once."""
    async with narrow.inside() as app:
        services: Services = app.state.services
        spec = spec_of(services, VARIANT)
        taken = await services.health.take(spec.plan.choices[0].target)
        assert isinstance(taken, Permit)
        seen: list[list[str]] = []

        async def look_and_work(task: Task) -> Outcome:
            seen.append(await states_of(services, task.id))
            return await work(task, WaitLimit("key", asyncio.get_running_loop().time() + 20))

        waiting = await begin(services, narrow, spec, look_and_work)
        while not services.concurrency_queue.waiting:
            await asyncio.sleep(0)
        services.concurrency_queue.finish(taken, CallReport("none"))
        ending = await wait_for(waiting, 20)
        assert isinstance(ending, Delivered), ending
        assert seen == [[]]
    assert len(narrow.simulator.book()) == 1


async def test_stop_before_the_first_byte_voids_the_mark(services: Services, gateway: Gateway) -> None:
    """A shutdown between the mark and the call sends nothing, charges nothing, and returns the permit."""

    async def stop_and_work(task: Task) -> Outcome:
        services.shutdown.begin()
        return await work(task)

    spec = spec_of(services, OFFICIAL)
    waiting = await begin(services, gateway, spec, stop_and_work)
    while services.running:
        await asyncio.sleep(0)
    record = await services.task_store.read(waiting.task)
    assert record is not None
    assert record.end is not None
    assert record.end.error is not None
    await assert_nothing_bought(services, gateway, spec, waiting.task)


async def test_unsent_call_is_void_again(services: Services, gateway: Gateway) -> None:
    """Work that ends without the call that its opening marked leaves no charge, no held price and no permit."""

    async def plan_nothing_and_work(task: Task) -> Outcome:
        task.plan = Plan((), ())
        return await work(task)

    spec = spec_of(services, OFFICIAL)
    waiting = await begin(services, gateway, spec, plan_nothing_and_work)
    assert isinstance(await wait_for(waiting, 10), Refused)
    await assert_nothing_bought(services, gateway, spec, waiting.task)


async def test_lost_opening_leaves_nothing_marked(services: Services, gateway: Gateway, valkey: Valkey) -> None:
    """While the store does not answer nothing begins; afterwards no mark, no price and no task is left."""

    async def never(task: Task) -> Outcome:
        raise AssertionError("work without a record")

    spec = spec_of(services, OFFICIAL)
    with valkey.paused(), pytest.raises(errors.QuotaStoreUnavailable):
        await begin(services, gateway, spec, never)
    await services.pending_posts.wait()
    assert (await services.ledger.look()).spent[0].usd_held == 0
    assert [hold for hold in await services.ledger.holds() if hold.is_open] == []


async def test_canceled_opening_leaves_nothing_marked(services: Services, gateway: Gateway, valkey: Valkey) -> None:
    """A request that is canceled while its task opens leaves no open task, no mark and no price."""

    async def never(task: Task) -> Outcome:
        raise AssertionError("work of a canceled request")

    await services.health.look()
    opening = asyncio.create_task(begin(services, gateway, spec_of(services, OFFICIAL), never))
    ran = services.command_queue.run_chain

    async def run_then_cancel(*commands: Any) -> list[Any]:
        services.command_queue.run_chain = ran  # type: ignore[method-assign]
        found = await ran(*commands)
        opening.cancel()
        await asyncio.sleep(0)
        return found

    services.command_queue.run_chain = run_then_cancel  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await opening
    await services.pending_posts.wait()
    assert (await services.ledger.look()).spent[0].usd_held == 0
    assert [hold for hold in await services.ledger.holds() if hold.is_open] == []
    assert not gateway.simulator.paid()


@pytest.mark.parametrize("broken", ["record", "permit", "mark"])
async def test_failed_step_leaves_nothing_begun(services: Services, gateway: Gateway, broken: str) -> None:
    """A step behind the opening that the store refuses closes the task, and leaves no mark, no price and no permit."""

    async def never(task: Task) -> Outcome:
        raise AssertionError("work of a task whose opening failed")

    script = {
        "record": TASK_SCRIPTS["open"],
        "permit": TARGET_SCRIPTS["take"],
        "mark": services.ledger.scripts["mark_sent"],
    }
    ran = services.command_queue.run_chain

    async def run(*commands: Command[Any]) -> list[Any]:
        spoiled = [replace(one, arguments=("?",)) if one.script is script[broken] else one for one in commands]
        return await ran(*spoiled)

    services.command_queue.run_chain = run  # type: ignore[method-assign]
    spec = spec_of(services, OFFICIAL)
    with pytest.raises((ValueError, ResponseError)):
        await begin(services, gateway, spec, never)
    services.command_queue.run_chain = ran  # type: ignore[method-assign]
    await services.pending_posts.wait()
    assert (await services.ledger.look()).spent[0].usd_held == 0
    assert [hold for hold in await services.ledger.holds() if hold.is_open] == []
    assert await permits_of(services, spec.plan) == 0
    assert not services.running
    assert not gateway.simulator.paid()
