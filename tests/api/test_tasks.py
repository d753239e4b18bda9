"""The task object: promised by `Prefer`, asked for by its id, listed, canceled; its key's alone."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.gateways import OFFICIAL, Gateway, Gateways, error_of, small, wait_until

ASYNC = {"prefer": "respond-async"}


def poll(gateway: Gateway, promise: httpx.Response) -> dict[str, Any]:
    """The task that a 202 promised, once it has ended."""
    assert promise.status_code == 202, promise.text
    where = promise.headers["location"]

    def ended() -> dict[str, Any] | None:
        answer = gateway.get(where)
        task = answer.json()
        is_running = task["status"] in ("pending", "processing")
        assert ("retry-after" in answer.headers) == is_running
        return None if is_running else task

    return wait_until(ended, "the end of the task")


def test_promised_task_is_collected(gateway: Gateway) -> None:
    """`Prefer: respond-async` is answered at once; the task's address has the whole answer in the form asked for."""
    gateway.simulator.fault("latency", seconds=0.3)
    promise = gateway.generate(headers=ASYNC, n=2, response_format="url")
    task = promise.json()
    assert (promise.headers["location"], promise.headers["retry-after"]) == (f"/v1/tasks/{task['task_id']}", "1")
    assert (task["object"], task["result"], task["error"], task["completed_at"]) == ("image.task", None, None, None)
    ended = poll(gateway, promise)
    assert (ended["status"], ended["error"]) == ("succeeded", None)
    assert ended["task_id"] == task["task_id"]
    assert ended["poll_url"] == f"{gateway.url}/v1/tasks/{task['task_id']}"
    assert ended["created_at"] <= ended["completed_at"]
    links = [item["url"] for item in ended["result"]["data"]]
    assert [httpx.get(link).status_code for link in links] == [200, 200]
    assert float(ended["cost_usd"]) * 1_000_000 == gateway.booked()


@pytest.mark.parametrize(("seconds", "status"), [(0, 202), (10, 200)])
def test_preferred_wait(gateway: Gateway, seconds: int, status: int) -> None:
    """`Prefer: wait=N` is answered with the images, or after N seconds with the task."""
    gateway.simulator.fault("latency", seconds=0.3)
    answer = gateway.generate(headers={"prefer": f"wait={seconds}"})
    assert answer.status_code == status
    if status == 202:
        assert poll(gateway, answer)["result"]["data"][0]["b64_json"]
    assert len(gateway.simulator.book()) == 1


def test_stream_is_no_task(gateway: Gateway) -> None:
    """A stream is answered as a stream, whatever is preferred."""
    answer = gateway.generate(headers=ASYNC, stream=True)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")


def test_failed_task_says_why(gateway: Gateway) -> None:
    """A task that came to nothing has OpenAI's error in it, and no result."""
    gateway.simulator.fault("policy")
    task = poll(gateway, gateway.generate(headers=ASYNC))
    assert (task["status"], task["result"], task["error"]["code"]) == ("failed", None, "moderation_blocked")


def test_promise_is_kept_under_its_key(gateway: Gateway) -> None:
    """The same Idempotency-Key is promised the same task, and a request without one a new task."""
    tasks = [
        gateway.generate(headers=ASYNC | more).json()["task_id"]
        for more in ({"idempotency-key": "k"}, {"idempotency-key": "k"}, {}, {})
    ]
    assert tasks[0] == tasks[1]
    assert len(set(tasks)) == 3
    gateway.settle()
    assert len(gateway.simulator.book()) == 3


def test_ordinary_answer_is_a_task_too(gateway: Gateway) -> None:
    """The task of an ordinary answer can be asked for by the id in its header, also at another replica."""
    answer = gateway.generate()
    task = gateway.get(f"/v1/tasks/{answer.headers['x-gateway-task']}").json()
    assert task["result"]["data"][0]["b64_json"] == answer.json()["data"][0]["b64_json"]


def test_other_keys_task_does_not_exist(gateway: Gateway) -> None:
    """Another key's task is a 404 in the same words as one that never was, and is in no list."""
    task = gateway.generate().headers["x-gateway-task"]
    _, other = gateway.new_key()
    stranger = {"authorization": f"Bearer {other}"}
    for method in ("GET", "DELETE"):
        answers = [gateway.request(method, f"/v1/tasks/{name}", headers=stranger) for name in (task, "task_x")]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert error_of(answers[0]) == error_of(answers[1])
        assert error_of(answers[0])["code"] == "task_not_found"
    assert gateway.get("/v1/tasks", headers=stranger).json()["data"] == []


def test_tasks_are_listed_in_pages(gateway: Gateway) -> None:
    """A key's tasks come the newest first, a page at a time, each once, their images as links."""
    made = [gateway.generate().headers["x-gateway-task"] for _ in range(3)]
    first = gateway.get("/v1/tasks", params={"limit": 2}).json()
    last = gateway.get("/v1/tasks", params={"limit": 2, "after": first["data"][-1]["task_id"]}).json()
    assert [task["task_id"] for task in (*first["data"], *last["data"])] == made[::-1]
    assert (first["has_more"], last["has_more"]) == (True, False)
    assert httpx.get(first["data"][0]["result"]["data"][0]["url"]).status_code == 200
    assert gateway.get("/v1/tasks", params={"limit": 0}).status_code == 400


def test_sent_task_is_not_canceled(gateway: Gateway) -> None:
    """A task whose call is out goes on when it is to be canceled, and delivers."""
    gateway.simulator.fault("latency", seconds=0.4)
    promise = gateway.generate(headers=ASYNC)
    wait_until(gateway.simulator.book, "the submission")
    assert gateway.request("DELETE", promise.headers["location"]).json()["status"] == "processing"
    assert poll(gateway, promise)["status"] == "succeeded"


def test_unsent_task_is_canceled(gateways: Gateways) -> None:
    """A task that waits to be sent again ends canceled, at no cost, and nothing more is sent for it."""
    gateway = gateways.open()
    gateway.simulator.fault("status", status=429, retry_after=1, times=None)
    promise = gateway.generate(headers=ASYNC, model=OFFICIAL)
    wait_until(lambda: gateway.simulator.paid() and gateway.get(promise.headers["location"]), "the refusal")
    wait_until(lambda: gateway.get(promise.headers["location"]).json()["status"] == "pending", "the freed slot")
    canceled = gateway.request("DELETE", promise.headers["location"]).json()
    assert (canceled["status"], canceled["cost_usd"], canceled["error"]["code"]) == (
        "canceled",
        "0.000000",
        "task_canceled",
    )
    gateway.settle()
    assert gateway.get(promise.headers["location"]).json() == canceled
    assert len(gateway.simulator.paid()) == 1
    assert gateway.spent().usd_held == 0


STRANGE = ("task_x", "x" * 4000, "*", "{igw}", "%00", "..%2F..", "%F0%9F%90%B1", "%ff", "task_%0A", "1e9", "-1")


@pytest.mark.parametrize("name", STRANGE, ids=lambda name: name[:12])
def test_strange_ids_are_unknown(gateway: Gateway, name: str) -> None:
    """Whatever stands for an id is a 404 in OpenAI's shape, and as the last of a page the end of the list."""
    gateway.generate()
    for method in ("GET", "DELETE"):
        answer = gateway.request(method, f"/v1/tasks/{name}")
        assert answer.status_code == 404
        assert error_of(answer)["code"] in ("task_not_found", "unknown_url")
    assert gateway.get(f"/v1/tasks?after={name}").json()["data"] == []


def test_page_of_another_key_tells_nothing(gateway: Gateway) -> None:
    """Another key's task as the place to go on from is the end of the list, as an unknown one is."""
    mine = gateway.generate().headers["x-gateway-task"]
    _, other = gateway.new_key()
    stranger = {"authorization": f"Bearer {other}"}
    gateway.generate(headers=stranger)
    pages = [gateway.get("/v1/tasks", headers=stranger, params={"after": name}).json() for name in (mine, "task_x")]
    assert pages == [{"object": "list", "data": [], "has_more": False}] * 2


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1e9", "9" * 400, "x", ""])
def test_strange_page_sizes_are_refused(gateway: Gateway, limit: str) -> None:
    """A page has 1 to 100 tasks."""
    answer = gateway.get("/v1/tasks", params={"limit": limit})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "limit")


@pytest.mark.parametrize(
    "preference",
    ["wait=-1", "wait=1e9", "wait=9999999999", "wait=", "wait=x", "wait", "respond-sync", ";;,,=", "wait=999999", "é"],
)
def test_strange_preferences_change_nothing(gateway: Gateway, preference: str) -> None:
    """A preference that cannot be understood is no preference, and one for a very long wait waits as long as usual."""
    answer = gateway.post("/v1/images/generations", headers={"prefer": preference.encode()}, json=small())
    assert answer.status_code == 200
    assert answer.json()["data"][0]["b64_json"]


def test_ended_task_is_not_canceled(gateway: Gateway) -> None:
    """A task that has ended stays as it is, however often it is to be canceled."""
    gateway.simulator.fault("policy", skip=1)
    for prompt in ("a cat", "a dog"):
        promise = gateway.generate(headers=ASYNC, prompt=prompt)
        ended = poll(gateway, promise)
        for _ in range(2):
            assert gateway.request("DELETE", promise.headers["location"]).json() == ended
    assert gateway.spent().usd_posted == gateway.booked()


def test_rotated_key_keeps_its_tasks(gateway: Gateway) -> None:
    """A key's tasks are its own under its new secret too."""
    assert gateway.record is not None
    task = gateway.generate().headers["x-gateway-task"]
    renewed = {"authorization": f"Bearer {gateway.rotate_key(gateway.record.id)}"}
    assert gateway.get(f"/v1/tasks/{task}", headers=renewed).json()["result"]["data"][0]["b64_json"]
    assert [each["task_id"] for each in gateway.get("/v1/tasks", headers=renewed).json()["data"]] == [task]
