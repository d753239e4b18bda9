"""Decodes one picture and writes its pixels, upright, as another: the only code that uses Pillow.

Takes a source whose metadata was stripped and whose size was checked. Pillow
warns about odd EXIF, multi-picture indexes and large headers; a stripped source has none of them to warn about.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageCms, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from gateway.pictures.metadata.layout import Format
from gateway.pictures.spool import StorageFullError

LARGEST_EDGE: dict[Format, int] = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}
"""Pixels that an edge may have in each format; JPEG's is libjpeg's own limit, below the format's 65,535."""

_QUALITY = 90
"""Without `output_compression`. On 3840x2160: 1.9 MB as WebP and 3.0 MB as JPEG, against 6.1 and 14.8 at 100."""

_BEST_JPEG = 95
"""libjpeg's own advice: above it files double (5.7 to 14.8 MB) and the picture does not change to the eye."""

_FULL_COLOUR_FROM = 90
"""From this JPEG quality on colour keeps its full resolution; below it coloured text would show the loss least."""

_PNG_LEVEL = 2
"""Measured on 3840x2160: 0.75 s and 16.0 MB, against 1.1 s and 14.3 MB at Pillow's default of 6."""

_WEBP_METHOD = 2
"""Measured on 3840x2160: 0.35 s and 1.90 MB, against 0.73 s and 1.88 MB at Pillow's default of 4."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Image.open would also try MPO on a JPEG, and warn or raise by a process-wide pixel limit that is not ours.
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
"""What Pillow's three decoders were seen to raise, or say they raise, on damaged bytes."""


class Undecodable(Exception):
    """The pixels cannot be read; `str` is the decoder's reason."""


@dataclass(frozen=True, slots=True)
class ImageEncoding:
    """What is to be written; `size` None keeps the picture's own."""

    form: Format
    quality: int | None = None
    size: tuple[int, int] | None = None


def reencode(source: BinaryIO, form: Format, orientation: int, target: Path, wanted: ImageEncoding) -> None:
    """Write the picture in `source` to `target`; in another size it keeps its proportions, and loses an edge.

    `quality` is OpenAI's `output_compression`, 0-100, best at 100; it means nothing to a PNG. Memory: up to three
    copies of the pixels at 4 bytes each. Raises Undecodable and StorageFullError, and leaves no file behind.
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
        raise Undecodable(f"it cannot be written as {into.upper()} ({error})") from error


def _decode(source: BinaryIO, form: Format) -> Image.Image:
    try:
        image = _PLUGINS[form](source)
        image.load()
    except _DECODING_ERRORS as error:
        # A number means that the disk failed, not the picture.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Undecodable(str(error) or type(error).__name__) from error
    return image


def _in_plain_mode(image: Image.Image, into: Format, profile: bytes | None) -> Image.Image:
    """The image in a mode that `into` can hold, palettes and colour keys resolved."""
    if image.mode.startswith("I"):
        if into == "png":
            return image
        # Pillow's own conversion of 16 bits clips at 255, which makes almost every picture white.
        image = image.point(lambda value: value * (1 / 257)).convert("L")
        image.info.pop("transparency", None)
    if image.mode == "CMYK":
        image = _from_cmyk(image, profile)
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    is_grey = image.mode in ("1", "L", "LA")
    if into == "jpeg":
        return _on_white(image) if has_alpha else image.convert("L" if is_grey else "RGB")
    if is_grey and into == "png":
        return image.convert("LA" if has_alpha else "L")
    return image.convert("RGBA" if has_alpha else "RGB")


def _from_cmyk(image: Image.Image, profile: bytes | None) -> Image.Image:
    """To RGB by way of the profile; the bare formula, which exaggerates every colour, is for pictures without one."""
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
