"""The layout of a PNG (https://www.w3.org/TR/png-3/): its chunks.

The checksums of all chunks that stay are checked. Nothing is inflated.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from gateway.pictures.metadata.layout import (
    EXIF_READ,
    MAX_PARTS,
    Damaged,
    Layout,
    Recipe,
    only_orientation,
    orientation_of,
)

_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_COLOUR = frozenset(
    {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"pHYs", b"bKGD", b"hIST", b"cICP", b"mDCV", b"cLLI"}
)
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ALPHA_TYPES = (4, 6)
_READ = 256 * 1024
"""Bytes that are checked at a time: so many stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """`start` is the offset of its length field, `end` the offset after its checksum."""

    kind: bytes
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start - 12


def read_png(file: BinaryIO, size: int) -> Layout:
    """The layout of a PNG of `size` bytes. Raises Damaged."""
    recipe = Recipe()
    recipe.keep(0, 8)
    width = height = 0
    has_alpha = is_animated = has_pixels = False
    orientation: int | None = None
    for chunk in _chunks(file, size):
        if chunk.kind == b"IHDR":
            width, height, has_alpha = _header(file, chunk)
        elif chunk.kind == b"IDAT":
            has_pixels = True
        elif chunk.kind == b"acTL":
            # After the pixels the chunk has no effect: by the standard the file is a still picture.
            is_animated = is_animated or not has_pixels
        elif chunk.kind == b"eXIf" and orientation is None:
            orientation = _exif(file, chunk, recipe)
        # A decoder skips an ancillary chunk with a wrong checksum, so it does not belong to the picture.
        if chunk.kind in _CRITICAL or (chunk.kind in _COLOUR and _is_intact(file, chunk)):
            recipe.keep(chunk.start, chunk.end)
            has_alpha = has_alpha or chunk.kind == b"tRNS"
    if not has_pixels:
        raise Damaged("has no pixel data")
    return Layout(width, height, orientation or 1, has_alpha, is_animated, recipe.pieces)


def _chunks(file: BinaryIO, size: int) -> Iterator[_Chunk]:
    """Yield the chunks up to IEND, a critical one after a check of its checksum. Raises Damaged."""
    position = 8
    for count in range(MAX_PARTS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            raise Damaged("ends before its last chunk")
        length, kind = struct.unpack(">I4s", head)
        chunk = _Chunk(kind, position, position + 12 + length)
        if not kind.isalpha() or length > 0x7FFFFFFF:
            raise Damaged("has something that is not a chunk where a chunk belongs")
        if chunk.end > size:
            raise Damaged("ends inside a chunk")
        if (count == 0) != (kind == b"IHDR"):
            raise Damaged("does not start with its one header")
        if kind[:1].isupper():
            if kind not in _CRITICAL:
                raise Damaged("needs a chunk that is not in the PNG standard")
            if not _is_intact(file, chunk):
                raise Damaged("has a chunk whose checksum is wrong")
        yield chunk
        if kind == b"IEND":
            return
        position = chunk.end
    raise Damaged("has far too many chunks")


def _header(file: BinaryIO, chunk: _Chunk) -> tuple[int, int, bool]:
    if chunk.length != 13:
        raise Damaged("has a header of the wrong length")
    file.seek(chunk.start + 8)
    width, height, depth, colour, method, filtering, interlace = struct.unpack(">IIBBBBB", file.read(13))
    if not 0 < width <= 0x7FFFFFFF or not 0 < height <= 0x7FFFFFFF:
        raise Damaged("has no area")
    if depth not in _DEPTHS.get(colour, ()) or method or filtering or interlace > 1:
        raise Damaged("has an invalid header")
    return width, height, colour in _ALPHA_TYPES


def _exif(file: BinaryIO, chunk: _Chunk, recipe: Recipe) -> int:
    """Return the Orientation, and add it to the recipe unless it is 1."""
    file.seek(chunk.start + 8)
    block = file.read(min(chunk.length, EXIF_READ))
    orientation = orientation_of(block)
    if orientation == 1:
        return 1
    smallest = only_orientation(orientation)
    if block == smallest and _is_intact(file, chunk):
        recipe.keep(chunk.start, chunk.end)
    else:
        recipe.put(_pack(b"eXIf", smallest))
    return orientation


def _pack(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _is_intact(file: BinaryIO, chunk: _Chunk) -> bool:
    file.seek(chunk.start + 4)
    left = chunk.length + 4
    checksum = 0
    with memoryview(bytearray(min(left, _READ))) as buffer:
        while left:
            # The type lacks it, and every reader of bytes has it.
            count = cast(io.BufferedIOBase, file).readinto(buffer[:left])
            if not count:
                return False
            checksum = zlib.crc32(buffer[:count], checksum)
            left -= count
    return file.read(4) == checksum.to_bytes(4, "big")
