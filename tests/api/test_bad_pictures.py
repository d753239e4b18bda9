"""Pictures that are none, or not the right ones: a 400 that names the field, and nothing sent upstream."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from tests.support.gateways import EDITS, OFFICIAL, TASKS, Gateway, assert_refused, error_of
from tests.support.made_pictures import png_chunk
from tests.support.plain_pictures import data_url, encode, mask, png


@pytest.mark.parametrize(
    ("images", "param"),
    [
        (None, "image"),
        ([], "image"),
        ("x.png", "images"),
        (5, "images"),
        ([5], "images[0]"),
        ([None], "images[0]"),
        ([{}], "images[0].image_url"),
        ([{"image_url": None}], "images[0].image_url"),
        ([{"image_url": "ftp://x/y.png"}], "images[0].image_url"),
        ([{"image_url": "file:///etc/passwd"}], "images[0].image_url"),
        ([{"image_url": ["https://x/"]}], "images[0].image_url"),
        ([{"file_id": "file-1"}], "images[0].file_id"),
        ([{"image_url": data_url(png())}, {"image_url": data_url(b"no picture")}], "images[1].image_url"),
        ([{"image_url": "http://[::1"}], "images[0].image_url"),
        ([{"image_url": "https://exa mple.com/"}], "images[0].image_url"),
        ([{"image_url": "https://user:pass@127.0.0.1/"}], "images[0].image_url"),
    ],
)
def test_wrong_image_reference_is_named(gateway: Gateway, images: Any, param: str) -> None:
    """A JSON edit's wrong reference is a 400 that names its place in the list."""
    body = {"prompt": "a cat", "model": OFFICIAL, "images": images}
    assert_refused(gateway, gateway.post(EDITS, json=body), 400, param)


def test_refused_address_names_another_way(gateway: Gateway) -> None:
    """A reference whose address may not be opened says how to send the picture instead."""
    body = {"prompt": "a cat", "model": OFFICIAL, "image": "http://x.test/a.png"}
    message = assert_refused(gateway, gateway.post(EDITS, json=body), 400, "image")
    assert message.endswith("only https:// addresses are opened. Send the file itself, or a base64 data URL.")


def test_broken_data_url_is_refused(gateway: Gateway) -> None:
    """Base64 that is none is a 400, in JSON and in a form."""
    body = {"prompt": "a cat", "model": OFFICIAL, "image": "data:image/png;base64,!!!!"}
    assert_refused(gateway, gateway.post(EDITS, json=body), 400, "image")
    assert_refused(gateway, gateway.edit({"image": (None, "data:image/png;base64,!!!!")}), 400, "image")


def test_seventeen_images_are_refused(gateway: Gateway) -> None:
    """More references than an edit may have are refused in both dialects."""
    files = [("image[]", ("x.png", png())) for _ in range(17)]
    assert "16" in assert_refused(gateway, gateway.edit(files), 400, "image")
    body = {"prompt": "a cat", "model": OFFICIAL, "images": [{"image_url": data_url(png())}] * 17}
    assert_refused(gateway, gateway.post(EDITS, json=body), 400, "image")


def _animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


def _bomb() -> bytes:
    """A PNG of a few hundred bytes that claims 30,000 x 30,000 pixels."""
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


BAD_PICTURES = {
    "zero bytes": b"",
    "text": b"not an image",
    "html": b"<!DOCTYPE html><p>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "svg with a head": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
    "gif": encode("GIF"),
    "bmp": encode("BMP"),
    "tiff": encode("TIFF"),
    "pdf": b"%PDF-1.7\n",
    "only a PNG's start": b"\x89PNG\r\n\x1a\n",
    "truncated PNG": png()[:-20],
    "truncated JPEG": encode("JPEG", 200, 200)[:300],
    "truncated WebP": encode("WEBP", 200, 200)[:-10],
    "animated PNG": _animated("PNG"),
    "animated WebP": _animated("WEBP"),
    "decompression bomb": _bomb(),
    "noise": bytes(range(256)) * 4,
    "base64 text": b"iVBORw0KGgoAAAANSUhEUgAAAEAAAABA",
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_picture_is_refused(gateway: Gateway, name: str) -> None:
    """Bytes that are no still PNG, JPEG or WebP are a 400 that names the field, as image and as mask."""
    data = BAD_PICTURES[name]
    assert_refused(gateway, gateway.edit({"image": ("x.png", data, "image/png")}), 400, "image")
    refused = gateway.edit({"image": png(), "mask": ("x.png", data, "image/png")})
    assert "PNG, JPEG or WebP" not in assert_refused(gateway, refused, 400, "mask")


def test_second_picture_is_named(gateway: Gateway) -> None:
    """Of several pictures the first wrong one is named by its field."""
    files = [("image[0]", ("a", png())), ("image[1]", ("b", b"nothing")), ("image[2]", ("c", b"nothing"))]
    assert_refused(gateway, gateway.edit(files), 400, "image[1]")


@pytest.mark.parametrize("name", ["image", "mask"])
@pytest.mark.parametrize("model", [OFFICIAL, TASKS])
def test_undecodable_pixels_are_refused(gateway: Gateway, name: str, model: str) -> None:
    """A picture whose head is right and whose pixels are not is the caller's mistake, told before anything is paid."""
    whole = bytearray(encode("WEBP", 64, 64, "RGBA", (1, 2, 3, 0), lossless=True))
    start = whole.index(b"VP8L") + 13
    whole[start:-2] = b"\xff" * (len(whole) - 2 - start)
    answer = gateway.edit({"image": png(), "mask": mask()} | {name: ("x", bytes(whole))}, model=model)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", name), answer.text
    assert not gateway.simulator.log()
    assert not gateway.leftovers()


def test_mask_must_fit(gateway: Gateway) -> None:
    """A mask without an alpha channel, or of another size, is refused."""
    assert_refused(gateway, gateway.edit({"image": png(), "mask": png()}), 400, "mask")
    assert_refused(gateway, gateway.edit({"image": png(), "mask": mask(32, 64)}), 400, "mask")
    files = [("image", ("x", png())), ("mask", ("m", mask())), ("mask", ("m", mask()))]
    assert_refused(gateway, gateway.edit(files), 400, "mask")


def test_edit_needs_image(gateway: Gateway) -> None:
    """An edit without an image is refused, with a mask too."""
    assert_refused(gateway, gateway.edit({"extra": (None, "x")}), 400, "image")
    assert_refused(gateway, gateway.edit({"mask": mask()}), 400, "image")


@pytest.mark.parametrize("names", [("image", "image[]"), ("image[]", "image"), ("image", "image[0]")])
def test_mixed_spellings_are_refused(gateway: Gateway, names: tuple[str, str]) -> None:
    """`image` and `image[]` together are ambiguous in their order, and so refused."""
    assert_refused(gateway, gateway.edit([(name, ("x", png())) for name in names]), 400, "image")
