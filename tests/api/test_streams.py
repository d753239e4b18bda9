"""Answers as server-sent events: one completed event an image as it arrives, comments in between, honest endings."""

from __future__ import annotations

import base64
import io
import json
import time
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from PIL import Image

from gateway.dollars import show_usd
from tests.support.gateways import GENERATIONS, OFFICIAL, TASKS, VARIANT, Gateway, Gateways, error_of, small, wait_until
from tests.support.plain_pictures import png


@dataclass
class Streamed:
    """A stream as it was read: its status, headers, comments, and (event, data, seconds) in order."""

    status: int
    headers: Any
    comments: list[str] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any], float]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.events]

    @property
    def data(self) -> list[dict[str, Any]]:
        return [data for _, data, _ in self.events]


def stream(
    gateway: Gateway, path: str = GENERATIONS, headers: dict[str, str] | None = None, **request: Any
) -> Streamed:
    """Read a whole stream, held to the event-stream format."""
    began = time.monotonic()
    if not request:
        request = {"json": small(stream=True)}
    with gateway.client.stream("POST", path, headers=gateway.auth | (headers or {}), **request) as answer:
        read = Streamed(answer.status_code, answer.headers)
        if answer.status_code != 200:
            answer.read()
            assert error_of(answer)
            return read
        text = ""
        for piece in answer.iter_text():
            text += piece
            *blocks, text = text.split("\n\n")
            for block in blocks:
                _take(read, block, time.monotonic() - began)
        assert text == "", "the stream ends within an event"
    return read


def _take(read: Streamed, block: str, seconds: float) -> None:
    if block.startswith(":"):
        read.comments.append(block)
        return
    name, data = block.split("\n")
    assert name.startswith("event: ")
    assert data.startswith("data: ")
    read.events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: ")), seconds))


def streamed(gateway: Gateway, **fields: Any) -> Streamed:
    return stream(gateway, json=small(stream=True, **fields))


@pytest.fixture
def lively(gateways: Gateways) -> Gateway:
    """A gateway whose streams do not wait long for their first event."""
    return gateways.open(limits={"keep_alive": 0.2})


def test_completed_event_is_whole(gateway: Gateway) -> None:
    """A generation's event has OpenAI's fields, a picture that decodes, and what the gateway did."""
    read = streamed(gateway, quality="low")
    assert read.headers["content-type"].startswith("text/event-stream")
    assert read.headers["cache-control"] == "no-store"
    assert read.names == ["image_generation.completed"]
    (data,) = read.data
    assert set(data) == {
        *("type", "b64_json", "created_at", "size", "quality", "background", "output_format"),
        *("usage", "revised_prompt", "gateway"),
    }
    assert data["type"] == "image_generation.completed"
    assert (data["size"], data["quality"], data["output_format"]) == ("1024x640", "low", "png")
    assert Image.open(io.BytesIO(base64.b64decode(data["b64_json"]))).size == (1024, 640)
    assert data["gateway"] == {
        "task": read.headers["x-gateway-task"],
        "index": 0,
        "upstream": "anyfast",
        "cost_usd": show_usd(gateway.booked()),
        "size": "1024x640->1024x640",
        "dropped": [],
    }
    assert not gateway.leftovers()


def test_edit_events_are_named_so(gateway: Gateway) -> None:
    """An edit's events are `image_edit.completed`, and name what was dropped."""
    data = {"prompt": "a cat", "model": OFFICIAL, "stream": "true", "moderation": "low", "style": "vivid"}
    read = stream(gateway, "/v1/images/edits", data=data, files={"image": png()})
    assert read.names == ["image_edit.completed"]
    assert set(read.data[0]["gateway"]["dropped"]) == {"moderation", "style"}


def test_event_tells_of_its_own_credential(gateways: Gateways) -> None:
    """Where a second key serves, the event tells what that one was asked and not what the first would have been."""
    able = {"name": "able", "key": "env:WRONG_KEY", "group": "direct", "capabilities": {"edit_quality": True}}
    plain = {"name": "plain", "key": "env:ANYFAST_API_KEY", "group": "direct"}
    env = {"WRONG_KEY": "sim-nobody", "ANYFAST_API_KEY": "sim-direct"}
    gateway = gateways.open(env=env, upstreams={"anyfast": {"credentials": [able, plain]}})
    data = {"prompt": "a cat", "model": OFFICIAL, "stream": "true"}
    (event,) = stream(gateway, "/v1/images/edits", data=data, files={"image": png()}).data
    # The first credential would have been sent `medium`.
    assert event["quality"] == "auto"
    assert len(gateway.simulator.book()) == 1


def test_one_event_an_image(gateway: Gateway) -> None:
    """Each of n images has its own event and its own index, and the call's usage stands at one of them."""
    read = streamed(gateway, n=3)
    assert read.names == ["image_generation.completed"] * 3
    assert sorted(data["gateway"]["index"] for data in read.data) == [0, 1, 2]
    assert len({data["b64_json"] for data in read.data}) == 3
    assert sum("usage" in data for data in read.data) == 1


def test_events_come_as_images_arrive(lively: Gateway) -> None:
    """The first image is sent while the others are still being made."""
    lively.simulator.fault("latency", seconds=1, times=2, skip=1)
    read = streamed(lively, model=VARIANT, n=3)
    seconds = [second for _, _, second in read.events]
    assert len(seconds) == 3
    assert seconds[1] - seconds[0] > 0.4


def test_comments_keep_stream_alive(lively: Gateway) -> None:
    """While nothing arrives comments do, so that no proxy and no SDK gives up."""
    lively.simulator.fault("latency", seconds=0.9)
    read = streamed(lively)
    assert len(read.comments) >= 2
    assert set(read.comments) == {": keep-alive"}
    assert read.names == ["image_generation.completed"]


def test_sdk_timeout_paces_comments(gateway: Gateway) -> None:
    """An SDK's own time-out counts from byte to byte: a third of it passes between comments at most."""
    gateway.simulator.fault("latency", seconds=1)
    read = stream(gateway, headers={"x-stainless-read-timeout": "0.9"}, json=small(stream=True))
    assert len(read.comments) >= 2
    assert read.names == ["image_generation.completed"]


def test_stream_outlives_answer_deadline(gateways: Gateways) -> None:
    """A stream has no deadline: its comments show that the work goes on."""
    gateway = gateways.open(limits={"answer_within": 0.3, "keep_alive": 0.2})
    gateway.simulator.fault("latency", seconds=0.8)
    assert streamed(gateway).names == ["image_generation.completed"]
    gateway.simulator.fault("latency", seconds=0.8)
    assert gateway.generate().status_code == 504


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"prompt": ""}, 400),
        ({"background": "transparent"}, 400),
        ({"model": "none"}, 404),
        ({"prompt": "forbidden-content"}, 400),
        ({"prompt": "forbidden-content", "model": TASKS, "size": "1024x1024"}, 400),
    ],
)
def test_refusals_keep_their_status(gateway: Gateway, fields: dict[str, Any], status: int) -> None:
    """What is refused before the first event is refused by its status and not within a 200."""
    read = streamed(gateway, **fields)
    assert read.status == status


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"status": 500}, 502), ({"status": 429, "retry_after": 60}, 429), ({"status": 502, "html": True}, 424)],
)
def test_early_failures_keep_their_status(gateway: Gateway, fault: dict[str, Any], status: int) -> None:
    """An upstream that fails before the stream has begun is told by the status."""
    gateway.simulator.fault("status", **fault)
    read = streamed(gateway)
    assert read.status == status
    assert read.headers["x-gateway-task"]


def test_late_failure_is_error_event(lively: Gateway) -> None:
    """Once the stream has begun a failure is an event, and only where no image came."""
    lively.simulator.fault("delay", seconds=0.6)
    lively.simulator.fault("status", status=500)
    read = streamed(lively)
    assert (read.status, read.names) == (200, ["error"])
    assert read.data[0]["error"]["code"] == "upstream_error"
    assert set(read.data[0]["error"]) == {"message", "type", "param", "code"}


def test_partial_delivery_is_comment(lively: Gateway) -> None:
    """Where some images came, those that did not are told in a comment and never as an error."""
    lively.simulator.fault("reset", when="after", skip=1)
    read = streamed(lively, model=VARIANT, n=3)
    assert read.names == ["image_generation.completed"] * 2
    assert read.comments[-1] == ": partial 2/3"


def test_links_come_in_events(gateway: Gateway) -> None:
    """An event always holds the bytes; `response_format: url` or an alias with links adds a working link."""
    for asked in ({"response_format": "url"}, {"model": "dall-e-3"}):
        (data,) = streamed(gateway, **asked).data
        assert gateway.client.get(data["gateway"]["url"]).content == base64.b64decode(data["b64_json"])
        assert "url" not in data
    (data,) = streamed(gateway).data
    assert "url" not in data["gateway"]


@pytest.mark.parametrize("wanted", [0, 1, 3])
def test_missing_partial_images_are_reported(gateway: Gateway, wanted: int) -> None:
    """A caller that would take partial images reads in the event that none came."""
    read = streamed(gateway, partial_images=wanted)
    assert read.names == ["image_generation.completed"]
    assert read.data[0]["gateway"].get("partial_images") == (f"0/{wanted}" if wanted else None)


def test_stream_works_without_v1_and_from_tasks(gateway: Gateway) -> None:
    """Every upstream can be streamed, by either path."""
    read = stream(gateway, "/images/generations", json=small(model=TASKS, size="1024x1024", stream=True, n=2))
    assert read.names == ["image_generation.completed"] * 2


def test_hang_up_keeps_streamed_images(lively: Gateway) -> None:
    """A client that leaves a stream loses no paid image: the work ends and is recorded."""
    lively.simulator.fault("latency", seconds=0.8, times=2)
    with lively.client.stream("POST", GENERATIONS, headers=lively.auth, json=small(stream=True, n=2)) as answer:
        task_id = answer.headers["x-gateway-task"]
        next(answer.iter_bytes())
    wait_until(lambda: lively.read_task(task_id)["status"] == "succeeded", "the end of the task")
    assert len(lively.read_task(task_id)["images"]) == 2
    assert len(lively.simulator.book()) == 1
    assert not lively.leftovers()


def test_openai_sdk_reads_stream(lively: Gateway) -> None:
    """The customers' own library gets each image, and raises on an error event."""
    with openai.OpenAI(base_url=f"{lively.url}/v1", api_key=lively.key, max_retries=0, timeout=20) as client:
        lively.simulator.fault("latency", seconds=0.5)
        events = list(client.images.generate(prompt="a cat", model=VARIANT, n=2, stream=True))
        assert [event.type for event in events] == ["image_generation.completed"] * 2
        assert all(event.b64_json for event in events)  # type: ignore[union-attr]
        lively.simulator.fault("delay", seconds=0.5)
        lively.simulator.fault("status", status=500)
        with pytest.raises(openai.APIError, match="failed"):
            list(client.images.generate(prompt="a cat", model=OFFICIAL, stream=True))
