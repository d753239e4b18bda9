"""Tickets, polls and links: whatever a task vendor says meanwhile, one purchase and the images it was for."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.support.gateways import TASKS, Gateway, Gateways, error_of, wait_until
from tests.support.plain_pictures import decode, png
from tests.support.vendor import vendor

DONE = ["completed", "succeeded", "success", "succeed", "done", "finished", "Completed"]
FAILED = ["failed", "failure", "fail", "error", "cancelled", "canceled", "rejected", "FAILED"]
EXPIRED = ["expired", "timeout"]


def ask(gateway: Gateway, **fields: Any) -> Any:
    return gateway.generate(**({"model": TASKS, "size": "1024x1024"} | fields))


@pytest.fixture
def brief(gateways: Gateways) -> Gateway:
    """A gateway that gives a task, a query and a download little time."""
    return gateways.open(upstreams={"apiany": {"timeouts": {"task": 1, "poll": 0.5, "collect": 0.5}}})


@pytest.mark.parametrize("word", DONE)
def test_every_word_for_done(gateway: Gateway, word: str) -> None:
    """A task is done by any of the words its family uses."""
    gateway.simulator.fault("status_word", done=word)
    assert decode(ask(gateway).json()["data"][0]).size == (1024, 1024)


@pytest.mark.parametrize("word", FAILED)
def test_every_word_for_failed(gateway: Gateway, word: str) -> None:
    """A task has failed by any of the words its family uses, and is not bought again."""
    gateway.simulator.fault("status_word", failed=word)
    gateway.simulator.fault("task_failed")
    answer = ask(gateway)
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_failed")
    assert answer.headers["x-should-retry"] == "false"
    assert len(gateway.simulator.paid()) == 1


@pytest.mark.parametrize("word", EXPIRED)
def test_expired_task_may_be_billed(gateway: Gateway, word: str) -> None:
    """A task that ran out of time may have been billed: its outcome is unknown."""
    gateway.simulator.fault("status_word", failed=word)
    gateway.simulator.fault("task_failed", refunded=False)
    answer = ask(gateway)
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_outcome_unknown")


@pytest.mark.parametrize("word", ["queued", "warming_up", "", "0", "✓"])
def test_unknown_word_means_running(gateway: Gateway, word: str) -> None:
    """A word nobody knows is a task that still runs."""
    gateway.simulator.fault("status_word", pending=word, running=word)
    gateway.simulator.fault("latency", seconds=0.3)
    assert ask(gateway).status_code == 200
    assert len(gateway.simulator.log("tasks")) >= 2


@pytest.mark.parametrize(
    "shape",
    [
        *("b64_json", "result.data.url", "result.data.b64_json", "result.urls", "result.images.url"),
        *("result.images.url_list", "results", "results.url", "data"),
    ],
)
def test_every_shape_of_result(gateway: Gateway, shape: str) -> None:
    """The images are found wherever the vendor's family puts them, all of them and in order."""
    gateway.simulator.fault("shape", shape=shape)
    data = ask(gateway, n=2).json()["data"]
    assert [decode(item).size for item in data] == [(1024, 1024)] * 2
    assert data[0]["b64_json"] != data[1]["b64_json"]


def test_poll_url_may_be_absent(gateway: Gateway) -> None:
    """Without a poll_url the task is asked for by its id."""
    gateway.simulator.fault("no_poll_url")
    assert ask(gateway).status_code == 200


@pytest.mark.parametrize("number", [200, 201, 202])
def test_ticket_comes_with_any_2xx(gateway: Gateway, number: int) -> None:
    """A ticket is a ticket by its content, not by its status."""
    gateway.simulator.fault("task_answer", status=number)
    assert ask(gateway).status_code == 200


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 502, "html": True},
        {"kind": "status", "status": 429, "retry_after": 0.1},
        {"kind": "status", "status": 404},
        {"kind": "status", "status": 401},
        {"kind": "reset"},
        {"kind": "reset", "when": "body"},
        {"kind": "truncate"},
        {"kind": "garbage"},
        {"kind": "html"},
        {"kind": "hang"},
    ],
    ids=lambda fault: " ".join(str(value) for value in fault.values()),
)
def test_failed_poll_is_repeated(gateway: Gateway, fault: dict[str, Any]) -> None:
    """A poll that fails is no verdict on the task: it is asked again, and the POST is not."""
    gateway.simulator.fault(**fault, endpoint="tasks", times=1 if fault["kind"] == "hang" else 3)
    assert ask(gateway).status_code == 200
    assert len(gateway.simulator.paid()) == 1


def test_vanished_task_is_unknown(brief: Gateway) -> None:
    """A task its vendor no longer knows may have been billed: an unknown outcome, in its own time."""
    brief.simulator.fault("status", status=404, endpoint="tasks", times=None)
    answer = ask(brief)
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_outcome_unknown")
    assert len(brief.simulator.paid()) == 1
    assert len(brief.simulator.log("tasks")) >= 3


def test_long_pause_ends_with_the_task(brief: Gateway) -> None:
    """A vendor that asks for a long pause between polls gets one poll more, at the task's deadline."""
    brief.simulator.fault("status", status=429, retry_after=3600, endpoint="tasks", times=None)
    answer = ask(brief)
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_outcome_unknown")
    assert len(brief.simulator.log("tasks")) == 2


def test_endless_task_is_unknown(brief: Gateway) -> None:
    """A task that never ends is given up at its deadline, as one that may be billed."""
    brief.simulator.fault("task_never")
    answer = ask(brief)
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_outcome_unknown")
    assert not brief.leftovers()


def test_dead_link_is_asked_anew(gateway: Gateway) -> None:
    """A link that died between the poll and the download is polled for once more."""
    gateway.simulator.fault("dead_link", status=410)
    assert ask(gateway).status_code == 200
    assert len(gateway.simulator.log("files")) == 2
    assert len(gateway.simulator.book()) == 1


def test_dead_link_is_asked_anew_once(gateway: Gateway) -> None:
    """A link that stays dead is told as a made image that cannot be had, and nothing is bought again."""
    gateway.simulator.fault("dead_link", times=None)
    answer = ask(gateway)
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_failed")
    assert answer.headers["x-should-retry"] == "false"
    assert len(gateway.simulator.log("files")) == 2
    assert len(gateway.simulator.paid()) == 1


def test_one_dead_link_costs_one_image(gateway: Gateway) -> None:
    """Of three paid images one cannot be downloaded: the other two are delivered."""
    gateway.simulator.fault("dead_link")
    gateway.simulator.fault("dead_link", skip=2)
    answer = ask(gateway, n=3)
    assert answer.status_code == 200, answer.text
    assert (len(answer.json()["data"]), answer.headers["x-gateway-delivered"]) == (2, "2/3")
    assert len(gateway.simulator.log("files")) == 4
    assert not gateway.leftovers()


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503, "html": True},
        {"kind": "reset"},
        {"kind": "truncate"},
        {"kind": "reset", "when": "body"},
    ],
    ids=lambda fault: " ".join(str(value) for value in fault.values()),
)
def test_failed_download_is_repeated(gateway: Gateway, fault: dict[str, Any]) -> None:
    """A paid picture is downloaded again until it is there whole."""
    gateway.simulator.fault(**fault, endpoint="files", times=2)
    assert decode(ask(gateway).json()["data"][0]).size == (1024, 1024)
    assert len(gateway.simulator.book()) == 1


def test_download_ends_in_time(brief: Gateway) -> None:
    """A link that only fails is given up when its time is over."""
    brief.simulator.fault("status", status=500, endpoint="files", times=None)
    answer = ask(brief)
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_failed")
    assert not brief.leftovers()


@pytest.mark.parametrize("path", ["/v1/tasks/t1", "/v1/tasks/t1?token=x", "//evil/v1/tasks/t1", "/v1/../admin"])
def test_poll_keeps_key_at_home(gateways: Gateways, path: str) -> None:
    """A poll_url that names another origin is not followed there: our key goes to the configured one only."""
    item = {"b64_json": base64.b64encode(png(1024, 1024)).decode()}
    with vendor(lambda _, path: {}) as (elsewhere, strayed):

        def answer(method: str, asked: str) -> Any:
            if method == "POST":
                return {"task_id": "t1", "status": "pending", "poll_url": elsewhere + path}
            return {"task_id": "t1", "status": "succeeded", "result": {"data": [item]}}

        with vendor(answer) as (home, seen):
            gateway = gateways.open(upstreams={"apiany": {"base_url": home}})
            assert ask(gateway).status_code == 200
            assert [one.path for one in seen] == ["/v1/images/generations", "/v1/tasks/t1"]
            assert {one.key for one in seen} == {"Bearer sim-apiany"}
    assert not strayed


@pytest.mark.parametrize("path", ["http://[bad", "/v1/tasks/\x00", "/v1/" + "t" * 70_000])
def test_strange_poll_url_costs_only_itself(gateways: Gateways, path: str) -> None:
    """A poll_url that nobody can open is replaced by the task's own address: the paid task is brought."""
    item = {"b64_json": base64.b64encode(png(1024, 1024)).decode()}

    def answer(method: str, asked: str) -> Any:
        if method == "POST":
            return {"task_id": "t1", "status": "pending", "poll_url": path}
        return {"task_id": "t1", "status": "succeeded", "result": {"data": [item]}}

    with vendor(answer) as (home, seen):
        gateway = gateways.open(upstreams={"apiany": {"base_url": home}})
        assert ask(gateway).status_code == 200
        assert [one.path for one in seen] == ["/v1/images/generations", "/v1/tasks/t1"]


@pytest.mark.parametrize("link", ["http://[bad", "https://x:99999/a.png", "/a\x00.png", "https://" + "x" * 70_000])
def test_strange_link_costs_only_itself(gateways: Gateways, link: str) -> None:
    """A link that is no URL takes none of the pictures beside it."""
    items = [{"url": link}, {"b64_json": base64.b64encode(png(1024, 1024)).decode()}]

    def answer(method: str, asked: str) -> Any:
        return {"task_id": "t1", "status": "succeeded", "result": {"data": items}}

    with vendor(answer) as (home, _):
        gateway = gateways.open(upstreams={"apiany": {"base_url": home}})
        made = ask(gateway, n=2)
        assert made.status_code == 200, made.text
        assert (len(made.json()["data"]), made.headers["x-gateway-delivered"]) == (1, "1/2")


def test_links_elsewhere_get_no_key(gateways: Gateways) -> None:
    """A result link to a private address is not opened, and the image is told as lost."""
    with vendor(lambda _, path: {}) as (elsewhere, strayed):

        def answer(method: str, asked: str) -> Any:
            if method == "POST":
                return {"task_id": "t1", "status": "pending"}
            return {"task_id": "t1", "status": "succeeded", "result": {"data": [{"url": f"{elsewhere}/x.png"}]}}

        with vendor(answer) as (home, seen):
            gateway = gateways.open(upstreams={"apiany": {"base_url": home}})
            assert error_of(ask(gateway))["code"] == "upstream_failed"
            assert sum(one.method == "POST" for one in seen) == 1
    assert not strayed


def test_own_links_carry_no_key(gateway: Gateway) -> None:
    """Downloads, even from the vendor's own origin, are made without our key."""
    assert ask(gateway).status_code == 200
    files = gateway.simulator.log("files")
    assert files
    assert not any(one["headers"]["authorization"] for one in files)


def test_polls_are_counted_in_seconds(gateway: Gateway) -> None:
    """A running task is polled at intervals, not in a tight loop."""
    gateway.simulator.fault("latency", seconds=1)
    assert ask(gateway).status_code == 200
    assert 3 <= len(gateway.simulator.log("tasks")) <= 30


def test_work_without_waiter_is_polled_on(gateway: Gateway) -> None:
    """A task whose caller was answered 504 is polled to its end."""
    gateway.simulator.fault("latency", seconds=1.2)
    answer = gateway.generate(headers={"x-stainless-read-timeout": "0.8"}, model=TASKS, size="1024x1024")
    assert answer.status_code == 504
    task_id = answer.headers["x-gateway-task"]
    wait_until(lambda: gateway.read_task(task_id)["status"] == "succeeded", "the end of the task")
    assert len(gateway.simulator.book()) == 1
