"""The layout of a WebP (RFC 9649): its RIFF chunks. The layout leaves out data after the RIFF container."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from gateway.pictures.metadata.layout import (
    EXIF_READ,
    MAX_PARTS,
    Damaged,
    Layout,
    Piece,
    Recipe,
    only_orientation,
    orientation_of,
)

_ICC, _ALPHA, _EXIF, _ANIMATION = 0x20, 0x10, 0x08, 0x02
_PIXELS = (b"VP8 ", b"VP8L")


@dataclass(frozen=True, slots=True)
class _Chunk:
    """`start` is the offset of its name, `length` the bytes of its data, `end` the offset after its padding."""

    kind: bytes
    start: int
    length: int
    end: int


@dataclass(slots=True)
class _Found:
    """The facts from the chunks that are read so far."""

    header: bytes | None = None
    has_icc: bool = False
    canvas: tuple[int, int] | None = None
    frame: tuple[int, int] | None = None
    orientation: int | None = None
    has_alpha: bool = False
    is_animated: bool = False


def read_webp(file: BinaryIO, size: int) -> Layout:
    """The layout of a WebP of `size` bytes; for an animated one without pieces. Raises Damaged."""
    file.seek(4)
    stop = 8 + int.from_bytes(file.read(4), "little")
    if stop > size:
        raise Damaged("ends before the length that its header states")
    found = _Found()
    body = Recipe()
    for chunk in _chunks(file, stop):
        _read_chunk(file, chunk, found, body)
    if found.is_animated:
        return Layout(*(found.canvas or (0, 0)), 1, found.has_alpha, True, [])
    if found.frame is None:
        raise Damaged("has no pixel data")
    if found.canvas not in (None, found.frame):
        raise Damaged("states one size in its header and another in its pixel data")
    orientation = found.orientation or 1
    pieces = _with_header(body.pieces, found, size)
    return Layout(*found.frame, orientation, found.has_alpha, False, pieces)


def _chunks(file: BinaryIO, stop: int) -> Iterator[_Chunk]:
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > stop:
            return
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        end = position + 8 + length
        if end > stop:
            raise Damaged("ends inside a chunk")
        # Some writers omit the padding of the last chunk.
        padded = min(end + length % 2, stop)
        yield _Chunk(kind, position, length, padded)
        position = padded
    raise Damaged("has far too many chunks")


def _read_chunk(file: BinaryIO, chunk: _Chunk, found: _Found, body: Recipe) -> None:
    is_extended = found.header is not None
    if chunk.kind == b"VP8X":
        if chunk.start != 12 or chunk.length < 10:
            raise Damaged("has an invalid header")
        _read_extended(file, chunk, found)
    elif chunk.kind in (b"ANIM", b"ANMF"):
        found.is_animated = True
    elif chunk.kind in _PIXELS:
        if found.frame is None:
            found.frame = _read_frame(file, chunk, found)
            _keep(chunk, body)
    elif found.frame is None and not is_extended:
        raise Damaged("does not start with its header or its pixel data")
    elif chunk.kind == b"ALPH" and found.frame is None:
        found.has_alpha = True
        _keep(chunk, body)
    elif chunk.kind == b"ICCP" and is_extended and found.frame is None:
        found.has_icc = True
        _keep(chunk, body)
    elif chunk.kind == b"EXIF" and is_extended and found.orientation is None:
        found.orientation = _read_exif(file, chunk, body)


def _keep(chunk: _Chunk, body: Recipe) -> None:
    body.keep(chunk.start, chunk.end)
    if (chunk.end - chunk.start) % 2:
        body.put(b"\0")


def _read_extended(file: BinaryIO, chunk: _Chunk, found: _Found) -> None:
    file.seek(chunk.start + 8)
    found.header = head = file.read(chunk.length if chunk.length <= 64 else 10)
    found.canvas = int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    found.is_animated = bool(head[0] & _ANIMATION)
    found.has_alpha = bool(head[0] & _ALPHA)


def _read_frame(file: BinaryIO, chunk: _Chunk, found: _Found) -> tuple[int, int]:
    file.seek(chunk.start + 8)
    head = file.read(min(chunk.length, 10))
    if chunk.kind == b"VP8L":
        if len(head) < 5 or head[0] != 0x2F or head[4] >> 5:
            raise Damaged("has pixel data without a valid start")
        bits = int.from_bytes(head[1:5], "little")
        found.has_alpha = found.has_alpha or bool(bits >> 28 & 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(head) < 10 or head[0] & 1 or head[3:6] != b"\x9d\x01\x2a":
        raise Damaged("has pixel data without a valid start")
    width, height = struct.unpack_from("<HH", head, 6)
    if not width & 0x3FFF or not height & 0x3FFF:
        raise Damaged("has no area")
    return width & 0x3FFF, height & 0x3FFF


def _read_exif(file: BinaryIO, chunk: _Chunk, body: Recipe) -> int:
    """Return the Orientation, and add it to the recipe unless it is 1."""
    file.seek(chunk.start + 8)
    block = file.read(min(chunk.length, EXIF_READ))
    # Some writers copy the prefix that only a JPEG's EXIF has.
    orientation = orientation_of(block.removeprefix(b"Exif\0\0"))
    if orientation == 1:
        return 1
    smallest = only_orientation(orientation)
    if block == smallest:
        _keep(chunk, body)
    else:
        body.put(b"EXIF" + struct.pack("<I", len(smallest)) + smallest)
    return orientation


def _with_header(body: list[Piece], found: _Found, size: int) -> list[Piece]:
    """The new file: RIFF header, extended header if the file had one, and `body`; the whole file if nothing changes."""
    length = 4 + sum(len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in body)
    recipe = Recipe()
    if found.header is None:
        recipe.put(b"RIFF" + struct.pack("<I", length) + b"WEBP")
        is_kept, start = True, 12
    else:
        flags = found.header[0] & _ALPHA | (_ICC if found.has_icc else 0)
        flags |= _EXIF if (found.orientation or 1) != 1 else 0
        head = bytes([flags, 0, 0, 0]) + found.header[4:10]
        recipe.put(b"RIFF" + struct.pack("<I", length + 18) + b"WEBPVP8X" + struct.pack("<I", len(head)) + head)
        is_kept, start = found.header == head, 30
    if is_kept and body == [(start, size)]:
        return [(0, size)]
    return recipe.pieces + body
