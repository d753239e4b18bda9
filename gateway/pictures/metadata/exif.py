"""The one EXIF tag a picture needs to look right, Orientation: read from any EXIF block, written into a new one.

Called by the format modules. Never returns anything else that EXIF holds.
"""

from __future__ import annotations

import struct

_ORIENTATION = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I"}


def orientation_of(tiff: bytes) -> int:
    """The Orientation (1-8) of an EXIF block that starts at its TIFF header; 1 where there is none."""
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
    """An EXIF block, from its TIFF header on, that says the Orientation and nothing else."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, _ORIENTATION, 3, 1, orientation, 0, 0)
