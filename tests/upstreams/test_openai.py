"""What an upstream of the kind `openai` is sent, field by field, as the stand-in saw it, and what fails there."""

from __future__ import annotations

import hashlib
from typing import Any

import openai
import pytest

from tests.support.gateways import ENV, SMALLEST, TIMEOUTS, Gateway, Gateways, error_of
from tests.support.made_pictures import SECRETS, loaded
from tests.support.plain_pictures import decode, encode, mask, noisy_mask, png

MODEL = "openai/gpt-image-2"
PLAIN = {
    "model": "gpt-image-2",
    "prompt": "a cat",
    "size": SMALLEST,
    "quality": "medium",
    "background": None,
    "output_format": "png",
}
"""What a generation with nothing but a prompt and a size becomes; None is not sent."""

EDIT = PLAIN | {"size": "auto"}
"""What an edit with nothing but a prompt becomes."""

TRANSPARENT = {"transparent": True, "pass_user": True}


def opened(
    gateways: Gateways,
    capabilities: dict[str, Any] | None = None,
    models: dict[str, Any] | None = None,
    **upstream: Any,
) -> Gateway:
    """A gateway with a fourth upstream, which is all of a model and stands last for `gpt-image-2`."""
    described = {
        "kind": "openai",
        "base_url": f"{gateways.simulator.url}/openai",
        "model": "gpt-image-2",
        "credentials": [{"key": "env:OPENAI_API_KEY", "capabilities": capabilities or {}}],
        "timeouts": dict(TIMEOUTS),
        "prices": {"per_million_tokens": {"text_in": "5", "image_in": "8", "image_out": "30"}},
    }
    named = {MODEL: {"upstreams": ["openai"]}, "gpt-image-2": {"upstreams": ["anyfast-c", "openai"]}}
    env = ENV | {"OPENAI_API_KEY": "sim-openai"}
    return gateways.open(env=env, upstreams={"openai": described | upstream}, models=named | (models or {}))


@pytest.fixture
def gateway(gateways: Gateways) -> Gateway:
    return opened(gateways)


@pytest.fixture
def sdk(gateways: Gateways) -> tuple[openai.OpenAI, Gateway]:
    """The customers' own library at a gateway whose catalogue allows all that the vendor documents."""
    gateway = opened(gateways, TRANSPARENT)
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0), gateway


def sent(gateway: Gateway) -> dict[str, Any]:
    """The one paid POST that the vendor saw, refused by nobody."""
    (seen,) = gateway.simulator.paid()
    assert seen["upstream"] == "openai"
    assert not seen["undocumented"]
    assert not seen["refused"]
    return seen


def fields(expected: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (expected | changed).items() if value is not None}


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {}),
        ({"quality": "auto", "moderation": "auto", "background": "auto", "n": 1}, {}),
        ({"quality": "high"}, {"quality": "high"}),
        ({"n": 2}, {"n": 2}),
        ({"size": "auto"}, {"size": "auto"}),
        ({"size": "16:9"}, {"size": "1536x864"}),
        ({"moderation": "low"}, {"moderation": "low"}),
        ({"background": "opaque"}, {"background": "opaque"}),
        ({"output_format": "webp"}, {"output_format": "webp"}),
        ({"output_format": "webp", "output_compression": 40}, {"output_format": "webp", "output_compression": 40}),
        ({"output_format": "jpeg", "output_compression": 0}, {"output_format": "jpeg", "output_compression": 0}),
        ({"output_compression": 40, "response_format": "url", "stream": True, "partial_images": 2}, {}),
        ({"style": "vivid", "user": "u", "safety_identifier": "s", "strange": 1}, {}),
    ],
    ids=str,
)
def test_generation_is_translated(gateway: Gateway, given: dict[str, Any], changed: dict[str, Any]) -> None:
    """A generation holds the documented fields of GPT image models, and those alone."""
    assert gateway.generate(**({"model": MODEL} | given)).status_code == 200
    assert sent(gateway)["fields"] == fields(PLAIN, changed)


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {}),
        ({"quality": "low", "background": "opaque"}, {"quality": "low", "background": "opaque"}),
        ({"n": 3, "size": SMALLEST}, {"n": "3", "size": SMALLEST}),
        ({"output_format": "webp", "output_compression": 7}, {"output_format": "webp", "output_compression": "7"}),
        ({"response_format": "url", "input_fidelity": "high", "user": "u", "moderation": "low"}, {}),
    ],
    ids=str,
)
def test_edit_is_translated(gateway: Gateway, given: dict[str, Any], changed: dict[str, Any]) -> None:
    """An edit is the documented form: quality and n are in it, moderation is not."""
    answer = gateway.edit({"image": png()}, model=MODEL, **given)
    assert answer.status_code == 200, answer.text
    assert sent(gateway)["fields"] == fields(EDIT, changed)


def test_references_pass_as_they_are(gateway: Gateway) -> None:
    """Every format that the gateway takes is one that the vendor takes, byte for byte."""
    pictures = [encode(form) for form in ("PNG", "JPEG", "WEBP")]
    answer = gateway.edit([("image[]", ("x", data)) for data in pictures], model=MODEL)
    assert answer.status_code == 200, answer.text
    files = sent(gateway)["files"]
    assert {file["field"] for file in files} == {"image[]"}
    assert [file["sha256"] for file in files] == [hashlib.sha256(data).hexdigest() for data in pictures]


def test_sixteen_images_under_a_mask(gateway: Gateway) -> None:
    """A mask may come with sixteen pictures; it and the first become PNG of one size, and quality and n are kept."""
    exif = (
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    )
    first = ("image[]", ("a", encode("JPEG", 90, 60, exif=exif)))
    masking = ("mask", ("m", encode("WEBP", 60, 90, "RGBA", (0, 0, 0, 0), lossless=True)))
    files = [first, *[("image[]", ("b", encode("JPEG")))] * 15, masking]
    assert gateway.edit(files, model=MODEL, quality="high", n=2, size=SMALLEST).status_code == 200
    seen = sent(gateway)
    assert (seen["fields"]["quality"], seen["fields"]["n"]) == ("high", "2")
    told = [(file["field"], file["format"], file["size"]) for file in seen["files"]]
    assert told == [("image[]", "png", "60x90"), *[("image[]", "jpeg", "64x64")] * 15, ("mask", "png", "60x90")]


def test_uploads_lose_their_place(gateway: Gateway) -> None:
    """Where and with what a photo was taken does not leave the house."""
    data = loaded("jpeg")
    assert any(secret in data for secret in SECRETS)
    assert gateway.edit({"image": data}, model=MODEL).status_code == 200
    (file,) = sent(gateway)["files"]
    assert file["bytes"] < len(data)


def test_user_goes_only_where_catalogue_says(gateways: Gateways) -> None:
    """Who asks the caller is personal data: dropped and told, unless the operator passes it on."""
    silent = opened(gateways)
    answer = silent.generate(model=MODEL, user="u1", safety_identifier="s1")
    assert set(answer.headers["x-gateway-dropped-params"].split(",")) == {"user", "safety_identifier"}
    assert "user" not in sent(silent)["fields"]
    telling = opened(gateways, {"pass_user": True})
    answer = telling.generate(model=MODEL, user="u1", safety_identifier="s1")
    assert "x-gateway-dropped-params" not in answer.headers
    assert telling.simulator.paid()[-1]["fields"]["user"] == "s1"


def test_transparent_needs_the_catalogue(gateway: Gateway) -> None:
    """Transparency is a preview in the vendor's own words, so it is refused until the operator allows it."""
    answer = gateway.generate(model=MODEL, background="transparent")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "background")
    assert not gateway.simulator.paid()


def test_lesser_endpoint_is_narrowed(gateways: Gateways) -> None:
    """What the catalogue says that an endpoint cannot do is made here, split, refused or told."""
    lesser = {"max_n": 1, "masks": False, "edit_quality": False, "formats": ["jpeg"], "sizes": ["1024x1024"]}
    gateway = opened(gateways, lesser, model="gpt-image-1")
    answer = gateway.generate(model=MODEL, n=2, size="auto", output_format="webp")
    assert [decode(item).format for item in answer.json()["data"]] == ["WEBP", "WEBP"]
    expected = fields(PLAIN, {"model": "gpt-image-1", "size": "1024x1024", "output_format": "jpeg"})
    assert [one["fields"] for one in gateway.simulator.paid()] == [expected] * 2
    answer = gateway.generate(model=MODEL, size=SMALLEST)
    assert "it makes only 1024x1024)" in error_of(answer)["message"]
    answer = gateway.edit({"image": png(), "mask": mask()}, model=MODEL)
    assert "switches its masks off" in error_of(answer)["message"]
    answer = gateway.edit({"image": png()}, model=MODEL, quality="high")
    assert answer.headers["x-gateway-dropped-params"] == "quality"


def test_large_mask_is_refused_here(gateway: Gateway) -> None:
    """A mask beyond the vendor's four megabytes is refused with a reason, before anything is sent."""
    large = encode("PNG", 1024, 1024, "RGBA", (0, 0, 0, 0), compress_level=0)
    assert len(large) > 4_000_000
    answer = gateway.edit({"image": png(1024, 1024), "mask": large}, model=MODEL)
    assert "smaller than 4,000,000 bytes" in error_of(answer)["message"]
    assert not gateway.simulator.paid()


def test_mask_that_grows_goes_elsewhere(gateways: Gateways) -> None:
    """A WebP mask that is too large as the PNG that is sent costs nothing there; who takes it serves, else a 400."""
    masking = ("m", noisy_mask(1200, 1024))
    assert len(masking[1]) < 4_000_000
    alone = opened(gateways)
    pictures = {"image": png(1200, 1024), "mask": masking}
    answer = alone.edit(pictures, model=MODEL)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_value", "mask")
    assert "as a PNG" in error["message"]
    gateway = opened(gateways, models={"both": {"upstreams": ["openai", "anyfast"]}})
    answer = gateway.edit(pictures, model="both")
    assert (answer.status_code, answer.headers["x-gateway-upstream"]) == (200, "anyfast")
    assert [one["upstream"] for one in gateway.simulator.paid()] == ["anyfast"]
    assert gateway.conditions()["openai/main"].breaker == "closed"


@pytest.mark.parametrize(
    ("kind", "options", "status", "code"),
    [
        ("status", {"status": 400, "code": "invalid_value"}, 400, "invalid_value"),
        ("status", {"status": 401}, 503, "upstream_unavailable"),
        ("status", {"status": 404}, 404, "model_not_found"),
        ("status", {"status": 429, "retry_after": 60}, 429, "rate_limit_exceeded"),
        ("status", {"status": 500}, 502, "upstream_error"),
        ("status", {"status": 503, "retry_after": 60}, 503, "upstream_unavailable"),
        ("status", {"status": 502, "html": True}, 424, "upstream_outcome_unknown"),
        ("policy", {}, 400, "moderation_blocked"),
        ("reset", {"when": "after"}, 424, "upstream_outcome_unknown"),
        ("truncate", {}, 424, "upstream_outcome_unknown"),
        ("garbage", {}, 424, "upstream_bad_response"),
        ("html", {}, 424, "upstream_bad_response"),
        ("no_image", {}, 424, "upstream_bad_response"),
        ("error_200", {}, 424, "upstream_bad_response"),
        ("broken_image", {}, 424, "upstream_bad_response"),
    ],
)
def test_failures_are_those_of_the_table(
    gateway: Gateway, kind: str, options: dict[str, Any], status: int, code: str
) -> None:
    """Every class of failure means here what it means at the other vendors, and costs one call."""
    gateway.simulator.fault(kind, upstream="openai", **options)
    answer = gateway.generate(model=MODEL)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code), answer.text
    assert len(gateway.simulator.paid()) == 1


def test_unreachable_vendor_is_unbilled(gateways: Gateways) -> None:
    """A connection that cannot be made costs nothing, and is tried once more."""
    gateway = opened(gateways, base_url="http://127.0.0.1:9/openai")
    answer = gateway.generate(model=MODEL)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "upstream_unavailable")
    (record,) = gateway.records()
    assert {call.usd for call in record.calls} == {0}


def test_fourth_upstream_stands_in_for_another(gateway: Gateway) -> None:
    """The dispatcher knows no kinds: a refusal that costs nothing goes on to the fourth upstream as to any other."""
    gateway.simulator.fault("status", upstream="anyfast", status=503, retry_after=60, times=None)
    answer = gateway.generate(model="gpt-image-2")
    assert (answer.status_code, answer.headers["x-gateway-upstream"]) == (200, "openai")
    assert [one["upstream"] for one in gateway.simulator.paid()] == ["anyfast", "openai"]


def test_every_form_of_answer_is_read(gateway: Gateway) -> None:
    """Endpoints that only resemble OpenAI's answer links and data URLs; they are read, and billed."""
    for shape in ("url", "data_url", "b64_data_url", "no_created", "no_usage"):
        gateway.simulator.fault("shape", upstream="openai", shape=shape)
        answer = gateway.generate(model=MODEL)
        assert decode(answer.json()["data"][0]).size == (1024, 640), shape
        assert gateway.spent().usd_posted == gateway.booked(), shape


def test_usage_is_the_bill(sdk: tuple[openai.OpenAI, Gateway]) -> None:
    """The tokens that the vendor counted are handed on and charged, with those of the references."""
    client, gateway = sdk
    answer = client.images.edit(model=MODEL, prompt="a cat", image=png(1024, 640), n=2, size=SMALLEST)
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.image_tokens > 0
    assert gateway.spent().usd_posted == gateway.booked() > 0


def test_library_generates_webp(sdk: tuple[openai.OpenAI, Gateway]) -> None:
    """WebP is made by the vendor itself, as it was compressed there, and every field of the answer is right."""
    client, gateway = sdk
    answer = client.images.generate(
        model=MODEL, prompt="a cat", n=2, size=SMALLEST, quality="low", output_format="webp", output_compression=10
    )
    assert answer.data is not None
    assert [decode({"b64_json": one.b64_json}).format for one in answer.data] == ["WEBP", "WEBP"]
    told = (answer.size, answer.quality, answer.output_format, answer.background)
    assert told == (SMALLEST, "low", "webp", "opaque")
    assert gateway.simulator.book()[0]["n"] == 2


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_library_gets_transparency(sdk: tuple[openai.OpenAI, Gateway], output_format: Any) -> None:
    """A transparent background arrives as one, and is told as one."""
    client, gateway = sdk
    answer = client.images.generate(
        model=MODEL, prompt="a cat", background="transparent", output_format=output_format, user="u7", size=SMALLEST
    )
    assert answer.data is not None
    picture = decode({"b64_json": answer.data[0].b64_json})
    assert picture.getchannel("A").getextrema() == (0, 255)
    assert answer.background == "transparent"
    assert (sent(gateway)["fields"]["background"], sent(gateway)["fields"]["user"]) == ("transparent", "u7")


def test_library_edits_under_a_mask(sdk: tuple[openai.OpenAI, Gateway]) -> None:
    """A masked edit of two pictures reaches the vendor whole."""
    client, gateway = sdk
    answer = client.images.edit(model=MODEL, prompt="a cat", image=[png(), png()], mask=mask(), size=SMALLEST, n=2)
    assert answer.data is not None
    assert len(answer.data) == 2
    (bought,) = gateway.simulator.book()
    assert (bought["references"], bought["mask"], bought["n"]) == (2, True, 2)


def test_library_streams(sdk: tuple[openai.OpenAI, Gateway]) -> None:
    """A stream is made here: one completed event for each picture."""
    client, _ = sdk
    events = list(
        client.images.generate(
            model=MODEL, prompt="a cat", n=2, size=SMALLEST, stream=True, background="transparent", partial_images=1
        )
    )
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert {event.background for event in events} == {"transparent"}
