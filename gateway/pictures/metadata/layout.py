"""The layout of an image file: its size, orientation and alpha, and the ranges of bytes that are not metadata.

EXIF blocks are read and written for one tag, Orientation. This module never decodes a pixel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

Format = Literal["png", "jpeg", "webp"]

Piece = bytes | tuple[int, int]
"""Bytes to write, or a (start, end) range of the file to copy."""

MAX_PARTS = 65_536
"""The most chunks or segments of one file. A file of empty chunks would otherwise take seconds."""

_COPY = 1024 * 1024

_ORIENTATION = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I"}

EXIF_READ = 1024 * 1024
"""The most bytes of a PNG's or WebP's EXIF block that are searched for its Orientation."""


class Damaged(Exception):
    """The file breaks its format, or uses a part that few programs read. The message completes the sentence "it …"."""


class Recipe:
    """A file without its metadata, as ranges to copy and bytes to write between them."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def keep(self, start: int, end: int) -> None:
        """Add a range of the file. It extends the last piece if that range ends at `start`."""
        last = self.pieces[-1] if self.pieces else None
        if isinstance(last, tuple) and last[1] == start:
            self.pieces[-1] = (last[0], end)
        else:
            self.pieces.append((start, end))

    def put(self, data: bytes) -> None:
        """Add bytes that are not in the file."""
        self.pieces.append(data)


@dataclass(frozen=True, slots=True)
class Layout:
    """Facts from the headers. `width` and `height` are those of the stored pixels, before `orientation` is applied.

    `pieces` is the recipe of the file without metadata. `lacks_end` means that the end marker is missing, so that the
    pixels alone show if the file is whole.
    """

    width: int
    height: int
    orientation: int
    has_alpha: bool
    is_animated: bool
    pieces: list[Piece] = field(repr=False)
    lacks_end: bool = False

    def is_clean(self, size: int) -> bool:
        """True when a file of `size` bytes has no metadata to remove."""
        return self.pieces == [(0, size)]


def copy_pieces(file: BinaryIO, pieces: list[Piece]) -> Iterator[bytes]:
    """Yield the bytes of a recipe for its file, a megabyte at most at a time. Raises Damaged at an early end."""
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        start, end = piece
        file.seek(start)
        while start < end:
            data = file.read(min(end - start, _COPY))
            if not data:
                raise Damaged("ends while it is copied")
            yield data
            start += len(data)


def orientation_of(tiff: bytes) -> int:
    """The Orientation (1-8) of an EXIF block that starts at its TIFF header; 1 without a valid one."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, items = struct.unpack_from(order + "HHI", tiff, entry)
        if tag == _ORIENTATION:
            if kind not in _INTEGERS or items != 1:
                return 1
            (value,) = struct.unpack_from(order + _INTEGERS[kind], tiff, entry + 8)
            return value if 1 <= value <= 8 else 1
    return 1


def only_orientation(orientation: int) -> bytes:
    """An EXIF block, from its TIFF header on, that holds the Orientation and nothing else."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, _ORIENTATION, 3, 1, orientation, 0, 0)
