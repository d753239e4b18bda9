"""Sizes: what is legal, what a ratio at a tier means, what a snapping upstream makes of a size."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalogue.vendors import SEVEN
from gateway.jobs.job import (
    SQUARE,
    TIERS,
    Size,
    find_fault,
    make_shape,
    nearest_legal,
    parse_ratio,
    parse_size,
    resolve,
    snap,
)

EDGES = st.integers(1, 20_000)
LEGAL = st.tuples(st.integers(1, 240), st.integers(1, 240)).map(lambda pair: Size(16 * pair[0], 16 * pair[1]))
LEGAL = LEGAL.filter(lambda size: find_fault(size) is None)
SHAPES = st.tuples(st.integers(1, 9999), st.integers(1, 9999), st.sampled_from(sorted(TIERS))).filter(
    lambda shape: max(shape[:2]) <= 3 * min(shape[:2])
)


def turn(width: int, height: int) -> int:
    """-1 for portrait, 0 for square, 1 for landscape."""
    return (width > height) - (width < height)


@pytest.mark.parametrize(
    ("size", "rule"),
    [
        (Size(1001, 1024), "multiples of 16; the nearest legal size is 1008x1024"),
        (Size(1024, 1020), "multiples of 16"),
        (Size(3856, 2144), "longer than 3840"),
        (Size(2144, 3856), "longer than 3840"),
        (Size(3072, 1008), "3 times"),
        (Size(1008, 3072), "3 times"),
        (Size(800, 800), "655,360 to 8,294,400 pixels; 800x800 has 640,000"),
        (Size(3840, 2176), "8,294,400 pixels"),
        (Size(16, 16), "pixels"),
    ],
    ids=str,
)
def test_each_broken_rule_is_named(size: Size, rule: str) -> None:
    """A refused size says which rule it breaks, and names the nearest legal size."""
    fault = find_fault(size) or ""
    assert rule in fault
    assert fault.endswith(f"; the nearest legal size is {nearest_legal(size.width, size.height)}")


@pytest.mark.parametrize(
    "size",
    [
        *SEVEN.made,
        Size(640, 1024),
        Size(1024, 640),
        Size(3840, 1280),
        Size(1280, 3840),
        Size(2880, 2880),
        Size(1408, 480),
    ],
    ids=str,
)
def test_limits_themselves_are_legal(size: Size) -> None:
    """Each limit counts as inside."""
    assert find_fault(size) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024x1024", Size(1024, 1024)),
        (" 1536X1024 ", Size(1536, 1024)),
        ("999999x1", Size(999_999, 1)),
        ("1000000x1", None),
        ("0x1024", None),
        ("01024x1024", None),
        ("1024", None),
        ("1024x", None),
        ("-1024x1024", None),
        ("1024 x 1024", None),
        ("1024.0x1024", None),
        ("1024×1024", None),
        ("１０２４x1024", None),
        ("auto", None),
    ],
)
def test_sizes_are_read_strictly(text: str, size: Size | None) -> None:
    """Only WIDTHxHEIGHT in plain digits is a size."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("16:9", (16, 9)),
        (" 1:1 ", (1, 1)),
        ("0:1", None),
        ("1:0", None),
        ("16/9", None),
        ("1.5:1", None),
        ("٣:2", None),
        ("12345:1", None),
    ],
)
def test_ratios_are_read_strictly(text: str, ratio: tuple[int, int] | None) -> None:
    """Only W:H in plain digits is a ratio."""
    assert parse_ratio(text) == ratio


@pytest.mark.parametrize(
    ("ratio", "tier", "size"),
    [
        ("1:1", "1K", "1024x1024"),
        ("3:2", "1K", "1536x1024"),
        ("2:3", "1K", "1024x1536"),
        ("1:1", "2K", "2048x2048"),
        ("16:9", "2K", "2048x1152"),
        ("16:9", "4K", "3840x2160"),
        ("9:16", "4K", "2160x3840"),
        ("1:1", "4K", "2880x2880"),
        ("16:9", "1K", "1536x864"),
        ("3:1", "1K", "1536x512"),
        ("1:3", "4K", "1280x3840"),
        ("21:9", "2K", "2048x880"),
        ("3:2", "4K", "3520x2352"),
    ],
)
def test_tiers_meet_documented_sizes(ratio: str, tier: str, size: str) -> None:
    """A ratio at a tier is the size its table says; the first seven are all that apiany makes."""
    wide, high = ratio.split(":")
    assert str(resolve(make_shape(int(wide), int(high), tier))) == size


def test_seven_come_from_tiers() -> None:
    """Every size apiany makes can be asked for by ratio and tier."""
    named = itertools.product(SEVEN.ratios, TIERS)
    made = {resolve(make_shape(*(parse_ratio(ratio) or (1, 1)), tier)) for ratio, tier in named}
    assert set(SEVEN.made) <= made


@pytest.mark.parametrize(
    ("wide", "high", "ratio"),
    [(1024, 1024, "1:1"), (1920, 1080, "16:9"), (42, 18, "21:9"), (3, 7, "9:21"), (7, 3, "21:9"), (9, 6, "3:2")],
)
def test_ratios_keep_common_names(wide: int, high: int, ratio: str) -> None:
    """A shape is in lowest terms, except for 21:9, which nobody calls 7:3."""
    shape = make_shape(wide, high, "2K")
    assert (shape.ratio, str(shape)) == (ratio, f"{ratio}@2K")


@given(SHAPES)
def test_resolved_sizes_are_legal(asked: tuple[int, int, str]) -> None:
    """Whatever ratio at whatever tier: a legal size of the same orientation and nearly the same ratio."""
    wide, high, tier = asked
    made = resolve(make_shape(wide, high, tier))
    assert find_fault(made) is None
    assert turn(made.width, made.height) in (0, turn(wide, high))
    assert max(made.width, made.height) <= TIERS[tier]
    assert abs(made.width / made.height - wide / high) < 0.03 * wide / high


@given(SHAPES)
def test_turned_shapes_resolve_turned(asked: tuple[int, int, str]) -> None:
    """Portrait is landscape on its side."""
    wide, high, tier = asked
    made, turned = resolve(make_shape(wide, high, tier)), resolve(make_shape(high, wide, tier))
    assert (made.width, made.height) == (turned.height, turned.width)


@given(EDGES, EDGES, st.none() | st.integers(1, 50_000_000))
def test_nearest_size_is_legal(width: int, height: int, pixels: int | None) -> None:
    """Any picture has a legal size near it, of its orientation."""
    made = nearest_legal(width, height, pixels)
    assert find_fault(made) is None
    assert turn(made.width, made.height) in (0, turn(width, height))


@given(EDGES, EDGES, st.none() | st.integers(1, 50_000_000))
def test_nearest_size_turns_with_picture(width: int, height: int, pixels: int | None) -> None:
    """A portrait loses no more of its shape than the same picture as a landscape."""
    made, turned = nearest_legal(width, height, pixels), nearest_legal(height, width, pixels)
    assert (made.width, made.height) == (turned.height, turned.width)


@given(LEGAL)
def test_legal_size_is_its_nearest(size: Size) -> None:
    """What is legal already is not moved."""
    assert nearest_legal(size.width, size.height) == size


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4000))
def test_nearest_size_keeps_shape(wide: int, high: int, scale: int) -> None:
    """A shape within the limits is kept to within the step of 16 pixels."""
    made = nearest_legal(wide * scale, high * scale)
    assert abs(made.width / made.height - wide / high) < 0.04 * wide / high


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ("1280x720", "1536x1024"),
        ("1920x1080", "2048x1152"),
        ("1440x2560", "2160x3840"),
        ("1024x1040", "1024x1536"),
        ("1040x1024", "1536x1024"),
        ("1536x1536", "2048x2048"),
        ("1280x1280", "1024x1024"),
        ("3840x1280", "3840x2160"),
    ],
)
def test_snapping_follows_documented_examples(asked: str, made: str) -> None:
    """The first three are apiany's own examples; the others its rule."""
    size = parse_size(asked)
    assert size is not None
    assert str(snap(size, SEVEN.made)) == made


@given(LEGAL)
def test_snapping_keeps_orientation(size: Size) -> None:
    """A snapped size is one of the seven, turned as the one asked for; the seven themselves stay."""
    made = snap(size, SEVEN.made)
    assert made in SEVEN.made
    assert turn(made.width, made.height) == turn(size.width, size.height)
    assert snap(made, SEVEN.made) == made


def test_square_is_upstreams_default() -> None:
    """The size made where none is asked for."""
    assert (str(SQUARE), SQUARE.pixels) == ("1024x1024", 1_048_576)
