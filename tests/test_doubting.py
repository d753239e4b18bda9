"""A retry at another machine's replica waits for a sign of life from its first try's, or for the end of its time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.crashed import RETRY, Stage, gone
from tests.served import OFFICIAL, TASKS
from tests.stand_in import wait_until


def test_doubt_is_told_in_time(stage: Stage) -> None:
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
