"""The pixels of a picture: they are decoded, and written upright in a format. The only module that uses Pillow.

A source must be stripped of metadata first, and its size checked. Pillow warns about odd EXIF, multi-picture indexes
and large headers; a stripped source has none.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageChops, ImageCms, ImageMath, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from gateway.pictures.metadata.layout import Format
from gateway.pictures.spool import StorageFullError

LARGEST_EDGE: dict[Format, int] = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}
"""The longest edge in each format, in pixels; JPEG's is the limit of libjpeg, below the format's 65,535."""

_QUALITY = 90
"""The default of `output_compression`. On 3840x2160: 1.9 MB as WebP and 3.0 MB as JPEG, against 6.1 and 14.8 at 100."""

_BEST_JPEG = 95
"""The limit that libjpeg advises: above it files double (5.7 to 14.8 MB) without a visible gain."""

_FULL_COLOUR_FROM = 90
"""From this JPEG quality on, colour keeps its full resolution."""

_PNG_LEVEL = 2
"""Pillow's `compress_level`. On 3840x2160: 0.75 s and 16.0 MB, against 1.1 s and 14.3 MB at Pillow's default of 6."""

_WEBP_METHOD = 2
"""Pillow's `method`. Measured on 3840x2160: 0.35 s and 1.90 MB, against 0.73 s and 1.88 MB at Pillow's default of 4."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Image.open would also try MPO on a JPEG, and would apply Pillow's process-wide pixel limit.
_PLUGINS: dict[Format, type[ImageFile]] = {"png": PngImageFile, "jpeg": JpegImageFile, "webp": WebPImageFile}

_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""The errors that Pillow's three decoders raise on damaged bytes, as observed and as documented."""


class Undecodable(Exception):
    """The pixels cannot be decoded or written. The message completes "The picture cannot be converted: …"."""


@dataclass(frozen=True, slots=True)
class ImageEncoding:
    """The format, quality (0-100) and size to write. A quality of None is 90; a size of None is the picture's own."""

    form: Format
    quality: int | None = None
    size: tuple[int, int] | None = None


def reencode(source: BinaryIO, form: Format, orientation: int, target: Path, wanted: ImageEncoding) -> None:
    """Write the picture in `source` to the file `target`, turned upright. Another size crops edges, never distorts.

    The quality is OpenAI's `output_compression`, best at 100; PNG ignores it. Memory: up to three copies of the pixels
    at 4 bytes each. Raises Undecodable, StorageFullError, and OSError if the source cannot be read; then no file stays.
    """
    into, quality = wanted.form, wanted.quality
    image = _decode(source, form)
    profile: bytes | None = image.info.pop("icc_profile", None)
    image = _in_plain_mode(image, into, profile)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if wanted.size is not None and image.size != wanted.size:
        image = ImageOps.fit(image, wanted.size, Image.Resampling.LANCZOS)
    options = _options(into, quality)
    if profile and profile[16:20] == (b"GRAY" if image.mode in ("L", "LA", "I;16") else b"RGB "):
        options["icc_profile"] = profile
    try:
        with target.open("wb") as file:
            image.save(file, format=into, **options)
    except (OSError, ValueError) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageFullError(os.strerror(error.errno)) from error
        raise Undecodable(f"it cannot be written as {into.upper()}") from error


def has_all_lines(jpeg: bytes) -> bool:
    """True when a JPEG, stripped and with its end marker, holds every line of its picture.

    The decoder fills missing lines and reports nothing. It reads bytes that are added before the end marker as missing
    lines, so the two results differ.
    """
    data = jpeg[:-2].rstrip(b"\xff")
    try:
        filled, misled = (_decode(io.BytesIO(data + more + jpeg[-2:]), "jpeg") for more in (b"", b"\xa5\x5a" * 64))
    except Undecodable:
        return False
    return ImageChops.difference(filled, misled).getbbox() is None


def _decode(source: BinaryIO, form: Format) -> Image.Image:
    try:
        image = _PLUGINS[form](source)
        raw_mode = _raw_mode(image)
        image.load()
        _scale_transparency(image, raw_mode)
    except _DECODING_ERRORS as error:
        # An errno means that the disk failed, not the picture.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Undecodable("its pixels are damaged or incomplete") from error
    return image


def _raw_mode(image: ImageFile) -> str:
    """The form of the pixels in a PNG's file, such as `L;4` or `RGB;16B`; "" for another format."""
    found = image.tile[0].args if image.tile and isinstance(image, PngImageFile) else ""
    return found if isinstance(found, str) else ""


def _scale_transparency(image: Image.Image, raw_mode: str) -> None:
    """Scale the transparent colour (tRNS) as Pillow scaled the pixels: to 8 bits, except for 16-bit grey."""
    colour = image.info.get("transparency")
    if raw_mode.startswith("L;") and isinstance(colour, int):
        image.info["transparency"] = colour * 255 // (2 ** int(raw_mode[2:]) - 1)
    elif raw_mode == "RGB;16B" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(part >> 8 for part in colour)


def _in_plain_mode(image: Image.Image, into: Format, profile: bytes | None) -> Image.Image:
    """The image in a mode that `into` supports, without palette and colour key. 16-bit grey stays as it is for PNG."""
    if image.mode.startswith("I"):
        if into == "png":
            return image
        image = _from_16_bits(image)
    if image.mode == "CMYK":
        image = _from_cmyk(image, profile)
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    is_grey = image.mode in ("1", "L", "LA")
    if into == "jpeg":
        return _on_white(image) if has_alpha else image.convert("L" if is_grey else "RGB")
    if is_grey and into == "png":
        return image.convert("LA" if has_alpha else "L")
    return image.convert("RGBA" if has_alpha else "RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """The grey picture in 8 bits, with an alpha channel where it has a transparent colour."""
    clear = image.info.pop("transparency", None)
    alpha = None
    if clear is not None:
        # Before the pixels lose bits: other greys would become the transparent one.
        wide = image.convert("I")
        alpha = ImageMath.lambda_eval(lambda args: args["convert"]((args["wide"] != clear) * 255, "L"), wide=wide)
    # Pillow's own conversion of 16 bits clips at 255: almost every picture would be white.
    grey = image.point(lambda value: value * (1 / 257)).convert("L")
    if alpha is not None:
        grey.putalpha(alpha)
    return grey


def _from_cmyk(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB with the profile; without a usable profile, with the plain formula, which exaggerates colours."""
    if profile:
        try:
            transformed = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            transformed = None
        if transformed is not None:
            return transformed
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.getchannel("A"))
    return flat


def _options(into: Format, quality: int | None) -> dict[str, Any]:
    if into == "png":
        return {"compress_level": _PNG_LEVEL}
    wanted = _QUALITY if quality is None else min(max(quality, 0), 100)
    if into == "webp":
        return {"quality": wanted, "method": _WEBP_METHOD}
    wanted = min(max(wanted, 1), _BEST_JPEG)
    return {"quality": wanted, "subsampling": 0 if wanted >= _FULL_COLOUR_FROM else 2}
