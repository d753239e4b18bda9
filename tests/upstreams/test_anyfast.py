"""What Anyfast is sent, field by field, for every case of the translation table, as the stand-in vendor saw it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from tests.support.gateways import OFFICIAL, SMALLEST, VARIANT, Gateway, Gateways, error_of
from tests.support.made_pictures import SECRETS, loaded
from tests.support.plain_pictures import encode, mask, png
from tests.support.vendor import vendor

COMMON = {"prompt": "a cat", "size": SMALLEST, "quality": "medium", "output_format": "png"}
PLAIN: dict[str, dict[str, Any]] = {
    OFFICIAL: {"model": "gpt-image-2", **COMMON},
    VARIANT: {"model": "gpt-image-2-c", "response_format": "b64_json", **COMMON},
}
"""What a generation with nothing but a prompt and a size becomes."""

EDIT: dict[str, dict[str, Any]] = {
    OFFICIAL: {"model": "gpt-image-2", "prompt": "a cat", "size": "1024x1024", "output_format": "png"},
    VARIANT: {"model": "gpt-image-2-c", "prompt": "a cat", "size": "1024x1024", "output_format": "png"},
}
"""What an edit of a square picture with nothing but a prompt becomes."""

both_models = pytest.mark.parametrize("model", [OFFICIAL, VARIANT])


def sent(gateway: Gateway) -> dict[str, Any]:
    """The one paid POST that the vendor saw, refused by nobody."""
    (seen,) = gateway.simulator.paid()
    assert not seen["undocumented"]
    assert not seen["refused"]
    return seen


@both_models
@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {}),
        ({"quality": "auto", "moderation": "auto", "background": "auto", "n": 1}, {}),
        ({"quality": "low"}, {"quality": "low"}),
        ({"quality": "hd"}, {"quality": "high"}),
        ({"quality": "standard"}, {}),
        ({"size": "auto"}, {"size": "1024x1024"}),
        ({"size": "16:9"}, {"size": "1536x864"}),
        ({"size": "1:1", "resolution": "4K"}, {"size": "2880x2880"}),
        ({"size": None, "resolution": "2K"}, {"size": "2048x2048"}),
        ({"moderation": "low"}, {"moderation": "low"}),
        ({"background": "opaque"}, {}),
        ({"output_format": "jpeg"}, {"output_format": "jpeg"}),
        ({"output_format": "jpeg", "output_compression": 0}, {"output_format": "jpeg", "output_compression": 0}),
        ({"output_format": "webp", "output_compression": 40}, {}),
        ({"output_compression": 40}, {}),
        ({"response_format": "url"}, {}),
        ({"response_format": "b64_json"}, {}),
        ({"style": "vivid", "user": "u", "callback_url": "https://x/", "strange": 1}, {}),
        ({"partial_images": 2}, {}),
    ],
    ids=str,
)
def test_generation_is_translated(gateway: Gateway, model: str, given: dict[str, Any], changed: dict[str, Any]) -> None:
    """A generation holds exactly the documented fields, whatever OpenAI's client sent."""
    assert gateway.generate(**({"model": model} | given)).status_code == 200
    seen = sent(gateway)
    assert seen["fields"] == PLAIN[model] | changed
    assert seen["headers"]["content-type"] == "application/json"


def test_direct_key_sends_n(gateway: Gateway) -> None:
    """A key of the Direct group asks for all images at once."""
    gateway.generate(n=3)
    assert sent(gateway)["fields"] == PLAIN[OFFICIAL] | {"n": 3}


def test_other_group_sends_calls_of_one(gateways: Gateways) -> None:
    """A key outside the Direct group asks for one image a call, and never for a mask."""
    env = {"ANYFAST_API_KEY": "sim-basic"}
    credentials = [{"key": "env:ANYFAST_API_KEY", "group": "default"}]
    gateway = gateways.open(env=env, upstreams={"anyfast": {"credentials": credentials}})
    assert len(gateway.generate(n=2).json()["data"]) == 2
    assert [seen["fields"] for seen in gateway.simulator.paid()] == [PLAIN[OFFICIAL]] * 2
    answer = gateway.edit({"image": png(), "mask": mask()})
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_value", "mask")
    assert "Direct" in error["message"]
    assert len(gateway.simulator.paid()) == 2


def test_variant_never_sends_n(gateway: Gateway) -> None:
    """The variant knows no n: several images are several calls."""
    gateway.generate(model=VARIANT, n=2)
    assert [seen["fields"] for seen in gateway.simulator.paid()] == [PLAIN[VARIANT]] * 2


@both_models
@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {}),
        ({"quality": "high", "moderation": "low", "input_fidelity": "high", "background": "opaque"}, {}),
        ({"size": SMALLEST}, {"size": SMALLEST}),
        ({"output_format": "jpeg", "output_compression": 7}, {"output_format": "jpeg", "output_compression": "7"}),
        ({"output_format": "webp"}, {}),
        ({"response_format": "url"}, {}),
    ],
    ids=str,
)
def test_edit_is_translated(gateway: Gateway, model: str, given: dict[str, Any], changed: dict[str, Any]) -> None:
    """An edit holds exactly the documented fields: no quality, no moderation, no response_format."""
    assert gateway.edit({"image": png()}, model=model, **given).status_code == 200
    assert sent(gateway)["fields"] == EDIT[model] | changed


def test_edit_quality_where_operator_knows(gateways: Gateways) -> None:
    """Quality on edits is sent, and no longer told as dropped, where the catalogue says that the key takes it."""
    credentials = [{"key": "env:ANYFAST_API_KEY", "group": "direct", "capabilities": {"edit_quality": True}}]
    gateway = gateways.open(upstreams={"anyfast": {"credentials": credentials}})
    answer = gateway.edit({"image": png()}, quality="high")
    assert gateway.simulator.paid()[0]["fields"]["quality"] == "high"
    assert "x-gateway-dropped-params" not in answer.headers


@both_models
def test_one_image_is_image(gateway: Gateway, model: str) -> None:
    """One picture goes as `image`, byte for byte where there is nothing to strip."""
    data = png()
    gateway.edit([("image[]", ("x", data))], model=model)
    (file,) = sent(gateway)["files"]
    assert (file["field"], file["content_type"]) == ("image", "image/png")
    assert file["sha256"] == hashlib.sha256(data).hexdigest()


@both_models
def test_several_images_are_a_list(gateway: Gateway, model: str) -> None:
    """Two to sixteen pictures go as `image[]`, each told by what it is."""
    files = [("image[]", ("x", png() if index % 2 else encode("JPEG"))) for index in range(16)]
    assert gateway.edit(files, model=model).status_code == 200
    seen = sent(gateway)["files"]
    assert {file["field"] for file in seen} == {"image[]"}
    assert [file["content_type"] for file in seen] == ["image/jpeg", "image/png"] * 8
    assert [file["format"] for file in seen] == ["jpeg", "png"] * 8


@both_models
def test_webp_goes_as_png(gateway: Gateway, model: str) -> None:
    """A WebP reference, which no page allows, is sent as PNG of the same size."""
    assert gateway.edit({"image": ("x.webp", encode("WEBP", 90, 60))}, model=model).status_code == 200
    (file,) = sent(gateway)["files"]
    assert (file["format"], file["content_type"], file["size"]) == ("png", "image/png", "90x60")


def test_source_matches_its_mask(gateway: Gateway) -> None:
    """With a mask the source goes as PNG, as the mask does; further pictures stay as they are."""
    pictures = [("image[]", ("a", encode("JPEG", 80, 60))), ("image[]", ("b", encode("JPEG", 50, 50)))]
    files = [*pictures, ("mask", ("m", encode("WEBP", 80, 60, "RGBA", (0, 0, 0, 0), lossless=True)))]
    assert gateway.edit(files).status_code == 200
    seen = {(file["field"], file["format"], file["size"]) for file in sent(gateway)["files"]}
    assert seen == {("image[]", "png", "80x60"), ("image[]", "jpeg", "50x50"), ("mask", "png", "80x60")}


def test_masked_edit_sends_n(gateway: Gateway) -> None:
    """A Direct key asks for several masked images at once."""
    assert gateway.edit({"image": png(), "mask": mask()}, n=2).status_code == 200
    assert sent(gateway)["fields"]["n"] == "2"


@both_models
def test_turned_photo_keeps_its_shape(gateway: Gateway, model: str) -> None:
    """`auto` follows a turned photo as it is seen, and the photo is sent with its pixels turned."""
    exif = (
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    )
    answer = gateway.edit({"image": encode("JPEG", 200, 100, exif=exif)}, model=model)
    width, height = (int(edge) for edge in sent(gateway)["fields"]["size"].split("x"))
    assert height == pytest.approx(2 * width, rel=0.05)
    assert answer.json()["size"] == f"{width}x{height}"
    (file,) = sent(gateway)["files"]
    assert (file["format"], file["size"]) == ("jpeg", "100x200")


def test_turned_photo_under_mask_is_upright(gateway: Gateway) -> None:
    """Under a mask a turned photo is turned for good, so that it has the mask's dimensions."""
    exif = (
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    )
    answer = gateway.edit({"image": encode("JPEG", 200, 100, exif=exif), "mask": mask(100, 200)})
    assert answer.status_code == 200, answer.text
    assert [(file["format"], file["size"]) for file in sent(gateway)["files"]] == [("png", "100x200")] * 2


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_uploads_lose_their_place(gateways: Gateways, form: str) -> None:
    """Where and with what a photo was taken does not leave the house, neither as it is nor converted."""
    data = loaded(form)
    assert all(secret in data for secret in (b"SECRET-XMP", b"SECRET-TEXT", b"SECRET-CAMERA"))
    answer = {"data": [{"b64_json": base64.b64encode(png(1024, 1024)).decode()}]}
    with vendor(lambda method, path: answer) as (url, seen):
        gateway = gateways.open(upstreams={"anyfast": {"base_url": url}})
        assert gateway.edit({"image": data}).status_code == 200
        turned = gateway.edit({"image": data, "mask": mask(16, 24)})
        assert turned.status_code == 200, turned.text
    for sent in seen:
        assert not [secret for secret in SECRETS if secret in sent.body]
        assert b"GPS" not in sent.body


@both_models
@pytest.mark.parametrize("shape", ["url", "b64_json", "data_url", "b64_data_url", "no_created", "with_size"])
def test_every_form_of_answer_is_read(gateway: Gateway, model: str, shape: str) -> None:
    """Links, base64 and data URLs are all read, for generations and edits."""
    gateway.simulator.fault("shape", shape=shape, times=2)
    for answer in (gateway.generate(model=model), gateway.edit({"image": png()}, model=model)):
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"][0]["b64_json"]


@both_models
def test_paid_post_has_own_connection(gateway: Gateway, model: str) -> None:
    """Every paid POST opens its own connection and says that it will close it; a length is always given."""
    gateway.generate(model=model)
    gateway.edit({"image": png()}, model=model)
    for seen in gateway.simulator.paid():
        headers = seen["headers"]
        assert headers["connection"].lower() == "close"
        assert "transfer-encoding" not in headers
        assert int(headers["content-length"]) > 0


def test_vendor_sees_only_our_headers(gateway: Gateway) -> None:
    """Nothing of the caller's request travels on: not its key, its id, its cookies or its agent."""
    extra = {"cookie": "a=b", "x-forwarded-for": "1.2.3.4", "x-request-id": "mine", "idempotency-key": "k"}
    gateway.generate(headers=extra | {"user-agent": "caller"})
    headers = sent(gateway)["headers"]
    assert set(headers["names"]) <= {
        *("host", "authorization", "user-agent", "content-type", "content-length", "connection"),
        *("accept", "accept-encoding"),
    }
    assert headers["user-agent"] == "imagegate"


def test_each_credential_at_its_own_model(gateway: Gateway) -> None:
    """Each upstream gets its own key."""
    for model in (OFFICIAL, VARIANT):
        gateway.generate(model=model)
    assert [seen["headers"]["key"] for seen in gateway.simulator.paid()] == ["direct", "c"]
