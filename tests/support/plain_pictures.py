"""Small pictures of one colour, and the pictures of an answer."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Mapping
from typing import Any

from PIL import Image


def png(width: int = 64, height: int = 64, mode: str = "RGB", colour: Any = None) -> bytes:
    """A small PNG."""
    return encode("PNG", width, height, mode, colour)


def encode(
    form: str, width: int = 64, height: int = 64, mode: str = "RGB", colour: Any = None, **options: Any
) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), colour if colour is not None else 0).save(file, form, **options)
    return file.getvalue()


def mask(width: int = 64, height: int = 64) -> bytes:
    """A mask whose every pixel may be edited."""
    return png(width, height, "RGBA", (0, 0, 0, 0))


def encode_noise(form: str, width: int, height: int, **options: Any) -> bytes:
    """A picture that no format makes small."""
    file = io.BytesIO()
    Image.frombytes("RGB", (width, height), random.Random(1).randbytes(3 * width * height)).save(file, form, **options)
    return file.getvalue()


def noisy_mask(width: int, height: int) -> bytes:
    """A WebP mask that is some ten times larger as a PNG: noise costs a lossy format little, and the other all."""
    noise = Image.frombytes("RGBA", (width, height), random.Random(1).randbytes(4 * width * height))
    file = io.BytesIO()
    noise.save(file, "WEBP", quality=5, alpha_quality=5, method=0)
    return file.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def decode(item: Mapping[str, Any]) -> Image.Image:
    """The picture of one `data` item, every pixel of it read."""
    image = Image.open(io.BytesIO(base64.b64decode(item["b64_json"], validate=True)))
    image.load()
    return image
