"""Pictures are probed without decoding, converted upright, and refused in words a caller can act on."""

import asyncio
import io
import random
import re
import struct
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from gateway.pictures.picture import NotAPicture, Picture, PictureConverter, UnfitMask, check_mask, looks_like, sniff
from gateway.pictures.spool import MemoryBudget, Spool, StorageFullError
from tests.support.made_pictures import encoded, exif, loaded, picture, png_chunk, profile, riff, riff_chunk

FORMS = ("png", "jpeg", "webp")


@pytest.fixture
async def picture_converter():
    room = PictureConverter(threads=2, max_pixels=1_000_000)
    yield room
    await room.close()


@pytest.fixture(params=[1 << 20, 0], ids=["memory", "file"])
async def spool(request, tmp_path):
    """A spool that keeps its blobs in memory, and one that keeps them in files."""
    spool = Spool(tmp_path / "spool", MemoryBudget(request.param), keep=1 << 20)
    yield spool
    await spool.close()


def shown(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return ImageOps.exif_transpose(image).convert("RGBA")


def left_over(spool: Spool) -> set[Path]:
    return {path for path in spool._folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", FORMS)
async def test_probe_tells_shape_and_format(form, picture_converter, spool):
    """A picture's format, displayed size, Orientation and media type come from its bytes."""
    found = await picture_converter.probe(await spool.blob(encoded(picture(), form, exif=exif(6).tobytes())))
    assert (found.format, found.width, found.height, found.orientation) == (form, 16, 24, 6)
    assert found.media_type == f"image/{form}"


async def test_repr_shows_no_bytes(picture_converter, spool):
    """What a log could print of a picture is its shape and the start of its digest."""
    found = await picture_converter.probe(await spool.blob(loaded("png")))
    assert repr(found) == f"Picture(png 16x24, {found.blob.size} bytes)"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "zero bytes"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\xef\xbb\xbf<svg/>", "an SVG drawing"),
        (b"GIF89a\x01\0\x01\0", "a GIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC photo"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "a video"),
        (b"%PDF-1.7", "a PDF"),
        (b"<!DOCTYPE html><p>502 Bad Gateway", "an HTML page"),
        (b'{"error": {}}', "JSON"),
        (b"hello", "text"),
        (b"iVBORw0KGgoAAAANSUhEUg", "base64 text of a PNG"),
        (b"data:image/png;base64,iVBO", "text of a data URL"),
        (b"<?xml version='1.0'?><rss/>", "an XML document"),
        (b"\x01\x02\x03\x04", "no image format known"),
    ],
)
async def test_other_files_are_named(data, words, picture_converter, spool):
    """A file that is no picture is refused with what it looks like and which input it was."""
    with pytest.raises(NotAPicture) as refused:
        await picture_converter.probe(await spool.blob(data), what="Image 2")
    assert refused.value.reason.startswith("Image 2 ")
    assert words in refused.value.reason


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "Convert it to a PNG or WebP."),
        (b"GIF89a\x01\0\x01\0", "Convert it to a PNG or WebP."),
        (b"photo.png", "To send a file with curl, write `@` before its name, as in -F image=@picture.png."),
        (b"iVBORw0KGgoAAAANSUhEUg", "Send the file's bytes."),
        (b"<html>", ""),
    ],
)
async def test_other_files_have_remedies(data, remedy, picture_converter, spool):
    """The refusal names the formats that this field takes, and the remedy where there is one."""
    with pytest.raises(NotAPicture, match="`mask` is not a PNG or WebP: it looks like") as refused:
        await picture_converter.probe(await spool.blob(data), what="`mask`", right="PNG or WebP")
    assert refused.value.explain() == f"{refused.value.reason} {remedy}".rstrip()


@pytest.mark.parametrize("form", FORMS)
async def test_every_truncation_is_refused(form, picture_converter, spool):
    """A picture cut off anywhere is refused."""
    data = encoded(picture(), form, exif=exif(6).tobytes())
    for end in range(1, len(data), 7):
        with pytest.raises(NotAPicture):
            await picture_converter.probe(await spool.blob(data[:end]))


async def test_flipped_png_bit_is_refused(picture_converter, spool):
    """A PNG whose pixel data was altered on its way is refused by its checksum."""
    data = bytearray(encoded(picture(), "png"))
    data[data.index(b"IDAT") + 9] ^= 1
    with pytest.raises(NotAPicture, match="checksum"):
        await picture_converter.probe(await spool.blob(bytes(data)))


@pytest.mark.parametrize("form", ["png", "webp"])
async def test_animations_are_refused(form, picture_converter, spool):
    """Animated PNG and WebP are refused by name."""
    data = encoded(picture(), form, save_all=True, append_images=[picture("L")], duration=50)
    with pytest.raises(NotAPicture, match="animated"):
        await picture_converter.probe(await spool.blob(data))


def huge(form: str, edge: int) -> bytes:
    """A tiny file that claims edge x edge pixels."""
    if form == "png":
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"x") + png_chunk(b"IEND", b"")
    if form == "jpeg":
        data = bytearray(encoded(picture(), "jpeg"))
        frame = data.index(b"\xff\xc0") + 5
        data[frame : frame + 4] = struct.pack(">HH", edge, edge)
        return bytes(data)
    return riff(riff_chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", edge, edge)))


@pytest.mark.parametrize("form", FORMS)
async def test_pixel_cap_before_decoding(form, picture_converter, spool):
    """A small file that claims more pixels than allowed is refused from its header alone."""
    with pytest.raises(NotAPicture, match="the most is 1,000,000"):
        await picture_converter.probe(await spool.blob(huge(form, 16_000)))


async def test_pillow_limit_plays_no_part(tmp_path, monkeypatch):
    """Our own limit is the only one: a picture above Pillow's neither warns nor fails."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    room = PictureConverter(max_pixels=1000)
    spool = Spool(tmp_path, MemoryBudget(0))
    found = await room.probe(await spool.blob(encoded(picture(), "jpeg")))
    assert (await room.convert(found, "png", spool)).width == 24
    await spool.close()
    await room.close()


@pytest.mark.parametrize("form", FORMS)
async def test_strip_keeps_clean_picture(form, picture_converter, spool):
    """A picture without metadata is handed back, not copied."""
    found = await picture_converter.probe(await spool.blob(encoded(picture(), form)))
    before = left_over(spool)
    assert await picture_converter.strip(found, spool) is found
    assert left_over(spool) == before


@pytest.mark.parametrize("form", FORMS)
async def test_strip_describes_what_it_wrote(form, picture_converter, spool):
    """The stripped picture's size and digest are those of its bytes, and probing it finds the same picture."""
    found = await picture_converter.probe(await spool.blob(loaded(form)))
    clean = await picture_converter.strip(found, spool)
    assert b"SECRET" not in await clean.blob.read()
    assert clean.blob.size == len(await clean.blob.read())
    assert await picture_converter.probe(clean.blob) == clean


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("source", FORMS)
async def test_converted_pictures_stand_upright(source, orientation, picture_converter, spool):
    """Every Orientation is applied to the pixels, and no metadata but the ICC profile remains."""
    data = loaded(source, orientation, **({"lossless": True} if source == "webp" else {}))
    found = await picture_converter.strip(await picture_converter.probe(await spool.blob(data)), spool)
    made = await picture_converter.to_png_upright(found, spool)
    raw = await made.blob.read()
    assert (made.width, made.height, made.orientation) == (found.width, found.height, 1)
    assert shown(raw).tobytes() == shown(await found.blob.read()).tobytes()
    assert b"SECRET" not in raw
    with Image.open(io.BytesIO(raw)) as image:
        assert image.info["icc_profile"] == profile()
        assert not image.getexif()


@pytest.mark.parametrize("into", FORMS)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "key"])
async def test_every_png_mode_converts(mode, into, picture_converter, spool):
    """Each kind of PNG becomes each format, with its alpha where the format can hold it."""
    options = {}
    if mode == "I;16":
        image = Image.new("I;16", (24, 16), 32_896)
    elif mode == "key":
        image, options = picture("RGB"), {"transparency": picture("RGB").getpixel((0, 0))}
    else:
        image = picture("RGB").convert("P") if mode == "P" else picture(mode)
    found = await picture_converter.probe(await spool.blob(encoded(image, "png", **options)))
    made = await picture_converter.convert(found, into, spool, quality=100)
    assert made.format == into
    assert made.has_alpha is (mode in ("LA", "RGBA", "key") and into != "jpeg")
    if mode == "I;16" and into == "jpeg":
        assert shown(await made.blob.read()).getpixel((3, 3)) == (128, 128, 128, 255)


async def test_transparent_turns_white_in_jpeg(picture_converter, spool):
    """What was transparent is white in a JPEG, not black."""
    found = await picture_converter.probe(await spool.blob(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "png")))
    made = await picture_converter.convert(found, "jpeg", spool)
    assert shown(await made.blob.read()).getpixel((4, 4)) == (255, 255, 255, 255)


async def test_cmyk_goes_through_its_profile(picture_converter, spool):
    """A CMYK JPEG becomes RGB and does not keep a profile that is not for RGB."""
    data = encoded(picture("CMYK"), "jpeg", icc_profile=b"\0" * 16 + b"CMYK" + b"\0" * 200)
    made = await picture_converter.to_png_upright(await picture_converter.probe(await spool.blob(data)), spool)
    with Image.open(io.BytesIO(await made.blob.read())) as image:
        assert image.mode == "RGB"
        assert "icc_profile" not in image.info


@pytest.mark.parametrize("into", ["jpeg", "webp"])
async def test_quality_sets_the_size(into, picture_converter, spool):
    """A higher output_compression makes a larger file, and 100 is taken."""
    found = await picture_converter.probe(await spool.blob(encoded(picture(width=200, height=200), "png")))
    sizes = [
        (await picture_converter.convert(found, into, spool, quality=quality)).blob.size for quality in (0, 50, 100)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


async def test_nothing_to_convert_is_free(picture_converter, spool):
    """An upright PNG asked for as PNG is handed back; a JPEG asked for at a quality is written anew."""
    png = await picture_converter.probe(await spool.blob(encoded(picture(), "png")))
    jpeg = await picture_converter.probe(await spool.blob(encoded(picture(), "jpeg")))
    assert await picture_converter.convert(png, "png", spool, quality=50) is png
    assert await picture_converter.convert(jpeg, "jpeg", spool) is jpeg
    assert (await picture_converter.convert(jpeg, "jpeg", spool, quality=30)).blob.digest() != jpeg.blob.digest()


@pytest.mark.parametrize("into", FORMS)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
async def test_every_kind_is_resized(mode, into, picture_converter, spool):
    """A picture becomes one of exactly so many pixels, larger or smaller, in its format and with its alpha."""
    image = Image.new("I;16", (24, 16), 32_896) if mode == "I;16" else picture("RGB").convert(mode)
    found = await picture_converter.probe(await spool.blob(encoded(image, "png")))
    for size in ((48, 32), (12, 8), (40, 40)):
        made = await picture_converter.convert(found, into, spool, size=size)
        assert (made.format, made.width, made.height) == (into, *size)
        assert shown(await made.blob.read()).size == size
        if mode == "I;16" and into == "png":
            with Image.open(io.BytesIO(await made.blob.read())) as sixteen:
                assert sixteen.getpixel((3, 3)) == 32_896


async def test_resized_picture_keeps_its_proportions(picture_converter, spool):
    """What does not fit the other shape is cut off evenly; nothing is stretched."""
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (10, 0, 30, 20))
    found = await picture_converter.probe(await spool.blob(encoded(image, "png")))
    made = shown(await (await picture_converter.convert(found, "png", spool, size=(20, 20))).blob.read())
    assert {made.getpixel(point) for point in ((2, 2), (10, 10), (17, 17))} == {(0, 0, 255, 255)}


async def test_right_size_is_left_alone(picture_converter, spool):
    """A picture of the size that is wanted is handed back as it is."""
    found = await picture_converter.probe(await spool.blob(encoded(picture(), "png")))
    assert await picture_converter.convert(found, "png", spool, size=(found.width, found.height)) is found


async def test_too_wide_for_webp(picture_converter, spool):
    """A picture wider than WebP allows is refused with the limit."""
    found = await picture_converter.probe(await spool.blob(encoded(Image.new("L", (17_000, 2)), "png")))
    with pytest.raises(NotAPicture, match="16383"):
        await picture_converter.convert(found, "webp", spool)


async def test_full_disk_is_no_bad_picture(picture_converter, spool, tmp_path):
    """A write that fails is reported as a full disk, not as a damaged picture."""
    found = await picture_converter.probe(await spool.blob(encoded(picture(), "png")))
    # A link, because what failed to be written is unlinked, and that must never be the device.
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    spool.new_path = lambda: full  # type: ignore[method-assign]
    with pytest.raises(StorageFullError):
        await picture_converter.convert(found, "jpeg", spool)
    assert not full.is_symlink()


async def test_mutations_only_ever_refuse(picture_converter, tmp_path):
    """Damaged pictures are refused or converted; nothing else is raised and nothing stays on disk."""
    spool = Spool(tmp_path / "spool", MemoryBudget(0))
    chance = random.Random(7)
    refused = 0
    for number in range(150):
        form = FORMS[number % 3]
        data = bytearray(loaded(form, orientation=number % 8 + 1))
        for _ in range(chance.choice([1, 3, 20])):
            data[chance.randrange(12, len(data))] = chance.randrange(256)
        if number % 4 == 0:
            del data[chance.randrange(len(data)) :]
        try:
            found = await picture_converter.probe(await spool.blob(bytes(data)))
            before = left_over(spool)
            await picture_converter.strip(found, spool)
            await picture_converter.convert(found, "webp" if form == "png" else "png", spool)
        except NotAPicture:
            refused += 1
    assert refused > 50
    await spool.close()
    assert before
    assert not left_over(spool)


async def test_undecodable_leaves_no_file(picture_converter, spool):
    """A picture that passes the probe and fails in the decoder leaves no half-written result."""
    data = bytearray(encoded(picture(width=64, height=64), "webp", lossless=True))
    data[40:] = bytes(len(data) - 40)
    found = await picture_converter.probe(await spool.blob(bytes(data)))
    before = left_over(spool)
    with pytest.raises(NotAPicture, match="cannot be converted"):
        await picture_converter.convert(found, "png", spool)
    assert left_over(spool) == before


async def test_clean_picture_is_read_once(picture_converter, tmp_path):
    """A picture without metadata is read by its probe alone: its stripping returns it without a look at its file."""
    spool = Spool(tmp_path / "spool", MemoryBudget(0))
    found = await picture_converter.probe(await spool.blob(encoded(picture(), "png")))
    found.blob.path.unlink()
    assert await picture_converter.strip(found, spool) is found
    await spool.close()


async def test_cancelled_caller_waits_for_thread(picture_converter, tmp_path):
    """A cancelled conversion is over when its caller is: closing the spool leaves nothing behind."""
    spool = Spool(tmp_path / "spool", MemoryBudget(0))
    found = await picture_converter.probe(await spool.blob(encoded(picture("RGB", 900, 900), "png")))
    new_path, asked = spool.new_path, []

    def seen_path() -> Path:
        """The conversion's: a clean picture needs none for its stripping."""
        asked.append(new_path())
        return asked[-1]

    spool.new_path = seen_path  # type: ignore[method-assign]
    work = asyncio.create_task(picture_converter.convert(found, "webp", spool))
    # The thread runs once its file is there; it writes the picture at the end.
    while not asked or not asked[-1].exists():
        assert not work.done()
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert asked[-1].stat().st_size > 1000
    await spool.close()
    assert not left_over(spool)


def mask(**changes: object) -> Picture:
    facts = {"format": "png", "width": 64, "height": 32, "orientation": 1, "has_alpha": True, "blob": None}
    return Picture(**(facts | changes))


def test_fitting_mask_passes():
    """A mask with alpha fits an image of the same displayed size, whatever the image's format."""
    check_mask(mask(), mask(format="jpeg", has_alpha=False, orientation=6))
    check_mask(mask(format="webp"), mask())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "jpeg"}, "JPEG"),
        ({"has_alpha": False}, r"no alpha channel.*Save it as a PNG with transparency"),
        ({"width": 63}, "63x32 and the image is 64x32: they"),
        ({"width": 63, "orientation": 6}, r"63x32 \(shown upright, as its EXIF orientation says\)"),
    ],
)
def test_unfit_masks_are_explained(changes, words):
    """A mask that cannot say where to edit, or is of another size, is refused with the reason."""
    with pytest.raises(UnfitMask) as refused:
        check_mask(mask(**changes), mask())
    assert re.search(words, refused.value.explain())


def test_sniff_needs_twelve_bytes():
    """The three formats are known by their first bytes, and a RIFF of another kind is not a WebP."""
    assert [sniff(encoded(picture(), form)[:12]) for form in FORMS] == list(FORMS)
    assert sniff(b"RIFF\0\0\0\0WAVE") is None
    assert looks_like(b"") == "no image format known here"
