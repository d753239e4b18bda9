"""What apiany is sent, field by field, for every case of the translation table, as the stand-in vendor saw it."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.support.gateways import TASKS, Gateway, Gateways, error_of
from tests.support.made_pictures import png_chunk
from tests.support.plain_pictures import encode, mask, png

PLAIN = {"model": "gpt-image-2", "prompt": "a cat", "size": "1024x1024", "quality": "medium"}


def sent(gateway: Gateway) -> dict[str, Any]:
    """The one paid POST that the vendor saw, refused by nobody."""
    (seen,) = gateway.simulator.paid()
    assert not seen["undocumented"]
    assert not seen["refused"]
    return seen


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {}),
        ({"size": "auto"}, {"size": "auto"}),
        ({"size": None}, {"size": "auto"}),
        ({"size": "3840x2160"}, {"size": "3840x2160"}),
        ({"size": "16:9", "resolution": "4K"}, {"size": "16:9", "resolution": "4K"}),
        ({"size": None, "aspect_ratio": "16:9", "resolution": "2K"}, {"size": "16:9", "resolution": "2K"}),
        ({"size": "1:1"}, {"size": "1:1", "resolution": "1K"}),
        ({"n": 3}, {"n": 3}),
        ({"quality": "low"}, {"quality": "low"}),
        ({"quality": "auto"}, {}),
        ({"output_format": "jpeg", "output_compression": 50}, {}),
        ({"output_format": "webp"}, {}),
        ({"response_format": "url"}, {}),
        ({"background": "opaque", "user": "u", "style": "vivid", "callback_url": "https://x/"}, {}),
    ],
    ids=str,
)
def test_generation_is_translated(gateway: Gateway, given: dict[str, Any], changed: dict[str, Any]) -> None:
    """A generation holds exactly the documented fields, whatever OpenAI's client sent."""
    answer = gateway.generate(**({"model": TASKS, "size": "1024x1024"} | given))
    assert answer.status_code == 200, answer.text
    seen = sent(gateway)
    assert seen["fields"] == PLAIN | changed
    assert seen["path"] == "/apiany/v1/images/generations"


def test_moderation_is_dropped_and_told(gateway: Gateway) -> None:
    """apiany knows no moderation: it is left out and named."""
    answer = gateway.generate(model=TASKS, size="1024x1024", moderation="low")
    assert sent(gateway)["fields"] == PLAIN
    assert answer.headers["x-gateway-dropped-params"] == "moderation"


def test_exact_sizes_only(gateways: Gateways) -> None:
    """A size that apiany would snap is refused with the sizes it makes, unless the route allows the nearest."""
    answer = gateways.open().generate(model=TASKS, size="1280x720")
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (400, "size")
    assert "2048x1152" in error["message"]
    gateway = gateways.open(models={TASKS: {"sizes": "nearest"}})
    assert gateway.generate(model=TASKS, size="1440x2560").json()["size"] == "2160x3840"
    assert sent(gateway)["fields"]["size"] == "1440x2560"


def test_references_are_uploaded_first(gateway: Gateway) -> None:
    """An edit without a mask uploads each picture as it is and asks a generation with their links, in order."""
    pictures = [("image[]", ("x", data)) for data in (png(), encode("JPEG"), encode("WEBP"))]
    answer = gateway.edit(pictures, model=TASKS, n=2, quality="high")
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"]) == 2
    uploads = gateway.simulator.log("upload")
    # They are uploaded at the same time, and may arrive in any order.
    assert sorted((one["files"][0]["field"], one["files"][0]["format"]) for one in uploads) == [
        ("file", "jpeg"),
        ("file", "png"),
        ("file", "webp"),
    ]
    fields = sent(gateway)["fields"]
    kinds = [gateway.client.get(link).headers["content-type"] for link in fields["input_images"]]
    assert kinds == ["image/png", "image/jpeg", "image/webp"]
    assert fields | {"input_images": len(fields["input_images"])} == PLAIN | {
        "size": "auto",
        "n": 2,
        "quality": "high",
        "input_images": 3,
    }
    assert gateway.simulator.book()[0]["references"] == 3
    assert "x-gateway-dropped-params" not in answer.headers


def test_refused_upload_names_the_callers_field(gateway: Gateway) -> None:
    """A picture that the vendor refuses in its own field `file` is a 400 that names the caller's field `image`."""
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", b"no pixels"), (b"IEND", b"")]
    broken = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    answer = gateway.edit({"image": broken}, model=TASKS)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "image"), answer.text
    assert not gateway.simulator.paid()


def test_masked_edit_uses_edits(gateway: Gateway) -> None:
    """With a mask the picture and the mask go to the edits endpoint as PNG, and quality is told as dropped."""
    files = {"image": encode("JPEG", 80, 60), "mask": mask(80, 60)}
    answer = gateway.edit(files, model=TASKS, quality="high", size="1024x1024")
    assert answer.status_code == 200, answer.text
    seen = sent(gateway)
    assert seen["path"] == "/apiany/v1/images/edits"
    assert seen["fields"] == {"model": "gpt-image-2", "prompt": "a cat", "size": "1024x1024"}
    assert [(file["field"], file["format"], file["size"]) for file in seen["files"]] == [
        ("image", "png", "80x60"),
        ("mask", "png", "80x60"),
    ]
    assert answer.headers["x-gateway-dropped-params"] == "quality"


def test_masked_images_are_calls_of_one(gateway: Gateway) -> None:
    """n masked images are n calls, for the edits endpoint takes no n."""
    answer = gateway.edit({"image": png(), "mask": mask()}, model=TASKS, n=2)
    assert len(answer.json()["data"]) == 2
    assert answer.headers["x-gateway-calls"] == "2"
    assert [purchase["n"] for purchase in gateway.simulator.book()] == [1, 1]


def test_masked_edit_may_answer_task(gateway: Gateway) -> None:
    """An edit that answers with a ticket is followed like any other."""
    gateway.simulator.fault("task_answer", status=202)
    assert gateway.edit({"image": png(), "mask": mask()}, model=TASKS).status_code == 200


def test_mask_with_several_images_is_refused(gateway: Gateway) -> None:
    """apiany takes one picture with a mask; the reason is told, and the shared model asks another upstream."""
    files = [("image[]", ("x", png())), ("image[]", ("x", png())), ("mask", ("m", mask()))]
    answer = gateway.edit(files, model=TASKS)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "mask")
    assert gateway.edit(files, model="gpt-image-2").headers["x-gateway-upstream"] == "anyfast-c"


def test_only_paid_post_is_lonely(gateway: Gateway) -> None:
    """The paid POST has a connection of its own; uploads and polls may share theirs."""
    gateway.simulator.fault("latency", seconds=0.3)
    gateway.edit({"image": png()}, model=TASKS)
    assert sent(gateway)["headers"]["connection"].lower() == "close"
    for seen in gateway.simulator.log("upload", "tasks"):
        assert seen["headers"].get("connection", "").lower() != "close"


def test_key_stays_with_its_vendor(gateway: Gateway) -> None:
    """Each vendor saw its own key only, and the links of pictures none at all."""
    gateway.edit({"image": png()}, model=TASKS)
    gateway.generate()
    for seen in gateway.simulator.log():
        expected = {"anyfast": "direct", "apiany": "apiany"}[seen["upstream"]]
        assert seen["headers"]["key"] == (None if seen["endpoint"] == "files" else expected)


def test_explicit_quality_ranks_upstreams(gateway: Gateway) -> None:
    """An edit that names its quality goes to the upstream that honours it, before a cheaper one that would not."""
    assert gateway.edit({"image": png()}, model="gpt-image-2").headers["x-gateway-upstream"] == "anyfast-c"
    answer = gateway.edit({"image": png()}, model="gpt-image-2", quality="high")
    assert answer.headers["x-gateway-upstream"] == "apiany"
    assert "x-gateway-dropped-params" not in answer.headers


def test_compromise_can_be_refused(gateways: Gateways) -> None:
    """Where the model says `refuse`, a quality that cannot be honoured is a 400."""
    gateway = gateways.open(models={TASKS: {"compromises": "refuse"}})
    answer = gateway.edit({"image": png(), "mask": mask()}, model=TASKS, quality="high")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "quality")
    assert gateway.edit({"image": png(), "mask": mask()}, model=TASKS).status_code == 200
