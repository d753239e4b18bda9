"""What an image file says about itself, read from its structure alone, and what it says besides its picture.

Never decodes a pixel and never holds more than a few hundred kilobytes of the file.
"""

from __future__ import annotations

from typing import BinaryIO, Literal

from gateway.pictures.metadata.jpeg import read_jpeg
from gateway.pictures.metadata.layout import Damaged, Layout, Piece, copy_pieces
from gateway.pictures.metadata.png import read_png
from gateway.pictures.metadata.webp import read_webp

Format = Literal["png", "jpeg", "webp"]

__all__ = ["Damaged", "Format", "Layout", "Piece", "copy_pieces", "read_layout"]

_READERS = {"png": read_png, "jpeg": read_jpeg, "webp": read_webp}


def read_layout(file: BinaryIO, size: int, form: Format) -> Layout:
    """Walk a file of `size` bytes that starts like `form`. Raises Damaged."""
    return _READERS[form](file, size)
