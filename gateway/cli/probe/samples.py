"""The plain pictures that a probe sends, so that it sends no user's picture. PNG only."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGBA = 6
_GREY = bytes((128, 128, 128, 255))
_CLEAR = bytes(4)


def draw_plain(width: int, height: int, *, is_mask: bool = False) -> bytes:
    """Draw a grey PNG with an alpha channel. The upper half of a mask is transparent: the part to edit."""
    clear = height // 2 if is_mask else 0
    rows = (b"\0" + _CLEAR * width) * clear + (b"\0" + _GREY * width) * (height - clear)
    header = struct.pack(">IIBBBBB", width, height, 8, _RGBA, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
