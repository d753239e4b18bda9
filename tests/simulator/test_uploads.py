"""An upload is known by its bytes: a picture, or none."""

import io
import struct
import zlib

import pytest
from starlette.datastructures import UploadFile

from gateway.simulator.uploads import examine
from tests.support.made_pictures import png_chunk
from tests.support.plain_pictures import encode, mask, png


def _transparent_grey() -> bytes:
    """A PNG of one pixel in 16-bit grey, with black as its transparent colour."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", 0)),
        (b"IDAT", zlib.compress(b"\0\x80\0")),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize(
    ("data", "form", "has_alpha"),
    [
        (png(), "png", False),
        (mask(), "png", True),
        (encode("JPEG"), "jpeg", False),
        (_transparent_grey(), "png", True),
    ],
    ids=["png", "alpha", "jpeg", "transparent 16-bit grey"],
)
def test_picture_is_known_and_shown(data: bytes, form: str, has_alpha: bool) -> None:
    """A picture of any kind has its format, and a thumbnail to be shown."""
    found = examine("image", UploadFile(io.BytesIO(data)))
    assert (found.format, found.has_alpha) == (form, has_alpha)
    assert (found.thumbnail or b"").startswith(b"\x89PNG")
    assert (found.alpha is not None) == has_alpha


def test_other_bytes_are_no_picture() -> None:
    """A file that only begins like a picture has no format, and nothing to be shown."""
    found = examine("image", UploadFile(io.BytesIO(png()[:40])))
    assert (found.format, found.size, found.thumbnail) == (None, None, None)
