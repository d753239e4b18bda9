"""Callers' addresses are told of the end of tasks: by whom, of what, how often, and what is refused before anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from gateway.callers.key_store import KeyStore
from gateway.state.webhook_queue import Undelivered, WebhookQueue
from gateway.tasks.webhook_signature import make_secret
from tests.api.test_tasks import ASYNC
from tests.conftest import Valkey, run_valkey
from tests.support.gateways import Gateway, Gateways, assert_refused, error_of, serve
from tests.support.simulators import Simulator, wait_until
from tests.support.store_reader import SECRETS, read_everything, with_deliveries, with_keys
from tests.support.webhook_receiver import Receiver, Told

QUICK = {"retries": [0.05, 0.05], "timeout": 0.4, "look_every": 0.1}


Lone = Callable[..., Gateway]
"""Opens a gateway with changes to its catalogue."""


@pytest.fixture(scope="module")
def own_valkey() -> Iterator[Valkey]:
    """A store of this module's own: any gateway over a store may deliver what another one queued."""
    with run_valkey() as server:
        yield server


@pytest.fixture(scope="module")
def own_gateways(simulator_process: Simulator, own_valkey: Valkey) -> Iterator[Gateways]:
    running = Gateways(simulator_process, own_valkey)
    yield running
    running.close()


@pytest.fixture
def gateway(own_gateways: Gateways, own_valkey: Valkey, simulator: Simulator, receiver: Receiver) -> Gateway:
    """A gateway that may tell the receiver, and does not wait long before it tells again."""
    own_gateways.settle()
    own_valkey.flush()
    own_gateways.be_known()
    return own_gateways.open(webhooks={"origins": [receiver.origin], **QUICK})


@pytest.fixture
def lone(simulator: Simulator, lone_valkey: Valkey, receiver: Receiver) -> Iterator[Lone]:
    """Opens the one gateway of its store, with other rules."""
    lone_valkey.flush()
    with ExitStack() as stack:

        def open_lone(webhooks: Mapping[str, Any], **changes: Any) -> Gateway:
            rules = {"origins": [receiver.origin], **QUICK, **webhooks}
            made = stack.enter_context(serve(simulator, lone_valkey.url, {"webhooks": rules, **changes}))
            made.record, made.key = made.new_key()
            return made

        yield open_lone


def secret_of(gateway: Gateway, number: int = 1) -> str:
    assert gateway.record is not None
    return make_secret(SECRETS.signing_key, gateway.record.id, number)


def ask(gateway: Gateway, work: Callable[[WebhookQueue], Any]) -> Any:
    return asyncio.run(with_deliveries(gateway.store_url, work))


def keep_keys(gateway: Gateway, work: Callable[[KeyStore], Any]) -> None:
    asyncio.run(with_keys(gateway.store_url, work))


def undelivered(gateway: Gateway) -> list[Undelivered]:
    return ask(gateway, lambda webhook_queue: webhook_queue.look(100))


def given_up(gateway: Gateway) -> Undelivered:
    """The one delivery that was given up, once it was."""
    return wait_until(
        lambda: next((one for one in undelivered(gateway) if one.state == "lost"), None), "the end of the tries", 10
    )


def all_delivered(gateway: Gateway) -> None:
    wait_until(lambda: not undelivered(gateway), "the end of the deliveries")


def test_header_is_told_of_the_end(gateway: Gateway, receiver: Receiver) -> None:
    """The address in the header is told once, signed as Standard Webhooks has it, what the task's own route tells."""
    answer = gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
    (told,) = receiver.wait()
    task = gateway.get(f"/v1/tasks/{answer.headers['x-gateway-task']}").json()
    facts = told.verify(secret_of(gateway))
    assert facts["type"] == "image.task.succeeded"
    assert facts["data"] == {name: value for name, value in task.items() if name != "result"}
    assert datetime.fromisoformat(facts["timestamp"]) == datetime.fromtimestamp(task["completed_at"], UTC)
    assert (told.path, told.headers["content-type"]) == ("/hook", "application/json")
    assert told.id.startswith("msg_")
    assert abs(int(told.headers["webhook-timestamp"]) - time.time()) < 60
    all_delivered(gateway)
    assert len(receiver.told) == 1


def test_keys_webhook_is_told_of_promises(gateway: Gateway, receiver: Receiver) -> None:
    """A key's address is told of what was asked for as a task; the header's is told in its place."""
    assert gateway.record is not None
    gateway.change_key(gateway.record.id, webhook=receiver.url)
    gateway.generate()
    asked = gateway.generate(headers=ASYNC).json()["task_id"]
    (told,) = receiver.wait()
    assert told.facts["data"]["task_id"] == asked
    gateway.generate(headers={"prefer": "wait=5"})
    assert receiver.wait(2)[1].path == "/hook"
    gateway.generate(headers=ASYNC | {"X-Gateway-Webhook": f"{receiver.origin}/other"})
    assert receiver.wait(3)[2].path == "/other"
    all_delivered(gateway)
    assert len(receiver.told) == 3
    assert gateway.get("/v1/key").json()["webhook"] == receiver.url


def test_failures_are_told(gateway: Gateway, receiver: Receiver) -> None:
    """A task that failed, and one that was canceled, say so with their error."""
    told_at = ASYNC | {"X-Gateway-Webhook": receiver.url}
    gateway.simulator.fault("policy")
    gateway.generate(headers=told_at)
    failed = receiver.wait()[0].facts
    assert (failed["type"], failed["data"]["status"]) == ("image.task.failed", "failed")
    assert failed["data"]["error"]["code"] == "moderation_blocked"
    gateway.simulator.fault("status", status=429, retry_after=1, times=None)
    where = gateway.generate(headers=told_at).headers["location"]
    wait_until(lambda: len(gateway.simulator.paid()) == 2 and gateway.get(where).json()["status"] == "pending")
    gateway.request("DELETE", where)
    canceled = receiver.wait(2)[1].facts
    assert (canceled["type"], canceled["data"]["error"]["code"]) == ("image.task.canceled", "task_canceled")
    gateway.simulator.heal()
    gateway.settle()
    assert len(receiver.told) == 2


def test_prompt_and_pictures_stay_here(lone: Lone, receiver: Receiver) -> None:
    """A message has neither the prompt nor a picture, a link or an API key in it, also where prompts are kept."""
    gateway = lone({}, accounting={"keep_prompts": True})
    answer = gateway.generate(
        headers={"X-Gateway-Webhook": receiver.url}, prompt="a secret walrus", response_format="url"
    )
    (told,) = receiver.wait()
    sent = told.body.decode() + str(told.headers)
    link = answer.json()["data"][0]["url"]
    for what in ("walrus", "prompt", "b64_json", link, "artifacts", gateway.key):
        assert what not in sent


def test_failed_tries_are_made_again(gateway: Gateway, receiver: Receiver) -> None:
    """What was not taken is sent again with the same id and body under a new signature, until it is taken."""
    receiver.answer(500, 307, location=f"{receiver.origin}/elsewhere")
    gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
    told = receiver.wait(3)
    all_delivered(gateway)
    assert {one.path for one in told} == {"/hook"}, "a redirect was followed"
    assert len({(one.id, one.body) for one in told}) == 1
    assert all(one.verify(secret_of(gateway)) for one in told)
    assert len(receiver.told) == 3


def test_last_failure_gives_up(gateway: Gateway, receiver: Receiver) -> None:
    """After its last try a delivery is kept with what went wrong, and an operator can have it made after all."""
    receiver.answer(500, 502, 503)
    gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
    lost = given_up(gateway)
    assert (lost.tries, lost.why, lost.url, lost.due) == (3, "503", receiver.url, None)
    assert ask(gateway, lambda webhook_queue: webhook_queue.retry(lost.id))
    told = receiver.wait(4)
    assert len({(one.id, one.body) for one in told}) == 1
    all_delivered(gateway)


def test_gone_receiver_is_left_alone(gateway: Gateway, receiver: Receiver) -> None:
    """An address that answers 410 is not tried again."""
    receiver.answer(410)
    gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
    assert (given_up(gateway).tries, given_up(gateway).why) == (1, "410")
    assert len(receiver.told) == 1


def test_receivers_wish_is_kept(gateway: Gateway, receiver: Receiver) -> None:
    """No try is made before the time that Retry-After named."""
    receiver.answer(503, retry_after="600")
    gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
    (waiting,) = wait_until(lambda: [one for one in undelivered(gateway) if one.why == "503"], "the first try's end")
    assert waiting.due is not None
    assert 590_000 < waiting.due - waiting.created < 610_000
    assert len(receiver.told) == 1


def test_slow_receiver_is_not_waited_for(gateway: Gateway, receiver: Receiver) -> None:
    """A receiver that does not answer costs a try, and no answer to a caller."""
    receiver.hold.set()
    gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
    first = wait_until(lambda: [one for one in undelivered(gateway) if one.why], "the first try's end")
    assert first[0].why == "the receiver took too long"
    receiver.hold.clear()
    receiver.release.set()
    all_delivered(gateway)


def test_slow_receiver_holds_nobody_up(gateway: Gateway, receiver: Receiver) -> None:
    """While a key's receiver hangs, other keys' receivers are told."""
    nobody = gateway.new_key()[1]
    receiver.hold.set()
    for _ in range(6):
        gateway.generate(headers=ASYNC | {"X-Gateway-Webhook": receiver.url})
    receiver.wait(4)
    receiver.hold.clear()
    gateway.generate(headers={"X-Gateway-Webhook": f"{receiver.origin}/quick", "authorization": f"Bearer {nobody}"})
    wait_until(lambda: [one for one in receiver.told if one.path == "/quick"], "the other key's message")
    receiver.release.set()
    all_delivered(gateway)


def test_repetition_is_told_once(gateway: Gateway, receiver: Receiver) -> None:
    """Copies of one request are told once; one that names another address is told there, also after the end."""
    keyed = {"idempotency-key": "k", "X-Gateway-Webhook": receiver.url}
    for _ in range(2):
        gateway.generate(headers=keyed)
    receiver.wait()
    other = gateway.generate(headers=keyed | {"X-Gateway-Webhook": f"{receiver.origin}/late"})
    assert other.headers["idempotent-replayed"] == "true"
    told = receiver.wait(2)
    all_delivered(gateway)
    assert [one.path for one in told] == ["/hook", "/late"]
    assert told[0].id != told[1].id
    assert told[0].facts == told[1].facts
    assert len(gateway.simulator.book()) == 1


def test_task_has_so_many_addresses(gateway: Gateway, receiver: Receiver) -> None:
    """The eleventh address of one task is refused, and the task can still be joined."""
    for number in range(10):
        gateway.generate(headers={"idempotency-key": "k", "X-Gateway-Webhook": f"{receiver.url}/{number}"})
    answer = gateway.generate(headers={"idempotency-key": "k", "X-Gateway-Webhook": f"{receiver.url}/10"})
    assert answer.status_code == 400
    assert "10 webhook addresses" in error_of(answer)["message"]
    assert gateway.generate(headers={"idempotency-key": "k"}).status_code == 200
    assert len(receiver.wait(10)) == 10


@pytest.mark.parametrize(
    "url",
    [
        *("", "nonsense", "ftp://a.test/", "http://a.test/", "https://a.test:8443/", "https://u:p@8.8.8.8/"),
        *(
            "https://127.0.0.1/",
            "https://localhost/",
            "https://169.254.169.254/x",
            "https://[::1]/",
            "https://10.1.2.3/",
        ),
        *("http://127.0.0.1:9/", "https://2130706433/", "https://nobody.invalid/", "https://8.8.8.8/" + "x" * 2048),
    ],
)
def test_bad_address_is_refused_first(gateway: Gateway, url: str) -> None:
    """An address that would not be opened is a 400 that names the header, before anything is spent."""
    answer = gateway.generate(headers={"X-Gateway-Webhook": url})
    message = assert_refused(gateway, answer, 400, None)
    assert "X-Gateway-Webhook" in message
    assert gateway.spent().usd_held == gateway.spent().usd_posted == 0
    dry = gateway.generate(headers={"X-Gateway-Webhook": url, "X-Gateway-Dry-Run": "1"})
    assert dry.status_code == 400


def test_two_addresses_are_refused(gateway: Gateway, receiver: Receiver) -> None:
    """Two of the headers are refused: neither is dropped in silence."""
    headers = [("X-Gateway-Webhook", receiver.url), ("X-Gateway-Webhook", f"{receiver.url}2")]
    answer = gateway.client.post(
        "/v1/images/generations", headers=[*gateway.auth.items(), *headers], json={"prompt": "a cat"}
    )
    assert answer.status_code == 400
    assert "X-Gateway-Webhook" in error_of(answer)["message"]


def test_address_is_judged_again(lone: Lone, receiver: Receiver) -> None:
    """What was allowed when it was set is not opened once it is not any more, and the operator sees why."""
    gateway = lone({"origins": []})
    assert gateway.record is not None
    gateway.change_key(gateway.record.id, webhook=receiver.url)
    gateway.generate(headers=ASYNC)
    lost = given_up(gateway)
    assert (lost.tries, lost.why) == (3, "not opened: only https:// addresses are opened")
    assert not receiver.told


def test_rotated_secret_overlaps(gateway: Gateway, receiver: Receiver) -> None:
    """After a rotation both secrets verify for the grace time; without grace the new one alone."""
    assert gateway.record is not None
    key_id = gateway.record.id

    def tell() -> Told:
        known = len(receiver.told)
        gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
        return receiver.wait(known + 1)[-1]

    keep_keys(gateway, lambda keys: keys.rotate_webhook(key_id))
    told = tell()
    assert told.verify(secret_of(gateway, 1)) == told.verify(secret_of(gateway, 2))
    keep_keys(gateway, lambda keys: keys.rotate_webhook(key_id, grace_s=0))
    last = tell()
    last.verify(secret_of(gateway, 3))
    for number in (1, 2):
        with pytest.raises(WebhookVerificationError):
            last.verify(secret_of(gateway, number))


def test_deleted_key_is_told_nothing(lone: Lone, receiver: Receiver) -> None:
    """What still waits for a key that was deleted is given up."""
    gateway = lone({"retries": [0.5]})
    assert gateway.record is not None
    receiver.answer(500)
    gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
    receiver.wait()
    key_id = gateway.record.id
    keep_keys(gateway, lambda keys: keys.delete(key_id))
    assert given_up(gateway).why == "the key was deleted"
    assert len(receiver.told) == 1


def test_full_queue_is_seen(lone: Lone, receiver: Receiver) -> None:
    """Where too many wait for one key, the next is given up at once, and can be made later."""
    gateway = lone({"retries": [600], "per_key": 1})
    receiver.answer(500)
    gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
    wait_until(lambda: [one for one in undelivered(gateway) if one.why == "500"], "the first try's end")
    gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
    lost = given_up(gateway)
    assert lost.why == "too many wait for this key"
    assert ask(gateway, lambda webhook_queue: webhook_queue.retry(lost.id))
    assert receiver.wait(2)[1].facts["data"]["task_id"] == lost.task


def test_no_secret_is_stored(gateway: Gateway, receiver: Receiver) -> None:
    """Neither the signing secret nor a delivered message stays in the store."""
    receiver.answer(500)
    gateway.generate(headers={"X-Gateway-Webhook": receiver.url})
    receiver.wait(2)
    all_delivered(gateway)
    stored = asyncio.run(read_everything(gateway.store_url))
    assert secret_of(gateway) not in stored
    assert "whsec_" not in stored
    assert "igw}:webhook" not in stored


def test_without_webhook_nothing_is_queued(gateway: Gateway) -> None:
    """A task that tells nobody leaves nothing of it in the store."""
    gateway.generate()
    gateway.settle()
    assert "igw}:webhook" not in asyncio.run(read_everything(gateway.store_url))
