"""`imagegate webhooks` and the secrets of keys' webhooks: shown, retried and rotated from the shell."""

from __future__ import annotations

import asyncio

import pytest

from gateway.ids import new_id
from gateway.state.task_store import End, Hook, Promise, TaskRecord, TaskStore
from gateway.state.webhook_queue import WebhookQueue
from gateway.store.client import CommandQueue, connect
from gateway.tasks.webhook_signature import make_secret
from tests.conftest import Valkey
from tests.support.shell import SECRET, Shell

URL = "https://8.8.8.8/hook"


@pytest.fixture
def valkey(lone_valkey: Valkey) -> Valkey:
    """A store that no gateway delivers from."""
    lone_valkey.flush()
    return lone_valkey


async def queue(url: str, *, lost: bool) -> str:
    """Have one message wait, or be given up; its id."""
    redis, command_queue = connect(url), CommandQueue(url)
    task, hook = new_id("task"), Hook(id=new_id("msg"), key="key_1", url=URL, base_url="https://gateway.test")
    record = TaskRecord(id=task, promise=Promise(key="key_1", operation="generation", n=1, created=1))
    store, webhook_queue = TaskStore(redis, command_queue), WebhookQueue(command_queue)
    await store.open(record, hook)
    await store.end(record.with_end(End(status="succeeded", completed=2)))
    if lost:
        await webhook_queue.lose(hook.id, "503", "{}")
    await command_queue.aclose()
    await redis.aclose()
    return hook.id


def test_undelivered_is_shown_and_retried(shell: Shell) -> None:
    """What waits and what was given up is listed; one, or all that was given up, is tried again, and that is logged."""
    waiting, *lost = (asyncio.run(queue(shell.url, lost=lost)) for lost in (False, True, True))
    shown = {one["id"]: one for one in shell.ask("webhooks")["data"]}
    assert {name: (one["state"], one["why"]) for name, one in shown.items()} == {
        waiting: ("waiting", ""),
        **dict.fromkeys(lost, ("lost", "503")),
    }
    assert (shown[waiting]["url"], shown[waiting]["key"], shown[lost[0]]["due"]) == (URL, "key_1", None)
    assert shown[waiting]["due"].endswith("Z")
    table = [line.split("\t") for line in shell.type("webhooks").stdout.splitlines()]
    assert table[0][:4] == ["id", "state", "tries", "why"]
    assert len(table) == 4
    assert shell.ask("webhooks", "--key", "key_2")["data"] == []
    after = {one["id"]: one["state"] for one in shell.ask("webhooks", "--retry", lost[0])["data"]}
    assert after == {waiting: "waiting", lost[0]: "waiting", lost[1]: "lost"}
    assert {one["state"] for one in shell.ask("webhooks", "--retry", "all")["data"]} == {"waiting"}
    assert [(action, subject) for _, action, subject in shell.log()] == [("webhook.retry", one) for one in lost]
    assert shell.type("webhooks", "--retry", "msg_nothing").exit_code == 1


def test_address_is_set_and_cleared(shell: Shell) -> None:
    """A key's address is kept, shown, changed and taken away; one that would not be opened is refused by its option."""
    key = shell.ask("keys", "create", "ana", "--webhook", URL)["id"]
    assert shell.ask("keys", "show", key)["webhook"] == URL
    assert shell.ask("keys", "change", key, "--webhook", f"{URL}2")["webhook"] == f"{URL}2"
    for wrong in ("http://8.8.8.8/", "https://10.0.0.1/", "https://localhost/", "ftp://8.8.8.8/", "nonsense"):
        done = shell.type("keys", "change", key, "--webhook", wrong)
        assert (done.exit_code, "Invalid value for --webhook" in done.output) == (2, True), done.output
    assert shell.ask("keys", "change", key, "--clear", "webhook")["webhook"] is None


def test_secret_is_shown_and_rotated(shell: Shell) -> None:
    """A key's secret is the same each time, alone on stdout; a rotation makes another and says until when both sign."""
    key = shell.ask("keys", "create", "ana")["id"]
    first = shell.type("keys", "webhook-secret", key).stdout.strip()
    assert first == make_secret(SECRET.encode(), key, 1) == shell.ask("keys", "webhook-secret", key)["secret"]
    rotated = shell.ask("keys", "webhook-secret", key, "--rotate", "--grace", "1h")
    assert rotated["secret"] == make_secret(SECRET.encode(), key, 2)
    assert rotated["former_until"] is not None
    assert shell.ask("keys", "webhook-secret", key, "--rotate", "--grace", "0")["former_until"] is None
    assert [action for _, action, _ in shell.log()] == ["key.create", "key.rotate_webhook", "key.rotate_webhook"]
    assert shell.type("keys", "webhook-secret", "key_nothing").exit_code == 1


def test_wrong_signing_key_tells_nothing(shell: Shell) -> None:
    """A command with another signing key than the store's prints no secret: no receiver could use it."""
    key = shell.ask("keys", "create", "ana")["id"]
    assert shell.type("keys", "webhook-secret", key).exit_code == 0
    shell.env["GATEWAY_SIGNING_KEY"] = "t" * 32
    done = shell.type("keys", "webhook-secret", key)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "GATEWAY_SIGNING_KEY" in done.output
