"""The stand-in OpenAI holds a request to its published specification, field by field."""

import base64
import io

import pytest
from PIL import Image


def generate(hand, model="gpt-image-2", **fields):
    body = {"model": model, "prompt": "a lighthouse", "size": "1024x640", **fields}
    return hand.client.post("/openai/v1/images/generations", headers=hand.headers("openai"), json=body)


def edit(hand, *files, **fields):
    return hand.edit(*files, upstream="openai", **fields)


def decode(item):
    return Image.open(io.BytesIO(base64.b64decode(item["b64_json"])))


def test_answer_is_the_published_one(hand):
    """Pictures come as base64 with what was made of them, and with the official count of tokens."""
    body = generate(hand, n=2, quality="low", output_format="webp", output_compression=3).json()
    assert [(decode(item).format, decode(item).size) for item in body["data"]] == [("WEBP", (1024, 640))] * 2
    assert all(item.keys() == {"b64_json"} for item in body["data"])
    told = {name: body[name] for name in ("background", "output_format", "quality", "size")}
    assert told == {"background": "opaque", "output_format": "webp", "quality": "low", "size": "1024x640"}
    assert body["usage"]["input_tokens_details"]["image_tokens"] == 0


@pytest.mark.parametrize("name", ["response_format", "style", "stream", "input_fidelity", "resolution", "image"])
def test_undocumented_field_refused(hand, name):
    """What GPT image models are not documented to take is refused and written down."""
    answer = generate(hand, **{name: "url"})
    assert answer.status_code == 400
    assert answer.json()["error"].keys() == {"message", "type", "code", "param"}
    assert hand.log()[-1]["undocumented"] == [name]
    assert hand.book() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "16:9"},
        {"size": "1000x1000"},
        {"model": "gpt-image-1", "size": "2048x2048"},
        {"quality": "hd"},
        {"n": 11},
        {"background": "white"},
        {"background": "transparent", "output_format": "jpeg"},
        {"output_format": "gif"},
        {"output_compression": 10},
        {"moderation": "off"},
        {"user": ""},
    ],
)
def test_strange_value_refused(hand, fields):
    """A documented field with a value that the specification does not allow is refused."""
    answer = generate(hand, **fields)
    assert answer.status_code == 400
    assert set(hand.log()[-1]["refused"]) <= set(fields)
    assert hand.log()[-1]["refused"]


def test_auto_follows_the_picture(hand):
    """`auto` keeps the orientation of the first picture, and makes a square without one."""
    assert generate(hand, size="auto").json()["size"] == "1024x1024"
    assert edit(hand, ("image", hand.draw(size=(64, 48))), size="auto").json()["size"] == "1536x1024"
    assert edit(hand, ("image", hand.draw(size=(64, 48)))).json()["size"] == "1024x1024"


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ([("image", ("WEBP", (64, 48), "RGB"))], 200),
        ([("image[]", ("JPEG", (64, 48), "RGB"))] * 16, 200),
        ([("image[]", ("PNG", (64, 48), "RGB")), ("mask", ("PNG", (64, 48), "RGBA"))], 200),
        ([("image[]", ("PNG", (64, 48), "RGB"))] * 17, 400),
        ([("image", ("PNG", (64, 48), "RGB")), ("image[]", ("PNG", (64, 48), "RGB"))], 400),
        ([("image", ("GIF", (64, 48), "RGB"))], 400),
        ([("mask", ("PNG", (64, 48), "RGBA"))], 400),
        ([("image", ("PNG", (64, 48), "RGB")), ("mask", ("WEBP", (64, 48), "RGBA"))], 400),
        ([("image", ("PNG", (64, 48), "RGB")), ("mask", ("PNG", (48, 64), "RGBA"))], 400),
        ([("image", ("PNG", (64, 48), "RGB")), ("mask", ("PNG", (64, 48), "RGB"))], 400),
    ],
)
def test_files_are_looked_into(hand, files, status):
    """Number, names, formats and the mask's fit are held to the specification."""
    answer = edit(hand, *((name, hand.draw(*made)) for name, made in files), size="1024x640")
    assert answer.status_code == status, answer.text


def test_transparent_picture_can_be_seen_through(hand):
    """A transparent background is one."""
    item = generate(hand, background="transparent").json()["data"][0]
    assert decode(item).getchannel("A").getextrema() == (0, 255)


def test_other_vendors_key_is_refused(hand):
    """A key opens its own vendor, and a model that nobody knows is not found."""
    answer = hand.client.get("/openai/v1/models", headers=hand.headers("anyfast"))
    assert answer.status_code == 401
    assert generate(hand, model="dall-e-3").status_code == 404
    own = {"model": "our-image-model", "prompt": "a lighthouse", "size": "1024x1024"}
    headers = hand.headers("openai", "sim-compatible-2")
    assert hand.client.post("/openai/v1/images/generations", headers=headers, json=own).status_code == 200
    listed = hand.read("/v1/models", "openai").json()["data"]
    assert "gpt-image-1.5" in [model["id"] for model in listed]


def test_refusals_speak_the_published_codes(hand):
    """A refused prompt has the code by which the safety system is known there, and is not booked."""
    answer = generate(hand, prompt="forbidden-content")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (
        400,
        "moderation_blocked",
        "image_generation_user_error",
    )
    assert hand.book() == []


def test_links_of_a_lesser_endpoint_lead_to_pictures(hand):
    """The faults of shape work here as they do at Anyfast."""
    hand.fault("shape", {"shape": "url"}, upstream="openai")
    url = generate(hand).json()["data"][0]["url"]
    assert hand.client.get(url).headers["content-type"] == "image/png"
    refused = hand.client.post("/_faults", json={"upstream": "openai", "fault": {"kind": "task_never"}})
    assert refused.status_code == 400
