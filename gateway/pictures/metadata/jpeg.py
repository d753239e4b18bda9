"""The parts of a JPEG (ITU-T T.81) that decoding and colour need. The layout leaves out all other segments.

The layout keeps every scan of a progressive JPEG, and of EXIF only the Orientation. It leaves out comments, thumbnails
and data after the end marker (second pictures, motion videos). It adds a missing end marker.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from gateway.pictures.metadata.layout import MAX_PARTS, Damaged, Layout, Recipe, only_orientation, orientation_of

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_BASELINE_TO_PROGRESSIVE = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xDE)
_TABLES = (0xC4, 0xCC, 0xDB, 0xDD)
_EXIF = b"Exif\0\0"

_MAX_SCANS = 100
"""The most scans: a decoder visits the whole picture for each, so many scans are an attack; encoders write about 10."""

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""The bytes that end a scan; stuffed zeros, restart markers and fill bytes do not."""

_READ = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Segment:
    """Offsets in the file: `start` of the marker, `body` of the payload, `end` after it and a scan's coded data."""

    marker: int
    start: int
    body: int
    end: int


def read_jpeg(file: BinaryIO, size: int) -> Layout:
    """The layout of a JPEG of `size` bytes. Raises Damaged."""
    recipe = Recipe()
    recipe.keep(0, 2)
    shape: tuple[int, int] | None = None
    orientation: int | None = None
    scans = 0
    lacks_end = False
    for segment in _segments(file, size):
        if segment.start == size:
            recipe.put(bytes((0xFF, _EOI)))
            lacks_end = True
            break
        if segment.marker in _BASELINE_TO_PROGRESSIVE:
            if shape is not None:
                raise Damaged("has two frame headers")
            shape = _frame(_payload(file, segment))
        elif segment.marker in _OTHER_FRAMES:
            raise Damaged("uses a lossless, arithmetic or hierarchical coding, which few programs read")
        elif segment.marker == _SOS:
            scans += 1
            if shape is None or scans > _MAX_SCANS:
                raise Damaged("has no frame header" if shape is None else "has far too many scans")
        elif segment.marker == _APP1 and orientation is None:
            orientation = _exif(file, segment, recipe)
            continue
        _keep(file, segment, recipe)
    if shape is None or not scans:
        raise Damaged("has no pixel data")
    return Layout(shape[0], shape[1], orientation or 1, False, False, recipe.pieces, lacks_end)


def _segments(file: BinaryIO, size: int) -> Iterator[_Segment]:
    """Yield the segments after the start marker, last the end marker: at `size` if it is missing. Raises Damaged."""
    position = 2
    for _ in range(MAX_PARTS):
        start = _next_marker(file, position)
        file.seek(start + 1)
        marker = file.read(1)[0]
        if marker == _EOI:
            yield _Segment(marker, start, start + 2, start + 2)
            return
        if marker == _SOI or marker < 0xC0:
            raise Damaged("has a marker that does not belong there")
        length = int.from_bytes(file.read(2), "big")
        end = start + 2 + length
        if length < 2 or end > size:
            raise Damaged("ends inside a segment")
        if marker == _SOS:
            end = _next_marker(file, end, size)
        yield _Segment(marker, start, start + 4, end)
        if end == size:
            yield _Segment(_EOI, size, size, size)
            return
        position = end
    raise Damaged("has far too many segments")


def _next_marker(file: BinaryIO, position: int, otherwise: int | None = None) -> int:
    """The offset of the first marker from `position` on. Without one returns `otherwise`, or raises Damaged."""
    file.seek(position)
    if _MARKER.match(file.read(2)):
        return position
    file.seek(position)
    carried = b""
    while piece := file.read(_READ):
        block = carried + piece
        found = _MARKER.search(block)
        if found:
            return position + found.start()
        carried = block[-1:]
        position += len(block) - 1
    if otherwise is not None:
        return otherwise
    raise Damaged("ends before its end marker")


def _payload(file: BinaryIO, segment: _Segment) -> bytes:
    file.seek(segment.body)
    return file.read(segment.end - segment.body)


def _frame(payload: bytes) -> tuple[int, int]:
    if len(payload) < 6:
        raise Damaged("has a frame header of the wrong length")
    depth, height, width, components = struct.unpack_from(">BHHB", payload)
    if not width or not height:
        raise Damaged("does not say its size in its header")
    if depth != 8 or components not in (1, 3, 4):
        raise Damaged(f"has {components} components of {depth} bits, which few programs read")
    return width, height


def _exif(file: BinaryIO, segment: _Segment, recipe: Recipe) -> int | None:
    """Return the Orientation, and add it to the recipe unless it is 1. Returns None if the segment is not EXIF."""
    payload = _payload(file, segment)
    if not payload.startswith(_EXIF):
        return None
    orientation = orientation_of(payload[len(_EXIF) :])
    if orientation == 1:
        return 1
    smallest = _EXIF + only_orientation(orientation)
    if payload == smallest:
        recipe.keep(segment.start, segment.end)
    else:
        recipe.put(_pack(_APP1, smallest))
    return orientation


def _keep(file: BinaryIO, segment: _Segment, recipe: Recipe) -> None:
    """Put the segment into the recipe if decoding or colour needs it."""
    marker = segment.marker
    if marker in _TABLES or marker in _BASELINE_TO_PROGRESSIVE or marker in (_SOS, _EOI):
        recipe.keep(segment.start, segment.end)
    elif marker == _APP0:
        _keep_jfif(_payload(file, segment), segment, recipe)
    elif marker in (_APP2, _APP14):
        # APP2 also holds the index of a multi-picture file. APP14 defines the coding of Adobe's CMYK and RGB.
        wanted = b"ICC_PROFILE\0" if marker == _APP2 else b"Adobe"
        file.seek(segment.body)
        if file.read(len(wanted)) == wanted:
            recipe.keep(segment.start, segment.end)


def _keep_jfif(payload: bytes, segment: _Segment, recipe: Recipe) -> None:
    """Keep JFIF without its thumbnail, which can show parts that were cropped out of the picture."""
    if not payload.startswith(b"JFIF\0") or len(payload) < 14:
        return
    if payload[12:] == b"\0\0":
        recipe.keep(segment.start, segment.end)
    else:
        recipe.put(_pack(_APP0, payload[:12] + b"\0\0"))


def _pack(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
