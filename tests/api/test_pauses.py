"""What callers meet while an operator has paused everything, their team or an upstream: over HTTP, to the picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway.health.pauses import PauseStore
from gateway.store.client import connect
from tests.support.event_loop import run_here
from tests.support.gateways import OFFICIAL, TASKS, Gateway, Gateways, error_of, wait_until
from tests.support.operator_client import TOKEN, Office, open_office

DRY = {"X-Gateway-Dry-Run": "1"}
PAIR = {"pair": {"upstreams": ["anyfast", "anyfast-c"]}}


@pytest.fixture
def office(gateways: Gateways) -> Office:
    return Office(gateways.open(settings={"admin_token": TOKEN}, models=PAIR))


@pytest.fixture
def gateway(office: Office) -> Gateway:
    return office.gateway


def assert_paused(answer: httpx.Response) -> str:
    """The answer is the refusal of a pause; its message."""
    error = error_of(answer)
    assert (answer.status_code, error["type"], error["code"]) == (503, "server_error", "paused"), answer.text
    return error["message"]


def test_everything_refuses_new_requests(office: Office, gateway: Gateway) -> None:
    """New paid requests get a 503 that says so, with the end; nothing is sent, held or kept of them."""
    office.put("/pauses/everything", for_s=7200)
    refused = gateway.generate()
    assert "paused this gateway" in assert_paused(refused)
    assert 7190 < int(refused.headers["retry-after"]) <= 7200
    assert refused.headers["x-should-retry"] == "false"
    assert_paused(gateway.generate(stream=True))
    assert_paused(gateway.generate({"prefer": "respond-async"}))
    assert not gateway.simulator.log()
    assert gateway.spent().usd_held == 0
    assert [(one.error, one.repeats) for one in gateway.records()] == [("paused", 1)] * 3


def test_pause_without_an_end_tells_none(office: Office, gateway: Gateway) -> None:
    """Where no end is known there is no Retry-After, and an SDK is told not to ask again by itself."""
    office.put("/pauses/everything")
    refused = gateway.generate()
    assert_paused(refused)
    assert "retry-after" not in refused.headers
    assert refused.headers["x-should-retry"] == "false"


def test_everything_else_is_served(office: Office, gateway: Gateway) -> None:
    """While everything is paused, stored pictures, tasks, models, the key and health are served."""
    made = gateway.generate(response_format="url")
    link, task = made.json()["data"][0]["url"], made.headers["x-gateway-task"]
    office.put("/pauses/everything")
    assert gateway.client.get(link).status_code == 200
    for path in (f"/v1/tasks/{task}", "/v1/tasks", "/v1/models", "/v1/key", "/healthz", "/readyz"):
        assert gateway.get(path).status_code == 200, path


def test_finished_task_is_replayed(office: Office, gateway: Gateway) -> None:
    """A request whose Idempotency-Key has an answer gets it again; another one is refused."""
    first = gateway.generate({"idempotency-key": "one"})
    office.put("/pauses/everything")
    again = gateway.generate({"idempotency-key": "one"})
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json()["data"][0]["b64_json"] == first.json()["data"][0]["b64_json"]
    assert gateway.generate({"idempotency-key": "one"}, prompt="a dog").status_code == 422
    assert_paused(gateway.generate({"idempotency-key": "two"}))
    assert len(gateway.simulator.book()) == 1


def test_running_work_ends_and_is_joined(office: Office, gateway: Gateway) -> None:
    """A request that runs gets its picture, and so does the retry of one that gave up; nothing is bought for either."""
    gateway.simulator.fault("latency", seconds=0.8, times=None)
    with ThreadPoolExecutor() as pool:
        runs = pool.submit(gateway.generate, prompt="a dog")
        assert gateway.generate({"x-stainless-read-timeout": "0.4"}).status_code == 504
        wait_until(lambda: len(gateway.simulator.paid()) == 2, "both submissions")
        office.put("/pauses/everything")
        joined = gateway.generate({"x-stainless-retry-count": "1"})
        assert runs.result().status_code == 200
    assert (joined.status_code, joined.headers["x-gateway-joined"]) == (200, "1")
    assert len(gateway.simulator.book()) == 2


@pytest.mark.parametrize("scope", ["everything", "teams/design"])
def test_admitted_request_gets_all_its_calls(office: Office, gateway: Gateway, scope: str) -> None:
    """A request that was admitted before the pause makes its later calls too: it is running work."""
    gateways_key = gateway.new_key(team="design")[1]
    gateway.simulator.fault("status", status=503, retry_after=1, upstream="anyfast", model="gpt-image-2")
    with ThreadPoolExecutor() as pool:
        runs = pool.submit(gateway.generate, {"authorization": f"Bearer {gateways_key}"})
        wait_until(lambda: len(gateway.simulator.paid()) == 1, "the first call")
        office.put(f"/pauses/{scope}")
        assert runs.result().status_code == 200
    assert len(gateway.simulator.paid()) == 2


def test_team_is_refused_alone(office: Office, gateway: Gateway) -> None:
    """A paused team's keys are refused without its name; keys of other teams and of none make pictures."""
    keys = {team: gateway.new_key(team=team)[1] for team in ("design", "other", None)}
    office.put("/pauses/teams/design", for_s=30)
    answers = {team: gateway.generate({"authorization": f"Bearer {key}"}) for team, key in keys.items()}
    assert {team: one.status_code for team, one in answers.items()} == {"design": 503, "other": 200, None: 200}
    message = assert_paused(answers["design"])
    assert "this key's team" in message
    assert "design" not in message
    assert 1 <= int(answers["design"].headers["retry-after"]) <= 30
    assert "x-should-retry" not in answers["design"].headers


def test_paused_upstream_is_skipped(office: Office, gateway: Gateway) -> None:
    """New work goes to the next upstream, and the record says why the first was skipped."""
    office.put("/pauses/upstreams/anyfast")
    assert gateway.generate(model="pair").headers["x-gateway-upstream"] == "anyfast-c"
    (record,) = gateway.records()
    assert [(one.target, one.reason) for one in record.passed_by] == [("anyfast/main", "an operator paused it")]


def test_upstream_pause_is_exact(office: Office, gateway: Gateway) -> None:
    """No call begins after an upstream's pause, also at a gateway that has looked at its upstreams just before."""
    assert gateway.generate().status_code == 200
    run_here(pause(gateway.store_url, "upstream:anyfast"))
    assert_paused(gateway.generate())
    assert gateway.generate(model="pair").headers["x-gateway-upstream"] == "anyfast-c"
    assert len(gateway.simulator.paid()) == 2


async def pause(store_url: str, scope: str) -> None:
    """Pause behind the gateway's back."""
    redis = connect(store_url)
    await PauseStore(redis).put(scope, None)
    await redis.aclose()


def test_request_without_another_upstream_is_refused(office: Office, gateway: Gateway) -> None:
    """Where no other upstream could serve, a 503 says that it is paused, and names none."""
    office.put("/pauses/upstreams/anyfast", for_s=600)
    refused = gateway.generate()
    message = assert_paused(refused)
    assert "anyfast" not in message
    assert 590 < int(refused.headers["retry-after"]) <= 600
    assert not gateway.simulator.paid()


def test_tickets_of_a_paused_upstream_are_collected(office: Office, gateway: Gateway) -> None:
    """A task that an upstream took before its pause is polled to its end, and its picture delivered."""
    gateway.simulator.fault("latency", seconds=0.6)
    with ThreadPoolExecutor() as pool:
        runs = pool.submit(gateway.generate, model=TASKS, size="1024x1024")
        wait_until(lambda: len(gateway.simulator.book()) == 1, "the submission")
        office.put("/pauses/upstreams/apiany")
        assert runs.result().status_code == 200
    assert_paused(gateway.generate(model=TASKS, size="1024x1024"))


def test_waiting_call_is_not_sent(gateways: Gateways) -> None:
    """A call that waits for a place at an upstream when it is paused is never sent; its slot is told so."""
    one_at_a_time = [{"key": "env:ANYFAST_API_KEY", "group": "direct", "max_concurrent": 1}]
    office = Office(
        gateways.open(settings={"admin_token": TOKEN}, upstreams={"anyfast": {"credentials": one_at_a_time}})
    )
    gateway = office.gateway
    gateway.simulator.fault("latency", seconds=1, times=None)
    with ThreadPoolExecutor() as pool:
        runs = pool.submit(gateway.generate)
        wait_until(lambda: len(gateway.simulator.paid()) == 1, "the first call")
        waits = pool.submit(gateway.generate, prompt="a dog")
        wait_until(lambda: gateway.services.concurrency_queue.waiting == 1, "the second call")
        office.put("/pauses/upstreams/anyfast")
        assert_paused(waits.result())
        assert runs.result().status_code == 200
    assert len(gateway.simulator.paid()) == 1


def test_plan_shows_the_pause(office: Office, gateway: Gateway) -> None:
    """A dry run shows the paused upstream with its reason, and the refusal that a pause of everything would bring."""
    office.put("/pauses/upstreams/anyfast")
    plan = gateway.generate(DRY, model="pair").json()
    assert [one["target"] for one in plan["choices"]] == ["anyfast-c/main"]
    assert [(one["target"], one["reason"]) for one in plan["rejections"]] == [("anyfast/main", "an operator paused it")]
    assert plan["refusal"] is None
    office.put("/pauses/everything")
    plan = gateway.generate(DRY, model="pair").json()
    assert plan["refusal"]["code"] == "paused"
    assert [one["target"] for one in plan["choices"]] == ["anyfast-c/main"]


def test_every_gateway_sees_it(gateways: Gateways) -> None:
    """Another process over the same Redis refuses within a second or so, and serves again once it is resumed."""
    office, other = open_office(gateways), gateways.open(settings={"admin_token": TOKEN}, models=PAIR)

    def status() -> int:
        return other.generate(DRY, model="gpt-image-2").json()["refusal"] is None

    assert status()
    office.put("/pauses/everything")
    wait_until(lambda: not status(), "the pause at the other gateway", 5)
    office.delete("/pauses/everything")
    wait_until(status, "its end at the other gateway", 5)


async def test_pause_survives_a_restart(office: Office, gateway: Gateway) -> None:
    """A gateway that starts while everything is paused knows it with its first request."""
    office.put("/pauses/everything")
    async with gateway.inside() as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            body: dict[str, Any] = {"model": OFFICIAL, "prompt": "a cat"}
            answer = await client.post("/v1/images/generations", json=body, headers=gateway.auth)
    assert_paused(answer)


def test_readiness_shows_pauses_to_operators(office: Office, gateway: Gateway) -> None:
    """A pause leaves the gateway ready. An operator's token shows the pauses; no other request does."""
    office.put("/pauses/everything", for_s=60)
    office.put("/pauses/upstreams/anyfast")
    for token in (TOKEN, office.hire("vera").token):
        shown = gateway.client.get("/readyz", headers={"authorization": f"Bearer {token}"})
        assert shown.status_code == 200
        assert shown.json() == {
            "status": "ok",
            "details": {},
            "pauses": [{"scope": "everything", "seconds": 60}, {"scope": "upstream:anyfast", "seconds": None}],
        }
    for headers in ({}, gateway.auth, {"authorization": f"Bearer {TOKEN[::-1]}"}):
        assert gateway.client.get("/readyz", headers=headers).json() == {"status": "ok"}
