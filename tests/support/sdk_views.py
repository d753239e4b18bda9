"""Where the tests look: the running gateway, its simulator's own account, and the pictures that arrive."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import httpx
from PIL import Image

PINNED = ("anyfast/gpt-image-2", "anyfast/gpt-image-2-c", "apiany/gpt-image-2")
"""The models that name their upstream."""

UPSTREAMS = dict(zip(PINNED, ("anyfast", "anyfast-c", "apiany"), strict=True))

SIZE = (1536, 1024)
"""A size that every upstream makes exactly, and none by default."""

ASKED_SIZE = "1536x1024"


@dataclass(frozen=True)
class Gateway:
    """A gateway that answers, and a key for it."""

    base_url: str
    key: str


@dataclass(frozen=True)
class Simulator:
    """The vendors' side of the story."""

    url: str

    def log(self) -> list[dict[str, Any]]:
        """Every request the vendors have seen since the last reset."""
        return list(httpx.get(f"{self.url}/_log").raise_for_status().json())

    def book(self) -> list[dict[str, Any]]:
        """Every paid submission they have accepted since the last reset."""
        return list(httpx.get(f"{self.url}/_book").raise_for_status().json())

    def reset(self) -> None:
        httpx.post(f"{self.url}/_reset").raise_for_status()


def look(data: bytes) -> tuple[str, tuple[int, int]]:
    """Format and size of a picture, every pixel of which was decoded."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return str(picture.format).lower(), picture.size


def look_at_text(text: str | None) -> tuple[str, tuple[int, int]]:
    assert text
    return look(base64.b64decode(text, validate=True))


def look_behind(url: str) -> tuple[str, tuple[int, int]]:
    """The picture behind a link, fetched without a key."""
    return look(httpx.get(url).raise_for_status().content)


def draw(hue: int, mode: str = "RGB") -> bytes:
    """A PNG of `SIZE`; with an alpha channel its left half is transparent, as a mask needs."""
    picture = Image.new(mode, SIZE, (hue, 120, 255 - hue, 255)[: len(mode)])
    if mode == "RGBA":
        picture.paste((0, 0, 0, 0), (0, 0, SIZE[0] // 2, SIZE[1]))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
