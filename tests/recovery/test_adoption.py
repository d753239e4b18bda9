"""Adoption: adopters die too, dead workers wake up, and the calls of one task are in several states."""

from __future__ import annotations

import asyncio
import base64
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.money.ledger_results import Hold
from tests.support.crash_stage import RETRY, SIZES, Stage, gone
from tests.support.gateways import ENV, OFFICIAL, TASKS, VARIANT, catalogue_of
from tests.support.processes import Gateway, gateway, imagegate, until
from tests.support.simulators import Simulator, wait_until
from tests.support.store_reader import read_calls

ASLEEP = {"data": "asleep", "lease_s": 2.0, "call_s": 60.0}


def hold_of(stage: Stage, key: str) -> Hold | None:
    """The money side of a key's task, while it may still hold something."""
    holds: list[Hold] = stage.ask_ledger(lambda ledger: ledger.holds())
    return next((one for one in holds if one.key == key), None)


def has_ticket(stage: Stage, key: str) -> bool:
    hold = hold_of(stage, key)
    calls = asyncio.run(read_calls(stage.store_url, [call.call for call in hold.calls])) if hold else []
    return any(call.ticket for call in calls)


def pictures_of(answer: httpx.Response | None) -> list[bytes]:
    assert answer is not None
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(item["b64_json"]) for item in answer.json()["data"]]


def leave_task(stage: Stage, key: str, secret: str, model: str, point: str) -> None:
    """Leave a task of a gateway that died at the point; only an adopter in the same folder knows that it is dead."""
    victim = stage.start(point, data="first", lease_s=60)
    assert stage.ask(victim, secret, model, key) is None
    gone(victim)


@pytest.mark.parametrize("point", ["adopted", "ticket stored", "success seen", "stored, not posted"])
def test_adopter_may_die_too(stage: Stage, point: str) -> None:
    """When an adopter is killed too, the next one collects the picture."""
    record, secret = stage.new_key()
    leave_task(stage, record.id, secret, TASKS, "ticket stored")
    if point != "ticket stored":
        gone(stage.start(point, data="first", lease_s=1.0))
    with stage.living(data="first") as adopter:
        answer = stage.ask(adopter, secret, TASKS, record.id, headers=RETRY)
        assert len(pictures_of(answer)) == len(stage.bought(record.id)) == len(stage.pictures()) == 1
        assert stage.settled(record.id) == {"usd_posted": stage.paid(record.id), "images_posted": 1}
    assert stage.audit().differences == ()


def test_adopter_may_die_before_it_presumes(stage: Stage) -> None:
    """A call whose outcome stays unknown is charged once, though an adopter dies just before it charges."""
    record, secret = stage.new_key()
    leave_task(stage, record.id, secret, OFFICIAL, "answered")
    gone(stage.start("about to presume", data="first", lease_s=1.0, call_s=1.0))
    with stage.living(data="first", call_s=1.0, lease_s=1.0):
        assert stage.settled(record.id).keys() == {"usd_presumed", "images_presumed"}
    assert stage.audit().differences == ()


def test_calls_of_one_task_end_each_in_its_way(stage: Stage) -> None:
    """Of three calls at least one was paid when the process died: what came is delivered, the others are explained."""
    record, secret = stage.new_key()
    victim = stage.start("posted", lease_s=60)
    assert stage.ask(victim, secret, VARIANT, record.id, n=3) is None
    gone(victim)
    with stage.living() as adopter:
        answer = stage.ask(adopter, secret, VARIANT, record.id, n=3, headers=RETRY)
        assert answer is not None
        assert "x-gateway-joined" in answer.headers
        delivered = len(pictures_of(answer))
        spent = stage.settled(record.id)
        (told,) = stage.settled_records(record.id)
    assert 1 <= delivered <= 3
    assert (spent["images_posted"], spent.get("images_presumed", 0)) == (delivered, 3 - delivered)
    assert len(stage.bought(record.id)) <= 3
    assert (told.n_delivered, sum(call.images for call in told.calls)) == (delivered, delivered)
    assert told.price_settled == spent["usd_posted"] + spent.get("usd_presumed", 0)
    assert stage.audit().differences == ()


def test_promised_task_ends(stage: Stage) -> None:
    """A task whose caller was answered with it ends with its picture, though nobody waits and its worker is dead."""
    record, secret = stage.new_key()
    victim = stage.start("success seen", lease_s=60)
    stage.ask(victim, secret, TASKS, record.id, headers={"prefer": "respond-async"})
    gone(victim)
    with stage.living() as adopter:
        client = httpx.Client(
            base_url=adopter.url, headers={"authorization": f"Bearer {secret}"}, trust_env=False, verify=False
        )
        (task,) = client.get("/v1/tasks").json()["data"]
        found = until(lambda: _ended(client, task["task_id"]), within=30, what="the task's end")
        client.close()
    assert (found["status"], len(found["result"]["data"])) == ("succeeded", 1)
    assert stage.settled(record.id) == {"usd_posted": stage.paid(record.id), "images_posted": 1}


def _ended(client: httpx.Client, task_id: str) -> dict[str, Any] | None:
    found: dict[str, Any] = client.get(f"/v1/tasks/{task_id}").json()
    return found if found["completed_at"] else None


def test_sleeper_delivers_what_its_adopter_brought(stage: Stage) -> None:
    """An owner that was stopped for longer than its lease, and goes on: one charge, one picture, stored once."""
    record, secret = stage.new_key()
    stage.simulator.fault("latency", seconds=1.0)
    sleeper = stage.start(**ASLEEP)
    with stage.living() as adopter, ThreadPoolExecutor(1) as thread:
        asked = thread.submit(stage.ask, sleeper, secret, TASKS, record.id)
        wait_until(lambda: has_ticket(stage, record.id), "the ticket", 20)
        sleeper.end(signal.SIGSTOP)
        wait_until(lambda: stage.is_inherited(record.id), "the adopter", 20)
        retried = stage.ask(adopter, secret, TASKS, record.id, headers=RETRY)
        sleeper.end(signal.SIGCONT)
        assert pictures_of(asked.result()) == pictures_of(retried)
        assert len(stage.bought(record.id)) == len(stage.pictures()) == 1
        assert stage.settled(record.id) == {"usd_posted": stage.paid(record.id), "images_posted": 1}
        (told,) = stage.settled_records(record.id)
        assert (told.n_delivered, told.price_settled, told.status) == (1, stage.paid(record.id), 200)
    sleeper.end()
    assert stage.audit().differences == ()


def test_sleeper_corrects_what_was_presumed(stage: Stage) -> None:
    """The bill that a sleeper brings replaces its adopter's guess: in the ledger, the task and the history."""
    record, secret = stage.new_key()
    sleeper = stage.start(**ASLEEP)
    stage.simulator.fault("latency", seconds=1.0)
    with stage.living(call_s=1.0, lease_s=1.0) as adopter, ThreadPoolExecutor(1) as thread:
        asked = thread.submit(stage.ask, sleeper, secret, OFFICIAL, record.id)
        wait_until(lambda: stage.bought(record.id), "the submission", 20)
        sleeper.end(signal.SIGSTOP)
        wait_until(lambda: "usd_presumed" in stage.spent(record.id), "the guess", 20)
        lost = stage.ask(adopter, secret, OFFICIAL, record.id, headers=RETRY)
        assert lost is not None
        assert lost.status_code == 424
        sleeper.end(signal.SIGCONT)
        first = pictures_of(asked.result())
        # When it woke up its own connections had timed out, so that it may have to book once more.
        posted = {"usd_posted": stage.paid(record.id), "images_posted": 1}
        until(lambda: stage.spent(record.id) == posted, within=30, what="the bill")
        until(lambda: not stage.records(record.id)[0].is_presumed, within=30, what="the history's correction")
        (told,) = stage.settled_records(record.id)
        assert (told.price_settled, told.status) == (stage.paid(record.id), 200)
        path = f"{adopter.url}/v1/tasks/{lost.headers['x-gateway-task']}"
        headers = {"authorization": f"Bearer {secret}"}

        def read_task() -> dict[str, Any]:
            found: dict[str, Any] = httpx.get(path, headers=headers, trust_env=False, verify=False).json()
            return found

        until(lambda: read_task()["status"] == "succeeded", within=30, what="the real end")
        assert len(read_task()["result"]["data"]) == len(first)
    sleeper.end()
    assert len(stage.bought(record.id)) == 1
    assert stage.audit().differences == ()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_gateway_gives_its_picture_after_restart(simulator: Simulator, tmp_path: Path, how: signal.Signals) -> None:
    """Started again, it gives the same script the same picture: one submission, one charge."""
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump(catalogue_of(simulator.url)))
    env = ENV | {"GATEWAY_CONFIG": str(config)}
    simulator.fault("latency", seconds=2.0)

    def ask(run: Gateway, secret: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {secret}"}
        fields = {"model": TASKS, "prompt": "a cat", "size": SIZES[TASKS]}
        url = f"{run.url}/v1/images/generations"
        return httpx.post(url, json=fields, headers=headers, timeout=60, trust_env=False, verify=False)

    with ThreadPoolExecutor(1) as thread:
        with gateway(tmp_path / "data", "--port", "0", **env) as first:
            made = imagegate("keys", "create", "test", "--data-dir", str(first.data), **env)
            secret = next(word for word in made.stdout.split() if word.startswith("igw_"))
            asked = thread.submit(ask, first, secret)
            until(lambda: simulator.log("tasks"), what="the first poll")
            first.end(how)
            if how == signal.SIGTERM:
                assert (asked.result().status_code, asked.result().headers["x-should-retry"]) == (504, "true")
            else:
                assert isinstance(asked.exception(), httpx.TransportError)
        with gateway(tmp_path / "data", "--port", "0", **env) as second:
            answer = ask(second, secret)
            assert len(pictures_of(answer)) == 1
            assert answer.headers["x-gateway-joined"] == "1"
            audited = imagegate("audit", "--data-dir", str(second.data), **env)
            assert audited.returncode == 0, audited.stdout + audited.stderr
    assert len(simulator.book()) == 1
