"""Signatures of webhooks: what Standard Webhooks' own library believes, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from gateway.tasks.webhook_signature import make_secret, sign
from tests.support.markdown import read
from tests.support.ports import free_port
from tests.support.simulators import wait_until

KEY = b"s" * 32
BODY = '{"type":"image.task.succeeded","data":{"model":"gpt-image-2 — ü"}}'.encode()


PAGE = read(Path(__file__).parents[2] / "docs" / "webhooks.md")
RECEIVER, BY_HAND = (block for language, block in PAGE.blocks if language == "python")


def headers(*secrets: str, body: bytes = BODY, message_id: str = "msg_1", moment: int | None = None) -> dict[str, str]:
    moment = int(time.time()) if moment is None else moment
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(moment),
        "webhook-signature": sign(secrets, message_id, moment, body),
    }


def test_specifications_example() -> None:
    """The signature is the one that the specification's implementations agree on."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    made = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_library_believes_it() -> None:
    """The library reads what was signed, with the first secret or with the second."""
    first, second = make_secret(KEY, "key_1", 1), make_secret(KEY, "key_1", 2)
    for secret in (first, second):
        assert Webhook(secret).verify(BODY, headers(second, first))["type"] == "image.task.succeeded"


def test_library_refuses_the_rest() -> None:
    """Another secret, id, time or body, and an old message, are refused."""
    secret = make_secret(KEY, "key_1", 1)
    right = headers(secret)
    wrong = [
        headers(make_secret(KEY, "key_1", 2)),
        headers(make_secret(KEY, "key_2", 1)),
        headers(make_secret(b"t" * 32, "key_1", 1)),
        headers(secret, body=BODY + b" "),
        headers(secret, moment=int(time.time()) - 600),
        right | {"webhook-id": "msg_2"},
        right | {"webhook-timestamp": str(int(right["webhook-timestamp"]) + 1)},
    ]
    for one in wrong:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(BODY, one)


def test_secrets_are_apart() -> None:
    """Keys and numbers that look alike when they are put together have secrets of their own."""
    pairs = [("key_1", 11), ("key_11", 1), ("key_1", 1), ("key_1\n1", 1)]
    assert len({make_secret(KEY, key, number) for key, number in pairs}) == len(pairs)


def test_example_by_hand_verifies() -> None:
    """The page's few lines accept our signature, also among several, and no other."""
    names: dict[str, Any] = {}
    exec(BY_HAND, names)
    first, second = make_secret(KEY, "key_1", 1), make_secret(KEY, "key_1", 2)
    for secret in (first, second):
        assert names["is_ours"](secret, headers(second, first), BODY)
    assert not names["is_ours"](first, headers(second), BODY)
    assert not names["is_ours"](first, headers(first), BODY + b" ")
    assert not names["is_ours"](first, headers(first, moment=int(time.time()) - 600), BODY)


def test_example_receiver_works(tmp_path: Path) -> None:
    """The page's receiver, pasted, accepts our messages and refuses others."""
    secret = make_secret(KEY, "key_1", 1)
    port = free_port()
    script = tmp_path / "receiver.py"
    script.write_text(RECEIVER.replace("8000", str(port)))
    env = dict(os.environ) | {"WEBHOOK_SECRET": secret}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    body = b'{"type":"image.task.failed","data":{"task_id":"task_1"}}'

    def post(*secrets: str) -> int | None:
        try:
            return httpx.post(
                f"http://127.0.0.1:{port}/", content=body, headers=headers(*secrets, body=body)
            ).status_code
        except httpx.ConnectError:
            return None

    try:
        assert wait_until(lambda: post(make_secret(KEY, "key_1", 2)), "the receiver") == 401
        assert post(secret) == 204
        assert process.stdout is not None
        assert process.stdout.readline() == "image.task.failed task_1\n"
    finally:
        process.kill()
        process.communicate()
