"""Webhooks over the admin API: keys' addresses and secrets, and messages that have not arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from gateway.tasks.webhook_signature import make_secret
from tests.api.test_tasks import ASYNC
from tests.conftest import Valkey
from tests.support.gateways import serve
from tests.support.operator_client import TOKEN, Office
from tests.support.simulators import Simulator, wait_until
from tests.support.store_reader import SECRETS, read_everything
from tests.support.webhook_receiver import Receiver


@pytest.fixture
def office(simulator: Simulator, lone_valkey: Valkey, receiver: Receiver) -> Iterator[Office]:
    """The office of the one gateway of its store, which gives up after the first try."""
    lone_valkey.flush()
    rules = {"origins": [receiver.origin], "retries": [], "look_every": 0.1}
    with serve(simulator, lone_valkey.url, {"webhooks": rules}, {"admin_token": TOKEN}) as gateway:
        gateway.record, gateway.key = gateway.new_key()
        yield Office(gateway)


def test_lost_message_is_seen_and_sent(office: Office, receiver: Receiver) -> None:
    """What was given up is listed with its reason, of a key or of all, and is sent when it is retried."""
    key = office.post("/keys", name="ana", webhook=receiver.url)
    receiver.answer(500)
    headers = ASYNC | {"authorization": f"Bearer {key['key']}"}
    task = office.gateway.generate(headers=headers).json()["task_id"]
    (lost,) = wait_until(lambda: [one for one in office.get("/webhooks")["data"] if one["state"] == "lost"], "the loss")
    told = (lost["task"], lost["key"], lost["url"], lost["tries"], lost["why"], lost["due"])
    assert told == (task, key["id"], receiver.url, 1, "500", None)
    assert office.get("/webhooks", key="key_other")["data"] == []
    assert office.post(f"/webhooks/{lost['id']}/retry") == {"id": lost["id"], "retried": True}
    assert receiver.wait(2)[1].id == lost["id"]
    wait_until(lambda: not office.get("/webhooks")["data"], "the end of the delivery")
    assert [one["action"] for one in office.get("/changes", subject=lost["id"])["data"]] == ["webhook.retry"]
    assert office.refuse("POST", "/webhooks/msg_nothing/retry")[:2] == (404, "webhook_not_found")


def test_secret_is_told_to_admins(office: Office) -> None:
    """The role admin reads and rotates a key's secret; a viewer does not, and no answer about the key has it."""
    key = office.post("/keys", name="ana")["id"]
    told = office.post(f"/keys/{key}/webhook-secret")
    assert told == {"id": key, "secret": make_secret(SECRETS.signing_key, key, 1), "former": None, "former_until": None}
    rotated = office.post(f"/keys/{key}/webhook-secret", rotate=True, grace_s=60)
    assert (rotated["secret"], rotated["former"]) == (make_secret(SECRETS.signing_key, key, 2), told["secret"])
    assert office.post(f"/keys/{key}/webhook-secret") == rotated
    assert office.post(f"/keys/{key}/webhook-secret", rotate=True, grace_s=0)["former"] is None
    viewer = office.hire("looks")
    assert viewer.refuse("POST", f"/keys/{key}/webhook-secret", json={})[:2] == (403, "role_not_allowed")
    assert "whsec_" not in viewer.ask("GET", f"/keys/{key}").text + viewer.ask("GET", "/changes").text
    assert "whsec_" not in asyncio.run(read_everything(office.gateway.store_url))


@pytest.mark.parametrize("url", ["http://8.8.8.8/", "https://10.0.0.1/", "https://localhost/", "nonsense", ""])
def test_bad_address_is_refused(office: Office, url: str) -> None:
    """An address that would not be opened is refused by its field, and the key is not made or changed."""
    assert office.refuse("POST", "/keys", json={"name": "ana", "webhook": url}) == (400, "invalid_value", "webhook")
    key = office.post("/keys", name="bob")["id"]
    assert office.refuse("PATCH", f"/keys/{key}", json={"webhook": url}) == (400, "invalid_value", "webhook")
    assert [one["webhook"] for one in office.get("/keys")["data"]] == [None, None]
