"""Draws the pictures: a coloured ground from the prompt, with the order and the result in words.

It runs in a small pool of threads. It keeps the last pictures: an equal order gets an equal picture.
"""

import asyncio
import colorsys
import hashlib
import io
import os
import struct
import textwrap
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import pybase64
from PIL import Image, ImageDraw, ImageFont
from starlette.datastructures import UploadFile

from gateway.simulator.sizes import Size
from gateway.simulator.uploads import Upload, examine

T = TypeVar("T")

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_CACHED_PICTURES = 24
_CACHED_PADDED = 8
"""Padded pictures may have many megabytes."""
_MASKED = (255, 0, 160)
_FONT_SHARE = 30


@dataclass(frozen=True)
class Picture:
    """The contents of a picture. Inputs are small PNGs; `mask` is a PNG of a mask's alpha, where 0 is edited."""

    size: Size
    format: str
    prompt: str
    captions: tuple[str, ...]
    index: int
    compression: int | None = None
    inputs: tuple[bytes, ...] = ()
    mask: bytes | None = None
    is_broken: bool = False
    is_transparent: bool = False
    pad: int | None = None


@dataclass(frozen=True)
class Drawn:
    """A picture's bytes and the same in base64."""

    data: bytes
    base64: bytes


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


@lru_cache(maxsize=1)
def _ramp() -> Image.Image:
    return Image.linear_gradient("L")


def _ground(picture: Picture) -> Image.Image:
    digest = hashlib.sha256(f"{picture.index}\x00{picture.prompt}".encode(errors="replace")).digest()
    hue = digest[0] / 256
    top = colorsys.hsv_to_rgb(hue, 0.55 + digest[1] / 1024, 0.75)
    bottom = colorsys.hsv_to_rgb((hue + 0.15 + digest[2] / 640) % 1, 0.8, 0.35)
    ramp = _ramp().resize((16, picture.size[1]), Image.Resampling.NEAREST).resize(picture.size)
    bands = []
    for start, end in zip(top, bottom, strict=True):
        bands.append(ramp.point([round(255 * (start + (end - start) * step / 255)) for step in range(256)]))
    return Image.merge("RGB", bands)


def _unpack(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=("PNG",))


def _fill_mask(ground: Image.Image, mask: bytes) -> None:
    opaque = _unpack(mask).resize(ground.size, Image.Resampling.NEAREST)
    edited = opaque.point([255 if alpha < 128 else 0 for alpha in range(256)])
    ground.paste(_MASKED, (0, 0, *ground.size), edited)


def _paste_inputs(ground: Image.Image, inputs: tuple[bytes, ...], unit: int) -> None:
    edge = min(unit * 5, ground.width // 8)
    left, top = unit, ground.height - unit - edge
    for index, data in enumerate(inputs):
        small = _unpack(data)
        small.thumbnail((edge, edge))
        # Two rows of eight: sixteen is the most any page allows.
        ground.paste(small, (left + index % 8 * (edge - 2), top - index // 8 * edge))


def _write_words(ground: Image.Image, picture: Picture, unit: int) -> None:
    pen = ImageDraw.Draw(ground)
    columns = max(8, round((ground.width - 2 * unit) / (unit * 0.62)))
    words = textwrap.wrap(picture.prompt, columns, max_lines=12, placeholder=" …") or [" "]
    width = {"font": _font(unit), "fill": "white", "stroke_width": max(1, unit // 16), "stroke_fill": "black"}
    pen.multiline_text((unit, unit), "\n".join(words), spacing=unit // 4, **width)
    top = round(ground.height * 0.58)
    pen.multiline_text((unit, top), "\n".join(picture.captions), spacing=unit // 4, **width)


def draw(picture: Picture) -> bytes:
    """The picture as a file of its format."""
    ground = _ground(picture)
    unit = max(10, min(picture.size) // _FONT_SHARE)
    if picture.mask is not None:
        _fill_mask(ground, picture.mask)
    _paste_inputs(ground, picture.inputs, unit)
    _write_words(ground, picture, unit)
    if picture.is_transparent and picture.format != "jpeg":
        # The top half is transparent.
        ground.putalpha(_ramp().point([255 if row > 127 else 0 for row in range(256)]).resize(ground.size))
    out = io.BytesIO()
    if picture.format == "png":
        ground.save(out, "PNG", compress_level=1)
    else:
        quality = 85 if picture.compression is None else max(1, picture.compression)
        ground.save(out, picture.format.upper(), quality=quality)
    data = out.getvalue()
    if picture.is_broken:
        return data[:64] + bytes(byte ^ 0x5A for byte in data[64:4096])
    return data if picture.pad is None else pad(data, picture.format, picture.pad)


def pad(data: bytes, kind: str, length: int) -> bytes:
    """The same picture, extended to `length` bytes by parts that decoders skip; WebP stays unchanged."""
    missing = length - len(data)
    if missing <= 12:
        return data
    if kind == "png":
        # A private, ancillary chunk that is safe to copy, before the 12 bytes of IEND.
        body = b"prPd" + os.urandom(missing - 12)
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        return data[:-12] + chunk + data[-12:]
    if kind == "jpeg":
        comments = []
        while missing > 4:
            take = min(missing, 65_537)
            comments.append(b"\xff\xfe" + struct.pack(">H", take - 2) + os.urandom(take - 4))
            missing -= take
        return data[:2] + b"".join(comments) + data[2:]
    return data


class PictureDrawer:
    """Draws pictures and examines files outside the event loop, a few at a time."""

    def __init__(self, threads: int) -> None:
        # A separate pool, so that no picture waits while hundreds of megabytes are hashed.
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="simulator-read")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="simulator-draw")
        self._drawn: OrderedDict[Picture, asyncio.Future[Drawn]] = OrderedDict()
        self._padded: OrderedDict[tuple[Size, str, int], asyncio.Future[Drawn]] = OrderedDict()

    async def examine(self, field: str, incoming: UploadFile) -> Upload:
        return await asyncio.get_running_loop().run_in_executor(self._readers, examine, field, incoming)

    async def draw(self, picture: Picture) -> Drawn:
        if picture.pad is None:
            return await self._draw_once(self._drawn, picture, picture, _CACHED_PICTURES)
        place = (picture.size, picture.format, picture.pad)
        return await self._draw_once(self._padded, place, picture, _CACHED_PADDED)

    async def _draw_once(
        self, cache: OrderedDict[T, asyncio.Future[Drawn]], place: T, picture: Picture, most: int
    ) -> Drawn:
        drawing = cache.get(place)
        if drawing is None:
            loop = asyncio.get_running_loop()
            drawing = cache[place] = loop.run_in_executor(self._pool, _draw_both, picture)
            if len(cache) > most:
                cache.popitem(last=False)
        cache.move_to_end(place)
        # Shielded, because the cancellation of one request must not cancel the picture of the others.
        return await asyncio.shield(drawing)

    def close(self) -> None:
        for pool in (self._pool, self._readers):
            pool.shutdown(wait=False, cancel_futures=True)


def _draw_both(picture: Picture) -> Drawn:
    data = draw(picture)
    return Drawn(data=data, base64=pybase64.b64encode(data))
