"""Stripping keeps the picture and drops what it tells about its maker."""

import io
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from gateway.pictures.metadata.layout import Damaged, copy_pieces, only_orientation, orientation_of
from gateway.pictures.picture import read_layout
from tests.support.made_pictures import (
    SECRETS,
    encoded,
    exif,
    jpeg_segment,
    loaded,
    picture,
    png_chunk,
    profile,
    riff,
    riff_chunk,
)

FORMS = ("png", "jpeg", "webp")


def strip(data: bytes, form: str) -> bytes:
    file = io.BytesIO(data)
    return b"".join(copy_pieces(file, read_layout(file, len(data), form).pieces))


def pixels(data: bytes) -> tuple[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about the odd things these files hold on purpose
        with Image.open(io.BytesIO(data)) as image:
            return image.mode, image.tobytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_location_and_camera_gone(form, orientation):
    """No GPS position, camera, comment, thumbnail or appended data survives, whatever the orientation."""
    data = loaded(form, orientation)
    clean = strip(data, form)
    assert not [secret for secret in SECRETS if secret in clean]
    with Image.open(io.BytesIO(clean)) as image:
        tags = dict(image.getexif())
        assert tags == ({} if orientation == 1 else {0x0112: orientation})
        assert not image.getexif().get_ifd(0x8825)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_pixels_and_colour_identical(form, mode):
    """The decoded pixels and the ICC profile are those of the original."""
    if form == "jpeg" and mode == "RGBA":
        mode = "CMYK"
    data = loaded(form, mode=mode)
    clean = strip(data, form)
    assert pixels(clean) == pixels(data)
    with Image.open(io.BytesIO(clean)) as image:
        assert image.info["icc_profile"] == profile()


@pytest.mark.parametrize("form", FORMS)
def test_stripping_twice_changes_nothing(form):
    """A stripped file is clean, so it is not copied again."""
    clean = strip(loaded(form), form)
    assert read_layout(io.BytesIO(clean), len(clean), form).is_clean(len(clean))


@pytest.mark.parametrize("form", FORMS)
def test_plain_files_are_clean(form):
    """A file without metadata is recognised, and costs no copy."""
    data = encoded(picture(), form)
    assert read_layout(io.BytesIO(data), len(data), form).is_clean(len(data))


def test_progressive_scans_all_kept():
    """Every scan of a progressive JPEG stays, and comments between scans go."""
    data = encoded(picture(width=64, height=64), "jpeg", progressive=True, quality=95)
    last = data.rindex(b"\xff\xda")
    commented = data[:last] + jpeg_segment(0xFE, b"SECRET-TEXT") + data[last:]
    assert data.count(b"\xff\xda") > 3
    assert strip(commented, "jpeg") == data


def test_restart_markers_and_fill_bytes():
    """Restart markers belong to the scan; fill bytes before a marker do not end it."""
    data = encoded(picture(width=64, height=64), "jpeg", restart_marker_blocks=1)
    assert b"\xff\xd0" in data
    assert strip(data, "jpeg") == data
    filled = data[:-2] + b"\xff\xff\xff\xd9"
    assert pixels(strip(filled, "jpeg")) == pixels(data)


def test_scan_marker_across_reads():
    """A marker that two reads cut in half is found."""
    data = encoded(Image.effect_noise((900, 900), 90), "jpeg", quality=95)
    start = data.index(b"\xff\xda")
    for length in range(256 * 1024 - 3, 256 * 1024 + 3):
        scan = data[start : start + 12] + b"\x55" * length + b"\xff\xd9"
        cut = data[:start] + scan
        assert read_layout(io.BytesIO(cut), len(cut), "jpeg").is_clean(len(cut))


def test_motion_photo_video_dropped():
    """A video appended to a JPEG, where phones keep its location, goes."""
    data = encoded(picture(), "jpeg")
    assert strip(data + b"\0\0\0\x18ftypmp42" + b"SECRET" * 99, "jpeg") == data


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_in_both_byte_orders(order):
    """Orientation is read from little- and big-endian EXIF."""
    block = exif(5)
    block.endian = order
    assert orientation_of(block.tobytes()[6:]) == 5


def test_orientation_nonsense_is_upright():
    """An Orientation out of range or of the wrong type counts as upright."""
    good = only_orientation(3)
    assert orientation_of(good) == 3
    assert orientation_of(good[:19] + b"\x09" + good[20:]) == 1
    assert orientation_of(good[:13] + b"\x02" + good[14:]) == 1
    assert orientation_of(good[:-9]) == 1
    assert orientation_of(b"II*\0\xff\xff\xff\xff") == 1
    assert orientation_of(b"Hello") == 1


def test_png_animation_only_before_pixels():
    """The control chunk of an animated PNG counts only where the standard lets it stand."""
    data = encoded(picture(), "png")
    control = png_chunk(b"acTL", bytes(8))
    before = data[:33] + control + data[33:]
    after = data[:-12] + control + data[-12:]
    assert read_layout(io.BytesIO(before), len(before), "png").is_animated
    assert not read_layout(io.BytesIO(after), len(after), "png").is_animated
    assert strip(after, "png") == data


def test_png_bad_ancillary_chunk_dropped():
    """A gamma chunk with a wrong checksum is passed over, as decoders do, and not handed on."""
    data = encoded(picture(), "png")
    bad = png_chunk(b"gAMA", b"\0\0\xb1\x8f")[:-1] + b"\0"
    assert strip(data[:33] + bad + data[33:], "png") == data


@pytest.mark.parametrize(
    ("mode", "extra", "has_alpha"),
    [("RGB", {}, False), ("RGBA", {}, True), ("LA", {}, True), ("P", {}, False), ("P", {"transparency": 0}, True)],
)
def test_png_alpha_in_every_mode(mode, extra, has_alpha):
    """Alpha is an alpha channel or a transparent palette entry."""
    image = picture("RGBA").convert("RGB").convert("P") if mode == "P" else picture(mode)
    data = encoded(image, "png", **extra)
    assert read_layout(io.BytesIO(data), len(data), "png").has_alpha is has_alpha


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_alpha_in_both_codings(mode, lossless):
    """Alpha is seen in lossy and lossless WebP, with and without an extended header."""
    data = encoded(picture(mode), "webp", lossless=lossless)
    layout = read_layout(io.BytesIO(data), len(data), "webp")
    assert layout.has_alpha is (mode == "RGBA")
    assert (layout.width, layout.height) == (24, 16)


def test_webp_odd_chunk_padding():
    """A last chunk without its padding is padded when something follows it."""
    data = encoded(picture(), "webp", quality=1, exif=exif(6).tobytes())
    chunk = data.index(b"VP8 ")
    length = int.from_bytes(data[chunk + 4 : chunk + 8], "little")
    frame = data[chunk + 8 : chunk + 8 + length] + b"\0" * (1 - length % 2)
    raw = riff(data[12:30] + riff_chunk(b"EXIF", exif(6).tobytes()) + riff_chunk(b"VP8 ", frame)[:-1])
    clean = strip(raw, "webp")
    assert len(clean) % 2 == 0
    assert pixels(clean) == pixels(data)
    assert strip(clean, "webp") == clean


@pytest.mark.parametrize("form", FORMS)
def test_crowds_of_parts_refused(form):
    """A file of tens of thousands of empty parts is refused instead of being walked to its end."""
    data = encoded(picture(), form, **({"exif": exif(6).tobytes()} if form == "webp" else {}))
    parts = {
        "png": data[:33] + png_chunk(b"aaAa", b"") * 70_000 + data[33:],
        "jpeg": data[:2] + jpeg_segment(0xFE, b"") * 70_000 + data[2:],
        "webp": riff(data[12:] + riff_chunk(b"ABCD", b"") * 70_000),
    }[form]
    with pytest.raises(Damaged, match="far too many"):
        read_layout(io.BytesIO(parts), len(parts), form)


def test_jpeg_scan_bomb_refused():
    """A small JPEG of hundreds of scans over one large picture is refused before it is decoded."""
    data = encoded(picture(), "jpeg")
    scan = data[data.index(b"\xff\xda") : -2]
    bomb = data[:-2] + scan * 200 + b"\xff\xd9"
    with pytest.raises(Damaged, match="scans"):
        read_layout(io.BytesIO(bomb), len(bomb), "jpeg")


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    mode=st.sampled_from(["RGB", "RGBA", "L", "P"]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    orientation=st.integers(1, 8),
    extra=st.fixed_dictionaries(
        {}, optional={"progressive": st.booleans(), "lossless": st.booleans(), "optimize": st.booleans()}
    ),
    tail=st.binary(max_size=9),
)
def test_any_picture_survives_stripping(form, mode, width, height, orientation, extra, tail):
    """For pictures of any mode, shape and orientation: same pixels, same Orientation, clean, nothing else."""
    if form == "jpeg":
        mode = {"RGBA": "CMYK", "P": "L"}.get(mode, mode)
    image = picture(mode, width, height)
    if form == "png":
        extra.pop("progressive", None)
    data = encoded(image, form, exif=exif(orientation).tobytes(), **extra) + tail
    layout = read_layout(io.BytesIO(data), len(data), form)
    clean = strip(data, form)
    assert (layout.width, layout.height, layout.orientation) == (width, height, orientation)
    assert pixels(clean) == pixels(data)
    assert b"SECRET" not in clean
    again = read_layout(io.BytesIO(clean), len(clean), form)
    assert again.is_clean(len(clean))
    assert again.orientation == orientation
    with Image.open(io.BytesIO(clean)) as shown:
        assert ImageOps.exif_transpose(shown).size == ((height, width) if orientation >= 5 else (width, height))
