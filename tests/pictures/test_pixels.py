"""`gateway.pictures.pixels`: JPEGs without an end marker, and the transparent colours of PNGs."""

import io
import struct
import zlib
from dataclasses import replace

import pytest
from PIL import Image

from gateway.pictures.picture import NotAPicture, PictureConverter
from gateway.pictures.spool import MemoryBudget, Spool
from tests.support.made_pictures import encoded, picture, png_chunk


@pytest.fixture
async def picture_converter():
    converter = PictureConverter(threads=2, max_pixels=1_000_000)
    yield converter
    await converter.close()


@pytest.fixture
async def spool(tmp_path):
    spool = Spool(tmp_path / "spool", MemoryBudget(1 << 20), keep=1 << 20)
    yield spool
    await spool.close()


def shown(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGBA")


JPEGS = [{}, {"progressive": True}, {"subsampling": 0, "quality": 30}]


@pytest.mark.parametrize("options", JPEGS, ids=["baseline", "progressive", "coarse"])
@pytest.mark.parametrize("size", [(24, 16), (301, 200)])
async def test_jpeg_without_its_end_marker_is_whole(options, size, picture_converter, spool):
    """A JPEG that lacks nothing but its end marker is served, and sent on with one."""
    whole = encoded(picture("RGB", *size), "jpeg", **options)
    found = await picture_converter.probe(await spool.blob(whole[:-2]))
    assert (found.width, found.height) == size
    clean = await picture_converter.strip(found, spool)
    assert await clean.blob.read() == whole
    turned = await picture_converter.convert(found, "png", spool)
    assert shown(await turned.blob.read()).tobytes() == shown(whole).tobytes()


@pytest.mark.parametrize("options", JPEGS, ids=["baseline", "progressive", "coarse"])
async def test_cut_jpeg_is_refused(options, picture_converter, spool):
    """A JPEG whose last lines are missing is refused: the decoder would fill them with grey."""
    whole = encoded(picture("RGB", 301, 200), "jpeg", **options)
    for cut in (3, 4, 5, 9, 40, 300, len(whole) // 2):
        with pytest.raises(NotAPicture, match=r"ends (before|inside)"):
            await picture_converter.probe(await spool.blob(whole[:-cut]))


def keyed_png(depth: int, colour: int, pixels: list[tuple[int, ...]], clear: tuple[int, ...]) -> bytes:
    """A PNG of one row, grey (colour type 0) or RGB (2), with a transparent colour."""
    bits = "".join(format(part, f"0{depth}b") for pixel in pixels for part in pixel)
    bits += "0" * (-len(bits) % 8)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", len(pixels), 1, depth, colour, 0, 0, 0)),
        (b"tRNS", struct.pack(f">{len(clear)}H", *clear)),
        (b"IDAT", zlib.compress(row)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


KEYED = [
    (1, 0, [(0,), (1,)], (1,)),
    (2, 0, [(0,), (1,), (3,)], (1,)),
    (4, 0, [(0,), (9,), (15,)], (9,)),
    (8, 0, [(0,), (200,), (255,)], (200,)),
    (16, 0, [(0,), (40_000,), (40_001,)], (40_000,)),
    (16, 0, [(0,), (65_535,), (1,)], (0,)),
    (8, 2, [(1, 2, 3), (4, 5, 6)], (4, 5, 6)),
    (16, 2, [(256, 512, 768), (4000, 5000, 6000)], (4000, 5000, 6000)),
]


@pytest.mark.parametrize(("depth", "colour", "row", "clear"), KEYED)
@pytest.mark.parametrize("into", ["webp", "png", "jpeg"])
async def test_transparent_colour_is_kept(depth, colour, row, clear, into, picture_converter, spool):
    """The transparent colour of a PNG of any depth is transparent after a conversion, and white in a JPEG."""
    found = await picture_converter.probe(await spool.blob(keyed_png(depth, colour, row, clear)))
    assert found.has_alpha
    # A PNG would stay as it is.
    turned = replace(found, orientation=3)
    data = await (await picture_converter.convert(turned, into, spool, quality=100)).blob.read()
    image = Image.open(io.BytesIO(data))
    if into == "jpeg":
        assert image.convert("L").getpixel((row[::-1].index(clear), 0)) > 200
        return
    if image.mode == "I;16":
        # Pillow forgets the transparent colour when it converts these.
        alpha = [0 if image.getpixel((x, 0)) == image.info["transparency"] else 255 for x in range(len(row))]
    else:
        alpha = [image.convert("RGBA").getpixel((x, 0))[3] for x in range(len(row))]
    assert alpha == [0 if pixel == clear else 255 for pixel in row[::-1]]
