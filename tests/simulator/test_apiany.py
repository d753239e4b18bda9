"""The stand-in apiany: tasks, uploads, edits and money, held to its pages."""

import io

import pytest
from PIL import Image


def _size(hand, url):
    return Image.open(io.BytesIO(hand.client.get(url).content)).size


def test_submission_is_a_promise(hand):
    """A submission answers 202 and a task, with what it reserved."""
    answer = hand.submit(n=2)
    body = answer.json()
    assert answer.status_code == 202
    assert body["poll_url"] == f"/v1/tasks/{body['task_id']}"
    assert body["status"] == "pending"
    assert body["credits"] == {"reserved": 30}
    assert body["request_id"] == answer.headers["x-request-id"]


def test_finished_task_holds_pictures(hand):
    """A finished task holds a link for every picture, at the snapped size."""
    task = hand.finish(hand.submit(n=2, size="1280x720"))
    links = [item["url"] for item in task["result"]["data"]]
    assert [_size(hand, link) for link in links] == [(1536, 1024)] * 2
    (purchase,) = hand.book()
    assert purchase["size_asked"] == "1280x720"
    assert purchase["size_made"] == "1536x1024"
    assert purchase["images_delivered"] == 2
    assert purchase["task_id"] == task["task_id"]


@pytest.mark.parametrize(
    "fields",
    [
        {"background": "opaque"},
        {"output_format": "png"},
        {"output_compression": 90},
        {"moderation": "auto"},
        {"response_format": "url"},
        {"mask": "x"},
        {"user": "x"},
    ],
)
def test_undocumented_field_refused(hand, fields):
    """A field no page documents is refused and written down."""
    answer = hand.submit(**fields)
    assert answer.status_code == 400
    assert answer.json()["error"].keys() == {"message", "type", "code", "param"}
    assert answer.json()["error"]["param"] in fields
    assert hand.log()[-1]["undocumented"] == list(fields)
    assert hand.book() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "7:5"},
        {"size": "large"},
        {"size": 1024},
        {"resolution": "8K"},
        {"resolution": "1k"},
        {"quality": "auto"},
        {"n": 0},
        {"n": 11},
        {"n": "1"},
        {"callback_url": "ftp://127.0.0.1/"},
        {"input_images": []},
        {"input_images": ["https://example.com/a.png"]},
        {"input_images": "https://example.com/a.png"},
        {"model": "gpt-image-2-c"},
    ],
)
def test_undocumented_value_refused(hand, fields):
    """A documented field with a value of no page is refused and written down."""
    assert hand.submit(**fields).status_code in (400, 404)
    assert hand.log()[-1]["refused"] == list(fields)


def test_uploads_become_inputs(hand):
    """Only files uploaded here, and pictures at that, can be referred to."""
    url = hand.upload(hand.draw("WEBP", (48, 64)))
    assert hand.client.get(url).content == hand.draw("WEBP", (48, 64))
    task = hand.finish(hand.submit(input_images=[url] * 16))
    assert _size(hand, task["result"]["data"][0]["url"]) == (1024, 1536)
    assert hand.book()[0]["references"] == 16
    assert hand.submit(input_images=[url] * 17).status_code == 400
    files = {"file": ("x", b"GIF89a nothing")}
    answer = hand.client.post("/apiany/v1/images/upload", headers=hand.headers("apiany"), files=files)
    assert answer.status_code == 400


def test_edit_answers_at_once(hand):
    """An edit takes one image, a mask and a size, and answers its link."""
    image, mask = ("image", hand.draw()), ("mask", hand.draw(mode="RGBA"))
    answer = hand.edit(image, mask, upstream="apiany", size="1:1")
    assert _size(hand, answer.json()["data"][0]["url"]) == (1024, 1024)
    assert hand.edit(image, image, upstream="apiany").status_code == 400
    for fields in ({"n": "1"}, {"quality": "low"}, {"resolution": "1K"}):
        assert hand.edit(image, upstream="apiany", **fields).status_code == 400
    assert [purchase["operation"] for purchase in hand.book()] == ["edits"]


def test_task_belongs_to_its_key(hand):
    """Another key does not see the task, and an unknown task is not found."""
    task_id = hand.submit().json()["task_id"]
    assert hand.read(f"/v1/tasks/{task_id}", key="sim-apiany-2").status_code == 404
    assert hand.read("/v1/tasks/task_0").json()["error"]["code"] == "not_found"


def test_balance_pays_and_is_refunded(hand):
    """What a task costs leaves the balance, and comes back when it fails."""
    before = hand.read("/v1/credits/balance").json()
    assert before == {"credits": 10_000_000, "currency": "credits"}
    hand.finish(hand.submit(size="16:9", resolution="4K"))
    assert hand.read("/v1/credits/balance").json()["credits"] == 10_000_000 - 60
    failed = hand.finish(hand.submit(prompt="forbidden-content"))
    assert (failed["status"], failed["error"]["code"]) == ("failed", "content_policy")
    assert hand.read("/v1/credits/balance").json()["credits"] == 10_000_000 - 60
    assert [purchase["refunded"] for purchase in hand.book()] == [False, True]


def test_models_name_prices(hand):
    """The list of models says what each resolution costs."""
    (model,) = hand.read("/v1/models").json()["data"]
    assert model["pricing"]["credits"] == {"1K": 15, "2K": 30, "4K": 60}


def test_every_answer_has_request_id(hand):
    """Answers and refusals alike carry X-Request-Id, each its own."""
    answers = [hand.submit(), hand.submit(n=0), hand.read("/v1/nothing"), hand.read("/v1/models")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4
