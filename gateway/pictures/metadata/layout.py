"""What a walk over an image file finds: its facts, and which of its bytes are picture rather than data about it.

Made by the three format modules beside it, read by `gateway.pictures.picture`. Never decodes a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

Piece = bytes | tuple[int, int]
"""Bytes to write, or a (start, end) range of the file to copy."""

MAX_PARTS = 65_536
"""Chunks or segments of one file. A file of nothing but empty chunks would otherwise cost seconds of walking."""

_COPY = 1024 * 1024

EXIF_READ = 1024 * 1024
"""Bytes of an EXIF block that are searched for its Orientation."""


class Damaged(Exception):
    """The file breaks its format; `str` completes the sentence "it …"."""


class Recipe:
    """The file without its metadata, as ranges to copy and bytes to write in between."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def keep(self, start: int, end: int) -> None:
        """Copy a range of the file; it joins the one before when they touch."""
        last = self.pieces[-1] if self.pieces else None
        if isinstance(last, tuple) and last[1] == start:
            self.pieces[-1] = (last[0], end)
        else:
            self.pieces.append((start, end))

    def put(self, data: bytes) -> None:
        """Write bytes that the file does not hold."""
        self.pieces.append(data)


@dataclass(frozen=True, slots=True)
class Layout:
    """Facts from the headers. `width` and `height` are those of the stored pixels, before `orientation` is applied."""

    width: int
    height: int
    orientation: int
    has_alpha: bool
    is_animated: bool
    pieces: list[Piece] = field(repr=False)

    def is_clean(self, size: int) -> bool:
        """Whether a file of `size` bytes holds nothing that stripping would drop."""
        return self.pieces == [(0, size)]


def copy_pieces(file: BinaryIO, pieces: list[Piece]) -> Iterator[bytes]:
    """The bytes that a recipe makes of its file, a megabyte at most at a time."""
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
