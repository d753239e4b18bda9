"""Sizes follow the vendors' published rules."""

import pytest

from gateway.simulator.sizes import RATIOS, broken_rule, parse_size, ratio_size, snap, tier


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((1280, 720), (1536, 1024)),
        ((1920, 1080), (2048, 1152)),
        ((1440, 2560), (2160, 3840)),
        ((1000, 1000), (1024, 1024)),
        ((2880, 2880), (2048, 2048)),
        ((3840, 2160), (3840, 2160)),
    ],
)
def test_size_snaps_to_nearest(asked, made):
    """A size becomes the nearest of seven of its own orientation."""
    assert snap(asked) == made


def test_orientation_is_kept():
    """No ratio changes between upright and wide by being snapped."""
    for ratio in RATIOS:
        wide, high = (int(part) for part in ratio.split(":"))
        for resolution in ("1K", "2K", "4K"):
            made = snap(ratio_size(ratio, resolution))
            assert (made[0] > made[1], made[0] < made[1]) == (wide > high, wide < high)


@pytest.mark.parametrize(
    ("ratio", "resolution", "made", "billed"),
    [
        ("1:1", "1K", (1024, 1024), "1K"),
        ("3:2", "1K", (1536, 1024), "1K"),
        ("16:9", "2K", (2048, 1152), "2K"),
        ("1:1", "2K", (2048, 2048), "2K"),
        ("16:9", "4K", (3840, 2160), "4K"),
        ("9:16", "4K", (2160, 3840), "4K"),
    ],
)
def test_ratio_and_resolution_meet_seven(ratio, resolution, made, billed):
    """A ratio and a resolution give one of the seven, and its price tier."""
    assert ratio_size(ratio, resolution) == made
    assert snap(made) == made
    assert tier(made) == billed


def test_rules_have_edges():
    """The last allowed size on every side is allowed, the next one is not."""
    for size in ((1024, 640), (3840, 2160), (2160, 3840), (1536, 512)):
        assert broken_rule(size) is None
    for size in ((1008, 640), (3840, 2176), (3856, 1600), (1552, 512), (1023, 1024)):
        assert broken_rule(size) is not None


@pytest.mark.parametrize("text", ["", "auto", "1024", "1024x", "01024x1024", "1024×1024", "1024x1024 ", "-1x1"])
def test_only_plain_sizes_parse(text):
    """Nothing but WxH is a size."""
    assert parse_size(text) is None
