"""Examines an uploaded file: size, hash and real format, whatever its declared type.

Files stay on disk. It reads them in pieces, and keeps only a small thumbnail of a picture.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError
from starlette.datastructures import UploadFile

from gateway.simulator.sizes import Size

_PIECE = 1024 * 1024
_THUMBNAIL = (160, 160)
_ALPHA = (512, 512)
# A thumbnail of a larger picture would cost more than the picture that shows it.
_MOST_DECODED_PIXELS = 17_000_000
_KNOWN = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass
class Upload:
    """One uploaded file. `format`, `size` and `has_alpha` come from its bytes; None when it is no picture."""

    field: str
    filename: str
    content_type: str
    length: int
    sha256: str
    format: str | None
    size: Size | None
    has_alpha: bool
    file: BinaryIO
    thumbnail: bytes | None = None
    alpha: bytes | None = None

    def show(self) -> dict[str, object]:
        return {
            "field": self.field,
            "filename": self.filename,
            "content_type": self.content_type,
            "bytes": self.length,
            "format": self.format,
            "size": None if self.size is None else f"{self.size[0]}x{self.size[1]}",
            "has_alpha": self.has_alpha,
            "sha256": self.sha256,
        }


def examine(field: str, incoming: UploadFile) -> Upload:
    """Hash and examine one file. This is slow for a large one, so it runs in a thread."""
    file = incoming.file
    file.seek(0)
    digest, length = hashlib.sha256(), 0
    while piece := file.read(_PIECE):
        digest.update(piece)
        length += len(piece)
    upload = Upload(
        field=field,
        filename=incoming.filename or "",
        content_type=incoming.content_type or "",
        length=length,
        sha256=digest.hexdigest(),
        format=None,
        size=None,
        has_alpha=False,
        file=file,
    )
    file.seek(0)
    try:
        with Image.open(file, formats=_KNOWN) as image:
            thumbnail, alpha = _look(upload, image)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        # A file that only begins like a picture is not one.
        upload.format = upload.size = None
    else:
        upload.thumbnail = _pack(thumbnail)
        upload.alpha = None if alpha is None else _pack(alpha)
    file.seek(0)
    return upload


def _look(upload: Upload, image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The thumbnail of a picture, and its alpha channel if it has one."""
    upload.format = (image.format or "").lower()
    upload.size = image.size
    upload.has_alpha = image.has_transparency_data
    if image.width * image.height > _MOST_DECODED_PIXELS:
        return Image.new("RGB", (64, 64), "grey"), None
    alpha = None
    # JPEG can be decoded at a fraction of its size; a picture with alpha is needed whole for its mask.
    image.draft("RGB", _THUMBNAIL)
    if upload.has_alpha:
        bands = image.getbands()
        alpha = image.getchannel("A") if "A" in bands else image.convert("RGBA").getchannel("A")
        alpha.thumbnail(_ALPHA, Image.Resampling.NEAREST)
    image.thumbnail(_THUMBNAIL, Image.Resampling.BOX)
    thumbnail = image.convert("RGB")
    # Pillow keeps the transparent grey of a 16-bit picture, and cannot write it with RGB.
    thumbnail.info.pop("transparency", None)
    return thumbnail, alpha


def _pack(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()
