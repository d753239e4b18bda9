"""What a message says, and when it is sent again."""

from __future__ import annotations

import json

import pytest

from gateway import errors
from gateway.catalogue.document import Webhooks
from gateway.state.task_store import End, Promise, TaskImage, TaskRecord
from gateway.state.webhook_queue import WebhookDelivery
from gateway.tasks.webhooks import find_pause, write_message

PROMISE = Promise(key="key_1", operation="generation", model="gpt-image-2", n=2, created=1_795_255_910)
MADE = TaskImage(
    slot=0,
    artifact="art_1.png",
    format="png",
    width=1024,
    height=1024,
    bytes=1000,
    created=1,
    expires=2,
    upstream="anyfast",
    revised_prompt="a secret walrus",
)
BASE = "https://images.example.com"


def delivery(tries: int, created: int = 0) -> WebhookDelivery:
    return WebhookDelivery("msg_1", "task_1", "key_1", "https://a.test/", BASE, created, tries)


def write(end: End, *images: TaskImage) -> dict[str, object]:
    return json.loads(write_message(TaskRecord(id="task_1", promise=PROMISE, images=images, end=end), BASE))


def test_message_is_thin() -> None:
    """A message says how the task ended and where to ask, and nothing of what was asked for or made."""
    end = End(status="succeeded", completed=1_795_255_951, calls=1, upstreams=("anyfast",), spent=30_000)
    assert write(end, MADE) == {
        "type": "image.task.succeeded",
        "timestamp": "2026-11-21T10:12:31Z",
        "data": {
            "task_id": "task_1",
            "object": "image.task",
            "status": "succeeded",
            "created_at": 1_795_255_910,
            "completed_at": 1_795_255_951,
            "model": "gpt-image-2",
            "poll_url": f"{BASE}/v1/tasks/task_1",
            "cost_usd": "0.030000",
            "error": None,
        },
    }


def test_message_stays_the_same() -> None:
    """A task whose pictures have expired since is told as it ended."""
    end = End(status="succeeded", completed=3)
    assert write(end, MADE)["type"] == "image.task.succeeded"


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_message_has_the_error(status: str) -> None:
    """What came to nothing says why, in OpenAI's words."""
    error = errors.UpstreamOutcomeUnknown("Nobody knows.", should_retry=False)
    told = write(End.model_validate({"status": status, "completed": 3, "spent": None, "error": error.to_facts()}))
    assert told["type"] == f"image.task.{status}"
    assert told["data"] == {**told["data"], "status": status, "cost_usd": None, **error.body()}  # type: ignore[dict-item]


def test_running_task_is_not_told() -> None:
    """There is no message of a task that runs."""
    with pytest.raises(ValueError, match="no end"):
        write_message(TaskRecord(id="task_1", promise=PROMISE), BASE)


def test_pauses_grow_to_an_end() -> None:
    """The shipped pauses grow, spread a little, use up most of a day and end within it, however chance has it."""
    rules = Webhooks()
    for _ in range(1000):
        at, pauses = 0.0, []
        while (pause := find_pause(rules, delivery(len(pauses) + 1), None, at)) is not None:
            pauses.append(pause)
            at += pause
        assert len(pauses) == len(rules.retries)
        assert all(0.9 * plain <= pause <= 1.1 * plain for pause, plain in zip(pauses, rules.retries, strict=True))
        assert 18 * 3600 < at <= rules.give_up


def test_retry_after_only_lengthens() -> None:
    """The receiver's wish makes a pause longer and never shorter; beyond the end there is no further try."""
    rules = Webhooks(retries=(10,))
    assert find_pause(rules, delivery(1), 60, 0) == 60
    assert (find_pause(rules, delivery(1), 0, 0) or 0) >= 9
    assert find_pause(rules, delivery(1), rules.give_up + 1, 0) is None
    assert find_pause(rules, delivery(2), None, 0) is None


def test_late_try_is_the_last() -> None:
    """So long after the task's end no further try is made, however many are left."""
    rules = Webhooks(retries=(10, 10), give_up=100)
    assert find_pause(rules, delivery(1, created=1_000_000), None, 1_050) is not None
    assert find_pause(rules, delivery(1, created=1_000_000), None, 1_095) is None
