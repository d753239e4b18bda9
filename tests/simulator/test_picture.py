"""Pictures tell a person what was asked."""

import io

from PIL import Image

from gateway.simulator.picture import Picture, draw, pad


def _picture(prompt="a lighthouse", index=0, **more):
    return Picture(size=(1024, 640), format="png", prompt=prompt, captions=("one", "two"), index=index, **more)


def test_picture_follows_from_what_it_shows():
    """The same picture is drawn twice alike; another prompt or index looks otherwise."""
    assert draw(_picture()) == draw(_picture())
    grounds = {
        Image.open(io.BytesIO(draw(_picture(*which)))).getpixel((1000, 320))
        for which in (("a lighthouse", 0), ("a lighthouse", 1), ("a harbour", 0))
    }
    assert len(grounds) == 3


def test_any_prompt_can_be_drawn():
    """A prompt of any length and script is drawn."""
    for prompt in ("", "x" * 32_000, "灯台 🌊 \x00 \ud800", "\n\n"):
        assert draw(_picture(prompt)).startswith(b"\x89PNG")


def test_inputs_are_shown():
    """The pictures an edit was given can be seen in what it made."""
    out = io.BytesIO()
    Image.new("RGB", (100, 100), (255, 255, 0)).save(out, "PNG")
    made = Image.open(io.BytesIO(draw(_picture(inputs=(out.getvalue(),) * 16))))
    assert sum(pixel == (255, 255, 0) for pixel in made.get_flattened_data()) > 16 * 50 * 50


def test_padding_is_exact():
    """Padding reaches the size asked for, and leaves a larger picture alone."""
    data = draw(_picture())
    assert len(pad(data, "png", 1_000_001)) == 1_000_001
    assert pad(data, "png", 10) == data
