"""Callbacks: a vendor's word brings the next poll forward, and whatever else it says changes nothing."""

from __future__ import annotations

import json
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.app import create_app
from gateway.money.ledger_results import LedgerAnswer
from gateway.process.settings import Settings
from gateway.upstreams.callback_urls import TRUSTED_AFTER, Callbacks, CallbackTrust
from tests.support.catalogue_changes import OWN_URL
from tests.support.gateways import TASKS, Gateway, Gateways, error_of, wait_until
from tests.support.ledgers import is_soak, make_id
from tests.support.plain_pictures import decode
from tests.support.store_reader import SECRETS

SECRET = "c" * 32
ON = {"public_url": OWN_URL, "callback_secret": SECRET}
SELDOM = {"apiany": {"timeouts": {"poll_every": 30}}}
LABEL = "apiany/main"


@pytest.fixture
def told(gateways: Gateways) -> Gateway:
    """A gateway that is called back, and whose trust in that begins anew."""
    gateway = gateways.open(settings=ON)
    trust_of(gateway).tasks = 0
    return gateway


@pytest.fixture
def patient(gateways: Gateways) -> Gateway:
    """One that is called back and relies on it: by itself it would ask half a minute later."""
    gateway = gateways.open(settings=ON, upstreams=SELDOM)
    trust_of(gateway).tasks = TRUSTED_AFTER
    return gateway


def trust_of(gateway: Gateway) -> CallbackTrust:
    assert gateway.services.callbacks is not None
    return gateway.services.callbacks.trust_of(LABEL)


def ask(gateway: Gateway, **fields: Any) -> httpx.Response:
    return gateway.generate(model=TASKS, size="1024x1024", **fields)


def addresses(gateway: Gateway) -> list[str]:
    """The callback addresses that submissions carried."""
    return [one["fields"]["callback_url"] for one in gateway.simulator.log("generations")]


def submit(gateway: Gateway, pool: ThreadPoolExecutor) -> tuple[Future[httpx.Response], str]:
    """A request under way, and the address that its submission carried."""
    answer = pool.submit(ask, gateway)
    (address,) = wait_until(lambda: addresses(gateway), "the submission")
    return answer, address


def call_back(address: str, content: bytes = b"{}") -> int:
    return httpx.post(address, content=content, trust_env=False, verify=False).status_code


def assert_bought_once(gateway: Gateway, answer: httpx.Response) -> None:
    """One purchase, one charge for it, one picture."""
    assert answer.status_code == 200, answer.text
    assert decode(answer.json()["data"][0]).size == (1024, 1024)
    gateway.settle()
    assert len(gateway.simulator.book()) == 1
    (call,) = gateway.calls(answer.headers["x-gateway-task"])
    assert call.state is LedgerAnswer.POSTED
    spent = gateway.spent()
    assert (spent.usd_posted, spent.images_posted, spent.usd_held) == (gateway.booked(), 1, 0)


def test_callback_ends_the_wait(patient: Gateway) -> None:
    """A task is asked after as soon as it is told of, once, and trust in callbacks remains."""
    patient.simulator.fault("latency", seconds=0.3)
    assert_bought_once(patient, ask(patient))
    assert len(patient.simulator.log("tasks")) == 1
    assert [one["status"] for one in patient.simulator.told()] == [200]
    assert trust_of(patient).is_earned


def test_callback_reaches_another_replica(gateways: Gateways, patient: Gateway) -> None:
    """A callback that arrives at one process wakes the poll of another one."""
    settings = {"public_url": patient.url, "callback_secret": SECRET}
    owner = gateways.open(settings=settings, upstreams=SELDOM)
    trust_of(owner).tasks = TRUSTED_AFTER
    owner.simulator.fault("latency", seconds=0.3)
    assert_bought_once(owner, ask(owner))
    assert addresses(owner)[0].startswith(patient.url)


def test_trust_begins_with_polls(told: Gateway) -> None:
    """Until some tasks in a row were told of, they are asked after as without callbacks."""
    told.simulator.fault("latency", seconds=0.3, times=None)
    assert ask(told).status_code == 200
    assert len(told.simulator.log("tasks")) > 2


def test_missing_callback_is_found(told: Gateway) -> None:
    """A task of which nothing tells is found by asking, and takes the trust in callbacks with it."""
    trust_of(told).tasks = TRUSTED_AFTER
    told.simulator.fault("callback", count=0)
    assert_bought_once(told, ask(told))
    assert not told.simulator.told()
    assert trust_of(told).tasks == 0


def test_early_claim_changes_nothing(told: Gateway) -> None:
    """A callback before the submission's answer that claims success ends nothing: the poll says what is true."""
    told.simulator.fault("callback", early=True, body="claims_success")
    told.simulator.fault("latency", seconds=0.5)
    assert_bought_once(told, ask(told))
    assert [one["status"] for one in told.simulator.told()] == [200]
    assert len(told.simulator.log("tasks")) > 1
    assert all("made-up" not in one["path"] for one in told.simulator.log("files"))


@pytest.mark.parametrize("body", ["garbage", "huge"])
def test_strange_body_is_only_a_hint(patient: Gateway, body: str) -> None:
    """A callback is heard by its address, whatever it says, and no more of it is read than is needed."""
    patient.simulator.fault("callback", body=body)
    patient.simulator.fault("latency", seconds=0.3)
    assert_bought_once(patient, ask(patient))
    assert {one["status"] for one in patient.simulator.told()} <= {200, None}


def test_callbacks_of_every_kind(told: Gateway) -> None:
    """Duplicate, early, late and forged callbacks race the polls, and there is one commit."""
    count = 1000 if is_soak() else 60
    told.simulator.fault("latency", seconds=1)
    with ThreadPoolExecutor(8) as pool:
        answer, address = submit(told, pool)
        forged = address[:-2] + ("xx" if address[-2:] != "xx" else "yy")
        bodies = (b"{}", b'{"status": "succeeded", "result": {"data": [{"url": "http://127.0.0.1:1/x"}]}}', b"\xff")
        sent = [(address if index % 4 else forged, bodies[index % 3]) for index in range(count)]
        assert set(pool.map(lambda one: call_back(*one), sent[: count // 2])) == {200, 404}
        assert_bought_once(told, answer.result())
        assert set(pool.map(lambda one: call_back(*one), sent[count // 2 :])) == {200, 404}
    assert_bought_once(told, answer.result())


def test_storm_does_not_become_polls(patient: Gateway) -> None:
    """However many callbacks come for a task that runs, it is asked after at a pace."""
    patient.simulator.fault("latency", seconds=1)
    with ThreadPoolExecutor(8) as pool:
        answer, address = submit(patient, pool)
        while not answer.done():
            assert call_back(address) == 200
        assert_bought_once(patient, answer.result())
    assert 2 <= len(patient.simulator.log("tasks")) <= 6


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset", "when": "after"},
        {"kind": "reset", "when": "body"},
        {"kind": "status", "status": 504, "html": True, "accepted": True},
    ],
    ids=lambda fault: fault["kind"] + str(fault.get("when", "")),
)
def test_callback_names_a_lost_ticket(told: Gateway, fault: dict[str, Any]) -> None:
    """When the answer to a submission is lost, the callback says which task it became: the image is delivered."""
    told.simulator.fault("latency", seconds=0.3)
    told.simulator.fault(**fault, endpoint="generations")
    answer = ask(told)
    assert_bought_once(told, answer)
    assert len(told.simulator.paid()) == 1


@pytest.mark.parametrize("poll_url", ["http://[x", "http://x:99999/v1/x", "/v1/" + "x" * 100_000, 7])
def test_strange_poll_url_of_a_callback(told: Gateway, poll_url: object) -> None:
    """A callback whose poll_url is no URL still names its ticket: the lost answer's picture is delivered."""
    told.simulator.fault("callback", count=0)
    told.simulator.fault("reset", when="after", endpoint="generations")
    with ThreadPoolExecutor(1) as pool:
        answer, address = submit(told, pool)
        (ticket,) = wait_until(lambda: [one["task_id"] for one in told.simulator.book()], "the task")
        assert call_back(address, json.dumps({"task_id": ticket, "poll_url": poll_url}).encode()) == 200
        assert_bought_once(told, answer.result())


@pytest.mark.parametrize("ticket", ["t" * 900, "t" * 5000, "a/../b?c#d", "\u0000\n", " ", 10**18, -0.5, {"a": 1}, []])
def test_strange_ticket_of_a_callback(told: Gateway, ticket: object) -> None:
    """Whatever a callback names, it is taken or ignored: never an error of the gateway."""
    told.simulator.fault("callback", count=0)
    told.simulator.fault("latency", seconds=0.3)
    with ThreadPoolExecutor(1) as pool:
        answer, address = submit(told, pool)
        for poll_url in (None, "http://[x", "/v1/" + "x" * 950, "/v1/" + "x" * 200_000):
            assert call_back(address, json.dumps({"task_id": ticket, "poll_url": poll_url}).encode()) == 200
        assert_bought_once(told, answer.result())


def test_lost_ticket_that_nobody_names(gateways: Gateways) -> None:
    """When no callback names it in time, the outcome is unknown, and nothing is bought again."""
    gateway = gateways.open(settings=ON, upstreams={"apiany": {"timeouts": {"callback": 0.2}}})
    gateway.simulator.fault("callback", count=0)
    gateway.simulator.fault("reset", when="after", endpoint="generations")
    answer = ask(gateway)
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_outcome_unknown")
    gateway.settle()
    assert len(gateway.simulator.paid()) == 1
    assert gateway.spent().usd_presumed > 0


def test_doubt_is_told_at_once(told: Gateway) -> None:
    """While callbacks are waited for, the breaker knows already that answers were lost, and opens after three."""
    told.simulator.fault("callback", count=0, times=None)
    told.simulator.fault("reset", when="after", endpoint="generations", times=3)
    with ThreadPoolExecutor(3) as pool:
        lost = [pool.submit(ask, told, prompt=f"cat {number}") for number in range(3)]
        wait_until(lambda: told.conditions()[LABEL].breaker != "closed", "the breaker's opening")
        assert not any(one.done() for one in lost)
        tickets = {one["prompt"]: one["task_id"] for one in told.simulator.book()}
        for one in told.simulator.log("generations"):
            ticket = tickets[one["fields"]["prompt"]]
            assert call_back(one["fields"]["callback_url"], f'{{"task_id": "{ticket}"}}'.encode()) == 200
        assert {one.result().status_code for one in lost} == {200}


def test_ticket_of_another_call_is_ignored(told: Gateway) -> None:
    """A callback that names another call's ticket changes neither of the two."""
    told.simulator.fault("latency", seconds=0.8, times=2)
    told.simulator.fault("delay", seconds=0.5, when="after", endpoint="generations", skip=1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, told, prompt="a cat")
        (ticket,) = wait_until(lambda: [one["task_id"] for one in told.simulator.book()], "the first task")
        second = pool.submit(ask, told, prompt="a dog")
        (address,) = wait_until(lambda: addresses(told)[1:], "the second submission")
        for body in (f'{{"task_id": "{ticket}"}}', '{"task_id": "a b"}', '{"task_id": ["x"]}', "[]"):
            assert call_back(address, body.encode()) == 200
        answers = [first.result(), second.result()]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["data"][0]["b64_json"] != answers[1].json()["data"][0]["b64_json"]
    told.settle()
    assert told.spent().usd_posted == told.booked()


def test_forged_callback_is_not_read(told: Gateway) -> None:
    """An address that this gateway did not make is answered 404 before any of the body is there."""
    host, port = urlsplit(told.url).netloc.split(":")
    path = f"/callbacks/apiany/{make_id('task', 1)}/{make_id('call', 1)}?token={'A' * 43}"
    with socket.create_connection((host, int(port)), 5) as wire:
        wire.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n".encode())
        assert wire.recv(4096).startswith(b"HTTP/1.1 404 ")
    assert not told.simulator.log()


def test_no_secret_no_callbacks(gateways: Gateways) -> None:
    """Without a secret of its own a gateway sends no address, and has nothing at one."""
    gateway = gateways.open(settings={"public_url": OWN_URL})
    assert ask(gateway).status_code == 200
    assert "callback_url" not in gateway.simulator.log("generations")[0]["fields"]
    address = Callbacks(gateway.url, SECRET.encode()).address("apiany", make_id("task", 1), make_id("call", 1))
    answer = httpx.post(address, trust_env=False, verify=False)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "unknown_url")


def test_other_vendors_are_not_asked_to_call(told: Gateway) -> None:
    """Only a submission that has a parameter for it carries an address."""
    assert told.generate().status_code == 200
    assert "callback_url" not in told.simulator.log("generations")[0]["fields"]


async def test_callback_without_redis_comes_again(tmp_path: Path, gateway: Gateway) -> None:
    """What cannot be recorded is answered 503, so that the vendor tries again."""
    settings = Settings.model_validate(ON | {"data_dir": tmp_path, "config": gateway.settings.config})
    app = create_app(settings, store_url="unix:///nowhere", secrets=SECRETS, env=gateway.env)
    address = Callbacks("http://gateway", SECRET.encode()).address("apiany", make_id("task", 1), make_id("call", 1))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as vendor:
        answer = await vendor.post(address, json={})
    assert (answer.status_code, error_of(answer)["code"]) == (503, "quota_store_unavailable")
    assert answer.headers["retry-after"] == "5"
