"""A retry waits until its first try's replica has renewed its lease, and until callers that disconnected have left."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.callers.auth import Caller
from gateway.jobs.job import Repeat
from gateway.money.ledger_reader import RetryQuery
from gateway.services import Services
from gateway.tasks import retry as retries
from gateway.tasks.wait import CallerConnection, CallerDisconnected
from tests.support.crash_stage import RETRY, Stage, gone
from tests.support.gateways import OFFICIAL, TASKS, Gateway
from tests.support.simulators import wait_until


def test_hurried_retry_is_told_to_wait(stage: Stage) -> None:
    """While the first try's replica may be dead, a hurried retry is told to come back, and buys nothing."""
    record, secret = stage.new_key()
    victim = stage.start("ticket stored", data="far", lease_s=60)
    assert stage.ask(victim, secret, TASKS, record.id) is None
    gone(victim)
    with stage.living(lease_s=60) as other:
        answer = stage.ask(other, secret, TASKS, record.id, headers=RETRY | {"x-stainless-read-timeout": "1"})
    assert answer is not None
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "task_still_running")
    assert answer.headers["x-should-retry"] == "true"
    assert len(stage.bought(record.id)) == 1


def test_equal_request_beside_a_living_one_is_new(stage: Stage) -> None:
    """A retry whose twin is waited for at a replica that lives is a picture of its own."""
    record, secret = stage.new_key()
    with stage.living(data="far") as one, stage.living() as other, ThreadPoolExecutor(1) as thread:
        stage.simulator.fault("latency", seconds=3.0)
        asked = thread.submit(stage.ask, one, secret, OFFICIAL, record.id)
        wait_until(lambda: stage.bought(record.id), "the submission", 20)
        beside, first = stage.ask(other, secret, OFFICIAL, record.id, headers=RETRY), asked.result()
    assert first is not None
    assert beside is not None
    assert (first.status_code, beside.status_code) == (200, 200)
    assert "x-gateway-joined" not in beside.headers
    assert len(stage.bought(record.id)) == 2


async def test_retry_waits_for_disconnected_callers(gateway: Gateway) -> None:
    """A retry opens once each caller that disconnected here has left its task, unless its own disconnects too."""
    assert gateway.record is not None
    async with gateway.inside() as app:
        services: Services = app.state.services
        caller, retry = Caller(gateway.record), Repeat(fingerprint="0" * 64, retry=1)
        leaver, patient, hasty = (CallerConnection(departing=services.departing) for _ in range(3))
        leaver.leave()

        async def wait_to_open(presence: CallerConnection) -> None:
            await retries.wait_to_open(services, caller, retry, presence.gone, 5)

        waits = [asyncio.create_task(wait_to_open(presence)) for presence in (patient, hasty)]
        # Redis is asked the same, and answers in turn.
        for _ in range(3):
            assert (
                await services.ledger.check_first_request(
                    RetryQuery(caller.key.id, retry.fingerprint, services.worker, 1, ()), 0
                )
                is None
            )
        assert not any(wait.done() for wait in waits)
        hasty.leave()
        with pytest.raises(CallerDisconnected):
            await waits[1]
        await leaver.finish(is_whole=False)
        await waits[0]
        await hasty.finish(is_whole=False)
        assert not services.departing
