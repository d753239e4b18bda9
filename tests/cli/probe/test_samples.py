"""The pictures that a probe sends: real PNGs, which any vendor can read."""

import io

from PIL import Image

from gateway.cli.probe.samples import draw_plain


def test_picture_is_whole() -> None:
    """It has the size that was asked for, and is opaque everywhere."""
    image = Image.open(io.BytesIO(draw_plain(48, 32)))
    image.load()
    assert (image.format, image.size, image.mode) == ("PNG", (48, 32), "RGBA")
    assert image.getchannel("A").getextrema() == (255, 255)


def test_mask_says_where_to_edit() -> None:
    """Its upper half is transparent and its lower half is not."""
    alpha = Image.open(io.BytesIO(draw_plain(48, 32, is_mask=True))).getchannel("A")
    assert alpha.crop((0, 0, 48, 16)).getextrema() == (0, 0)
    assert alpha.crop((0, 16, 48, 32)).getextrema() == (255, 255)
