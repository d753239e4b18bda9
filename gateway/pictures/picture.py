"""A still picture: its probe, the removal of its metadata, its conversion, and the check of a mask.

This module never downloads a picture, writes to a spool alone, and never checks the content of a picture.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from gateway.pictures.metadata.jpeg import read_jpeg
from gateway.pictures.metadata.layout import Damaged, Format, Layout, copy_pieces
from gateway.pictures.metadata.png import read_png
from gateway.pictures.metadata.webp import read_webp
from gateway.pictures.pixels import LARGEST_EDGE, ImageEncoding, Undecodable, has_all_lines, reencode
from gateway.pictures.spool import Blob, Spool, StorageFullError
from gateway.pictures.threads import open_pool

__all__ = [
    "Format",
    "NotAPicture",
    "Picture",
    "PictureConverter",
    "UnfitMask",
    "check_mask",
    "looks_like",
    "read_layout",
    "sniff",
]

P = ParamSpec("P")
T = TypeVar("T")

HEAD = 512
"""Bytes of a file's start that show its format."""

_ON_ITS_SIDE = 5
"""From this value on an EXIF orientation swaps width and height."""

INSTANT = 64 * 1024
"""Bytes of the largest blob in memory that is probed on the event loop: that takes less time than a busy pool."""

_READERS = {"png": read_png, "jpeg": read_jpeg, "webp": read_webp}
_NAMES: dict[Format, str] = {"png": "PNG", "jpeg": "JPEG", "webp": "WebP"}


class NotAPicture(Exception):
    """The gateway does not accept the bytes as a picture, or cannot convert it.

    `reason` and `remedy` are sentences for the caller.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy

    def explain(self) -> str:
        """The reason and the remedy."""
        return f"{self.reason} {self.remedy}".rstrip()


class UnfitMask(NotAPicture):
    """The picture cannot be the mask of its image."""


@dataclass(frozen=True, slots=True, repr=False)
class Picture:
    """A still PNG, JPEG or WebP. `width` and `height` are as displayed, with `orientation` (EXIF's, 1-8) applied.

    `is_clean` is True when its file is known to have no metadata to remove.
    """

    blob: Blob
    format: Format
    width: int
    height: int
    orientation: int
    has_alpha: bool
    is_clean: bool = False

    @property
    def media_type(self) -> str:
        return f"image/{self.format}"

    def __repr__(self) -> str:
        return f"Picture({self.format} {self.width}x{self.height}, {self.blob.size} bytes)"


def sniff(head: bytes) -> Format | None:
    """The format that a file's first 12 bytes claim; None for another format."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return None


def read_layout(file: BinaryIO, size: int, form: Format) -> Layout:
    """The layout of a file of `size` bytes that starts like `form`. Raises Damaged."""
    return _READERS[form](file, size)


def looks_like(head: bytes) -> str:
    """The probable type of bytes that are no PNG, JPEG or WebP, in words that follow "it looks like"."""
    for start, name in _OTHER_STARTS.items():
        if head.startswith(start):
            return name
    if head[4:8] == b"ftyp":
        return _ISO_BRANDS.get(head[8:12], "a video")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, name in _TEXT_STARTS.items():
        if text.startswith(start):
            return name
    if text.startswith((b"<?xml", b"<!--")):
        return "an SVG drawing" if b"<svg" in text else "an XML document"
    if text and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "text"
    return "no image format known here"


def _find_remedy(kind: str, right: str) -> str:
    """A caller's remedy for bytes of this kind, a word of `looks_like`; empty where there is none."""
    if kind == "text":
        return "To send a file with curl, write `@` before its name, as in -F image=@picture.png."
    if kind.startswith(("the base64 text", "the text of a data URL")):
        return "Send the file's bytes."
    return f"Convert it to a {right}." if kind in _PICTURES else ""


_OTHER_STARTS = {
    b"GIF8": "a GIF",
    b"%PDF": "a PDF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"\0\0\x01\0": "an icon file",
    b"8BPS": "a Photoshop document",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\x1aE\xdf\xa3": "a video",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip-compressed data",
    b"iVBORw0KGgo": "the base64 text of a PNG, not its bytes",
    b"/9j/": "the base64 text of a JPEG, not its bytes",
    b"UklGR": "the base64 text of a WebP, not its bytes",
}
_ISO_BRANDS = {
    b"heic": "a HEIC photo",
    b"heix": "a HEIC photo",
    b"heim": "a HEIC photo",
    b"heis": "a HEIC photo",
    b"hevc": "a HEIC photo",
    b"mif1": "a HEIC or AVIF photo",
    b"msf1": "a HEIC or AVIF photo",
    b"avif": "an AVIF",
    b"avis": "an AVIF",
}
_PICTURES = frozenset(
    {
        *("a GIF", "a BMP", "a TIFF", "an icon file", "a Photoshop document", "a JPEG XL", "a JPEG 2000"),
        *("a HEIC photo", "a HEIC or AVIF photo", "an AVIF", "an SVG drawing"),
    }
)
"""The kinds that a program can convert."""

_TEXT_STARTS = {
    b"<svg": "an SVG drawing",
    b"<!doctype svg": "an SVG drawing",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"<head": "an HTML page",
    b"data:": "the text of a data URL, not its bytes",
    b"{": "JSON",
    b"[{": "JSON",
}


def check_mask(mask: Picture, image: Picture) -> None:
    """Raise UnfitMask unless the mask has an alpha channel and the displayed size of its image."""
    if mask.format == "jpeg":
        raise UnfitMask("The mask is a JPEG, which cannot be transparent: send a PNG or WebP with an alpha channel.")
    if not mask.has_alpha:
        raise UnfitMask(
            "The mask has no alpha channel: its transparent parts are where the image is edited.",
            "Save it as a PNG with transparency (RGBA).",
        )
    if (mask.width, mask.height) != (image.width, image.height):
        raise UnfitMask(
            f"The mask is {_describe_size(mask)} and the image is {_describe_size(image)}: "
            "they must have the same size."
        )


def _describe_size(picture: Picture) -> str:
    turned = " (shown upright, as its EXIF orientation says)" if picture.orientation >= _ON_ITS_SIDE else ""
    return f"{picture.width}x{picture.height}{turned}"


class PictureConverter:
    """The threads that probe, strip and convert pictures: at most `threads` decode at a time.

    `max_pixels` is the most pixels of an accepted picture. A conversion takes about 12 bytes of memory a pixel.
    """

    def __init__(self, *, threads: int = 2, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        self._decoders = open_pool(threads, "pictures-pixels")
        # A probe takes a millisecond, and must not wait for a conversion of a second.
        self._walkers = open_pool(threads, "pictures-files")

    async def probe(self, blob: Blob, *, what: str = "The image", right: str = "PNG, JPEG or WebP") -> Picture:
        """Read the structure of a picture's file. Raises NotAPicture for one that is damaged, animated or too large.

        The error's reason starts with `what`. For bytes of another kind it names the `right` formats. Decodes no
        pixel, except of a JPEG without its end marker: the pixels show if such a file is cut.
        """
        if blob.path is None and blob.size <= INSTANT:
            picture, lacks_end = _probe(blob, self.max_pixels, what, right)
        else:
            picture, lacks_end = await _finish(self._walkers, _probe, blob, self.max_pixels, what, right)
        if lacks_end:
            await _finish(self._decoders, _check_end, picture, what)
        return picture

    async def strip(self, picture: Picture, spool: Spool) -> Picture:
        """Copy a picture into the spool without EXIF, GPS, XMP, comments and data after its end.

        The pixels stay bit for bit, and so do the ICC profile and the Orientation. Returns the same Picture if it is
        known to be clean. Raises StorageFullError.
        """
        if picture.is_clean:
            return picture
        path = None if picture.blob.path is None else spool.new_path()
        blob = await _finish(self._walkers, _strip, picture, path)
        if isinstance(blob, bytes):
            blob = await spool.blob(blob)
        return replace(picture, blob=picture.blob if blob is None else blob, is_clean=True)

    async def convert(
        self,
        picture: Picture,
        into: Format,
        spool: Spool,
        *,
        quality: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> Picture:
        """Convert the picture to the format `into`, upright, without metadata but an ICC profile that fits the result.

        A JPEG gets white in place of transparency. `size` resamples the picture to that size, and crops two opposite
        edges if its proportions differ. `quality` is OpenAI's `output_compression`: 0-100, best at 100, 90 when None.
        PNG ignores it. A JPEG is never written above 95, where files double without a visible gain.

        Returns the same Picture, with its metadata, if it is upright, has the format and size already, and `quality`
        is None or the format is PNG. Raises NotAPicture when its pixels cannot be decoded or the result is too large
        for the format or for `max_pixels`, and StorageFullError.
        """
        is_so = picture.format == into and picture.orientation == 1 and (quality is None or into == "png")
        if is_so and size in (None, (picture.width, picture.height)):
            return picture
        width, height = size or (picture.width, picture.height)
        if max(width, height) > LARGEST_EDGE[into]:
            raise NotAPicture(
                f"A {width}x{height} picture cannot be a {_NAMES[into]}: "
                f"its edges are at most {LARGEST_EDGE[into]} pixels."
            )
        clean = await self.strip(picture, spool)
        target = spool.new_path()
        try:
            await _finish(self._decoders, _reencode, clean, target, ImageEncoding(into, quality, size))
        finally:
            if clean.blob.path is not None and clean is not picture:
                await _finish(self._walkers, clean.blob.path.unlink, True)
        # An encoder drops an alpha channel that is opaque everywhere, so probe the result.
        return await self.probe(await spool.adopt(target))

    async def to_png_upright(self, picture: Picture, spool: Spool) -> Picture:
        """Convert the picture to an upright PNG. Returns the same Picture if it is one. Raises as `convert` does."""
        return await self.convert(picture, "png", spool)

    async def close(self) -> None:
        """Cancel queued work, and wait for running work."""
        for pool in (self._decoders, self._walkers):
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)


async def _finish(pool: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the function in the pool and return its result. A cancelled caller waits: the thread may use the spool."""
    work = pool.submit(function, *args, **kwargs)
    try:
        return await asyncio.wrap_future(work)
    except asyncio.CancelledError:
        if not work.cancelled():
            await asyncio.gather(asyncio.wrap_future(work), return_exceptions=True)
        raise


def _probe(blob: Blob, max_pixels: int, what: str, right: str) -> tuple[Picture, bool]:
    """The picture, and True when its end marker is missing. Raises NotAPicture, whose reason starts with `what`."""
    if not blob.size:
        raise NotAPicture(f"{what} is empty: it has zero bytes.")
    with blob.open() as file:
        head = file.read(HEAD)
        form = sniff(head)
        if form is None:
            kind = looks_like(head)
            raise NotAPicture(f"{what} is not a {right}: it looks like {kind}.", _find_remedy(kind, right))
        try:
            layout = read_layout(file, blob.size, form)
        except Damaged as error:
            raise NotAPicture(f"{what} is a damaged {_NAMES[form]}: it {error}.") from error
    if layout.is_animated:
        raise NotAPicture(f"{what} is an animated {_NAMES[form]}: send a single still picture.")
    pixels = layout.width * layout.height
    if pixels > max_pixels:
        raise NotAPicture(
            f"{what} is {layout.width}x{layout.height}, which is {pixels:,} pixels: the most is {max_pixels:,}."
        )
    width, height = layout.width, layout.height
    if layout.orientation >= _ON_ITS_SIDE:
        width, height = height, width
    is_clean = layout.is_clean(blob.size)
    return Picture(blob, form, width, height, layout.orientation, layout.has_alpha, is_clean), layout.lacks_end


def _check_end(picture: Picture, what: str) -> None:
    with picture.blob.open() as file:
        pieces = copy_pieces(file, read_layout(file, picture.blob.size, picture.format).pieces)
        if not has_all_lines(b"".join(pieces)):
            raise NotAPicture(f"{what} is a damaged {_NAMES[picture.format]}: it ends before its last line.")


def _strip(picture: Picture, path: Path | None) -> Blob | bytes | None:
    """Remove metadata. Returns None if there is none, bytes if `path` is None, else the blob of a file at `path`."""
    blob = picture.blob
    with blob.open() as file:
        layout = read_layout(file, blob.size, picture.format)
        if layout.is_clean(blob.size):
            return None
        pieces = copy_pieces(file, layout.pieces)
        if path is None:
            return b"".join(pieces)
        return _write(pieces, path)


def _write(pieces: Iterable[bytes], path: Path) -> Blob:
    size = 0
    try:
        with path.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                size += len(piece)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageFullError(os.strerror(error.errno or 0)) from error
    return Blob(size, path=path)


def _reencode(picture: Picture, target: Path, wanted: ImageEncoding) -> None:
    with picture.blob.open() as source:
        try:
            reencode(source, picture.format, picture.orientation, target, wanted)
        except Undecodable as error:
            raise NotAPicture(f"The {_NAMES[picture.format]} cannot be converted: {error}.") from error
