"""Every kind of fault does what it says, and the book tells whether it was paid for."""

import base64
import io
import time
from typing import get_args

import pytest
from PIL import Image

from gateway.simulator import faults


def _picture(hand, answer):
    item = answer.json()["data"][0]
    data = base64.b64decode(item["b64_json"]) if "b64_json" in item else hand.client.get(item["url"]).content
    return Image.open(io.BytesIO(data))


def test_status_is_not_paid(hand):
    """An error is answered in the vendor's shape and costs nothing."""
    options = {"status": 429, "code": "slow", "type": "rate", "message": "slow down", "retry_after": 7}
    hand.fault("status", options, upstream="anyfast")
    answer = hand.generate()
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.json() == {"error": {"message": "slow down", "type": "rate", "code": "slow"}}
    assert hand.book() == []
    assert hand.generate().status_code == 200


def test_status_after_acceptance_is_paid(hand):
    """A 5xx after acceptance is in the book, and refunded when the rule says so."""
    hand.fault("status", {"status": 502, "accepted": True, "html": True})
    hand.fault("status", {"status": 500, "accepted": True, "refunded": True, "empty": True})
    first, second = hand.generate(), hand.submit()
    assert first.headers["content-type"].startswith("text/html")
    assert (second.status_code, second.content) == (500, b"")
    assert [purchase["refunded"] for purchase in hand.book()] == [False, True]
    assert [purchase["images_delivered"] for purchase in hand.book()] == [0, 0]


def test_status_before_body(hand):
    """An error can be answered before the body is read."""
    hand.fault("status", {"status": 503, "when": "headers"}, upstream="apiany", endpoint="upload")
    files = {"file": ("x", hand.draw())}
    answer = hand.client.post("/apiany/v1/images/upload", headers=hand.headers("apiany"), files=files)
    assert answer.status_code == 503
    assert hand.log()[-1]["files"] == []


def test_status_with_headers(hand):
    """An answer may carry any header, and a 204 has no body."""
    hand.fault("status", {"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}, endpoint="models")
    assert hand.read("/v1/models").headers["location"] == "http://127.0.0.1:1/"
    hand.fault("status", {"status": 204}, endpoint="models")
    assert hand.read("/v1/models").content == b""


@pytest.mark.parametrize("when", ["headers", "before", "after"])
def test_delay_waits(hand, when):
    """A delay holds the request up at its moment and then lets it through."""
    hand.fault("delay", {"seconds": 0.1, "when": when})
    begun = time.monotonic()
    assert hand.generate().status_code == 200
    assert time.monotonic() - begun >= 0.1


def test_latency_replaces_pace(hand):
    """The time a picture takes can be set while the simulator runs, for tasks too."""
    hand.fault("latency", {"seconds": 0.15}, times=None)
    begun = time.monotonic()
    hand.generate()
    hand.finish(hand.submit())
    assert time.monotonic() - begun >= 0.3


def test_garbage_and_html(hand):
    """A 200 may be no JSON, or a page of HTML."""
    hand.fault("garbage")
    hand.fault("html", upstream="apiany")
    garbage, page = hand.generate(), hand.submit()
    assert (garbage.status_code, garbage.headers["content-type"]) == (200, "application/json")
    with pytest.raises(ValueError, match=r"\w"):
        garbage.json()
    assert page.status_code == 200
    assert page.text.startswith("<!DOCTYPE html>")
    assert [purchase["images_delivered"] for purchase in hand.book()] == [0, 0]


def test_error_in_200(hand):
    """A 200 may hold the vendor's error object, on a poll too."""
    hand.fault("error_200", {"code": 7}, upstream="anyfast")
    assert hand.generate().json()["error"]["code"] == 7
    hand.fault("error_200", endpoint="tasks")
    task_id = hand.submit().json()["task_id"]
    assert hand.read(f"/v1/tasks/{task_id}").json()["error"]["param"] is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [("empty", {"data": []}), ("items", {"data": [{}]}), ("null", {"data": None}), ("absent", {})],
)
def test_no_image(hand, data, expected):
    """A success without pictures comes in every form, from both vendors."""
    hand.fault("no_image", {"data": data}, times=2)
    direct = hand.generate().json()
    result = hand.finish(hand.submit())["result"]
    for body in (direct, result):
        shown = {"data": body["data"]} if "data" in body else {}
        if data == "items":
            shown = {"data": [{key: value for key, value in shown["data"][0].items() if value}]}
        assert shown == expected
    assert [purchase["images_delivered"] for purchase in hand.book()] == [0, 0]


def test_fewer_pictures(hand):
    """Fewer pictures than asked are made, and only they are paid for."""
    hand.fault("fewer", {"by": 2}, times=2)
    assert len(hand.generate(n=3).json()["data"]) == 1
    assert len(hand.finish(hand.submit(n=4))["result"]["data"]) == 2
    assert [purchase["n"] for purchase in hand.book()] == [1, 2]
    assert hand.book()[1]["price_usd"] == "0.030"


def test_wrong_size_and_format(hand):
    """A picture of another size and format than asked."""
    hand.fault("wrong_size", {"size": "1008x624"})
    hand.fault("wrong_format", {"format": "webp"})
    picture = _picture(hand, hand.generate(size="2048x2048"))
    assert (picture.size, picture.format) == ((1008, 624), "WEBP")
    assert hand.book()[0]["size_made"] == "1008x624"


def test_broken_image(hand):
    """Bytes that begin like a PNG and cannot be decoded."""
    hand.fault("broken_image")
    data = base64.b64decode(hand.generate().json()["data"][0]["b64_json"])
    assert data.startswith(b"\x89PNG")
    with pytest.raises((OSError, SyntaxError)):
        Image.open(io.BytesIO(data)).load()


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_padded_picture(hand, kind):
    """A padded picture has the size in bytes that was asked and still decodes."""
    hand.fault("pad", {"bytes": 3_000_000}, times=None)
    first, second = (hand.generate(output_format=kind).json()["data"][0]["b64_json"] for _ in range(2))
    assert first == second
    data = base64.b64decode(first)
    assert len(data) == 3_000_000
    Image.open(io.BytesIO(data)).load()


def test_policy(hand):
    """A policy refusal on demand: at submission, or as a failed task."""
    hand.fault("policy", {"code": "image_safety"})
    answer = hand.submit()
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "image_safety")
    assert hand.book() == []
    hand.fault("policy", {"at_submission": False})
    task = hand.finish(hand.submit())
    assert (task["status"], task["error"]["code"]) == ("failed", "content_policy")
    hand.fault("policy", upstream="anyfast")
    assert hand.generate().json()["error"]["code"] == "content_policy_violation"


def test_task_endings(hand):
    """A task may fail, expire, or never end, refunded or not."""
    hand.fault("task_failed", {"code": "boom", "refunded": False})
    hand.fault("task_expired")
    failed = hand.finish(hand.submit())
    assert (failed["status"], failed["error"]["code"]) == ("failed", "boom")
    assert hand.finish(hand.submit())["status"] == "expired"
    assert [purchase["refunded"] for purchase in hand.book()] == [False, True]
    hand.fault("task_never")
    task_id = hand.submit().json()["task_id"]
    finished = hand.finish(hand.submit())
    assert finished["status"] == "succeeded"
    assert hand.read(f"/v1/tasks/{task_id}").json()["status"] == "processing"


def test_task_words(hand):
    """A task tells its states in any words."""
    words = {"pending": "queued", "running": "painting", "done": "finished"}

    def read_until(word: str, **faults: dict[str, object]) -> list[str]:
        hand.fault("status_word", words)
        for kind, options in faults.items():
            hand.fault(kind, options)
        submission = hand.submit().json()
        seen = [submission["status"]]
        while seen[-1] != word:
            seen.append(hand.read(f"/v1/tasks/{submission['task_id']}").json()["status"])
        return seen

    # Each ends in a state that stays, so that no poll can come too late to see it.
    assert set(read_until("queued", latency={"seconds": 60})) == {"queued"}
    assert set(read_until("painting", task_never={})) <= {"queued", "painting"}
    assert set(read_until("finished")) <= {"queued", "painting", "finished"}


def test_submission_variants(hand):
    """A submission without poll_url, a 200 in place of 202, an edit that answers a task."""
    hand.fault("no_poll_url")
    assert "poll_url" not in hand.submit().json()
    hand.fault("task_answer")
    assert hand.submit().status_code == 200
    hand.fault("task_answer", {"status": 202}, endpoint="edits")
    edit = hand.edit(("image", hand.draw()), upstream="apiany")
    assert edit.status_code == 202
    assert hand.finish(edit)["status"] == "succeeded"


def test_dead_link(hand):
    """A link is dead as often as the rule says."""
    link = hand.finish(hand.submit())["result"]["data"][0]["url"]
    hand.fault("dead_link", {"status": 410})
    assert [hand.client.get(link).status_code for _ in range(2)] == [410, 200]


@pytest.mark.parametrize(
    ("shape", "pick"),
    [
        ("result.data.url", lambda task: task["result"]["data"][0]["url"]),
        ("result.urls", lambda task: task["result"]["urls"][0]),
        ("result.images.url", lambda task: task["result"]["images"][0]["url"]),
        ("result.images.url_list", lambda task: task["result"]["images"][0]["url"][0]),
        ("results", lambda task: task["results"][0]),
        ("results.url", lambda task: task["results"][0]["url"]),
        ("data", lambda task: task["data"][0]["url"]),
    ],
)
def test_apiany_link_shapes(hand, shape, pick):
    """A task's links stand wherever the vendor was ever seen to put them."""
    hand.fault("shape", {"shape": shape}, upstream="apiany")
    assert hand.client.get(pick(hand.finish(hand.submit()))).status_code == 200


def test_apiany_base64_shape(hand):
    """A task's result may hold the picture itself, and an edit's answer too."""
    hand.fault("shape", {"shape": "result.data.b64_json"}, upstream="apiany", times=2)
    item = hand.finish(hand.submit())["result"]["data"][0]
    assert base64.b64decode(item["b64_json"]).startswith(b"\x89PNG")
    edit = hand.edit(("image", hand.draw()), upstream="apiany")
    assert "b64_json" in edit.json()["data"][0]


def test_anyfast_shapes(hand):
    """An answer may be a link, a data URL, or miss what others have."""
    for shape in ("url", "data_url", "b64_data_url", "no_created", "no_usage", "with_size"):
        hand.fault("shape", {"shape": shape}, upstream="anyfast")
    bodies = [hand.generate().json() for _ in range(6)]
    assert hand.client.get(bodies[0]["data"][0]["url"]).status_code == 200
    assert bodies[1]["data"][0]["url"].startswith("data:image/png;base64,iVBOR")
    assert bodies[2]["data"][0]["b64_json"].startswith("data:image/png;base64,iVBOR")
    assert "created" not in bodies[3]
    assert "usage" not in bodies[4]
    assert bodies[5]["size"] == "1024x1024"


def test_slow_body_trickles(hand):
    """A slow body arrives whole, at its pace."""
    hand.fault("slow_body", {"bytes_per_second": 200_000, "chunk": 4_000})
    begun = time.monotonic()
    answer = hand.generate()
    assert answer.json()["data"]
    assert time.monotonic() - begun >= len(answer.content) / 200_000


def test_every_kind_is_documented(hand):
    """The manual names every kind of fault, and shows each one in use."""
    manual = (faults.__file__.rpartition("/gateway/")[0]) + "/docs/simulator.md"
    with open(manual) as file:
        text = file.read()
    union = get_args(faults.Fault)[0]
    kinds = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(union)}
    assert {kind for kind in kinds if f'"kind": "{kind}"' not in text} == set()


def test_manual_examples_are_accepted(hand):
    """Every rule shown in the manual is one the simulator takes."""
    manual = (faults.__file__.rpartition("/gateway/")[0]) + "/docs/simulator.md"
    with open(manual) as file:
        rules = [line for line in file if line.startswith('{"')]
    assert len(rules) >= 25
    for rule in rules:
        answer = hand.client.post("/_faults", content=rule)
        assert answer.status_code == 201, (rule, answer.text)
