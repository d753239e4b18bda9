"""Pictures for tests, made on the spot: plain ones, and ones full of what must not get out."""

import functools
import io
import struct
import zlib

from PIL import Image, ImageCms

SECRETS = (b"SECRET-CAMERA", b"SECRET-XMP", b"SECRET-TEXT", b"SECRET-TAIL", b"SECRET-THUMB")


def picture(mode: str = "RGB", width: int = 24, height: int = 16) -> Image.Image:
    """A picture in which no two corners look alike, so that a wrong turn shows."""
    image = Image.new("RGBA", (width, height))
    image.putdata(
        [
            (x * 255 // width, y * 255 // height, (x * y) % 256, 255 if x + y > 6 else 0)
            for y in range(height)
            for x in range(width)
        ]
    )
    return image.convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=form, **options)  # type: ignore[arg-type]
    return out.getvalue()


@functools.cache
def profile() -> bytes:
    """An sRGB profile, made once: it holds the second of its making."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 6) -> Image.Exif:
    block = Image.Exif()
    block[0x010F] = "SECRET-CAMERA"
    if orientation != 1:
        block[0x0112] = orientation
    block.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 36.0)})
    return block


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg_segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def loaded(form: str, orientation: int = 6, mode: str = "RGB", **options: object) -> bytes:
    """A picture with GPS, camera, XMP, comments, a thumbnail, an ICC profile and bytes behind its end."""
    block = exif(orientation).tobytes()
    plain = encoded(picture(mode), form, icc_profile=profile(), exif=block, **options)
    if form == "png":
        extra = png_chunk(b"tEXt", b"Comment\0SECRET-TEXT") + png_chunk(b"prVt", b"SECRET-XMP")
        extra += png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0SECRET-XMP") + png_chunk(b"tIME", bytes(7))
        return plain[:33] + extra + plain[33:-12] + png_chunk(b"zTXt", b"a\0\0SECRET-TEXT") + plain[-12:] + SECRETS[3]
    if form == "jpeg":
        thumb = jpeg_segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\4\1SECRET-THUMB")
        start = 2 + 2 + int.from_bytes(plain[4:6], "big") if plain[2:4] == b"\xff\xe0" else 2
        extra = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0SECRET-XMP")
        extra += jpeg_segment(0xE2, b"MPF\0SECRET-TEXT") + jpeg_segment(0xED, b"Photoshop 3.0\0SECRET-TEXT")
        extra += jpeg_segment(0xEB, b"JP\0\1SECRET-TEXT") + jpeg_segment(0xFE, b"SECRET-TEXT")
        return plain[:2] + thumb + plain[start:-2].replace(b"\xff\xda", extra + b"\xff\xda", 1) + b"\xff\xd9SECRET-TAIL"
    chunks = plain[12:] + riff_chunk(b"XMP ", b"SECRET-XMP") + riff_chunk(b"ABCD", b"SECRET-TEXT")
    flagged = bytearray(riff(chunks))
    flagged[20] |= 0x04
    return bytes(flagged) + b"SECRET-TAIL"
