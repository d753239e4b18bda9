"""Sizes in pixels: the legal ones, those of a ratio and a tier, and the nearest of a list. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

EDGE_STEP = 16
MAX_EDGE = 3840
MAX_RATIO = 3
MIN_PIXELS = 655_360
MAX_PIXELS = 8_294_400

TIERS = {"1K": 1536, "2K": 2048, "4K": 3840}
"""The long edge of a resolution tier; a square at 1K is 1024, the upstreams' own default."""

_SIZE = re.compile(r"([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})")
_RATIO = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Shape:
    """A ratio and a resolution tier, as in `16:9` at `2K`."""

    wide: int
    high: int
    tier: str

    def __str__(self) -> str:
        return f"{self.ratio}@{self.tier}"

    @property
    def ratio(self) -> str:
        return f"{self.wide}:{self.high}"


SQUARE = Size(1024, 1024)


def make_shape(wide: int, high: int, tier: str) -> Shape:
    """A Shape in lowest terms, except that 21:9 keeps its usual name."""
    factor = math.gcd(wide, high)
    wide, high = wide // factor, high // factor
    if sorted((wide, high)) == [3, 7]:
        wide, high = wide * 3, high * 3
    return Shape(wide, high, tier)


def parse_size(text: str) -> Size | None:
    """`1536x1024` as a Size, legal or not; None for other text."""
    match = _SIZE.fullmatch(text.strip())
    return Size(int(match[1]), int(match[2])) if match else None


def parse_ratio(text: str) -> tuple[int, int] | None:
    """`16:9` as two integers; None for other text."""
    match = _RATIO.fullmatch(text.strip())
    return (int(match[1]), int(match[2])) if match else None


def find_fault(size: Size) -> str | None:
    """The rule of gpt-image-2 that a size breaks, and a right value, as a sentence; None for a legal size."""
    long, short = max(size.width, size.height), min(size.width, size.height)
    if size.width % EDGE_STEP or size.height % EDGE_STEP:
        near = nearest_legal(size.width, size.height)
        return f"both edges must be multiples of {EDGE_STEP}; the nearest legal size is {near}"
    if long > MAX_EDGE:
        return f"no edge may be longer than {MAX_EDGE} pixels"
    if long > MAX_RATIO * short:
        return f"the long edge may be at most {MAX_RATIO} times the short one"
    if not MIN_PIXELS <= size.pixels <= MAX_PIXELS:
        return f"width x height must be {MIN_PIXELS:,} to {MAX_PIXELS:,} pixels; {size} has {size.pixels:,}"
    return None


def resolve(shape: Shape) -> Size:
    """The legal size of a ratio and a tier: 16:9 at 2K is 2048x1152, 1:1 at 4K is 2880x2880."""
    if shape.wide == shape.high and shape.tier == "1K":
        return SQUARE
    long = TIERS[shape.tier]
    ratio = max(shape.wide, shape.high) / min(shape.wide, shape.high)
    # A shape near 1:1 at 4K exceeds the pixel limit: scale both edges by the same factor.
    if long * long / ratio > MAX_PIXELS:
        long = _down(math.sqrt(MAX_PIXELS * ratio))
    short = _near(long / ratio)
    if long * short > MAX_PIXELS:
        short -= EDGE_STEP
    return Size(long, short) if shape.wide >= shape.high else Size(short, long)


def nearest_legal(width: int, height: int, pixels: int | None = None) -> Size:
    """The legal size nearest to a picture's shape, with about `pixels` pixels (by default its own number)."""
    ratio = min(max(width, height) / min(width, height), MAX_RATIO)
    area = min(max(pixels or width * height, MIN_PIXELS), MAX_PIXELS)
    long = min(_near(math.sqrt(area * ratio)), MAX_EDGE)
    short = _near(long / ratio)
    # Rounding each edge to 16 may exceed a limit: change one edge by one step at a time.
    while long * short > MAX_PIXELS:
        long, short = (long, short - EDGE_STEP) if short < long else (long - EDGE_STEP, short)
    while long * short < MIN_PIXELS or long > MAX_RATIO * short:
        short += EDGE_STEP
    long, short = max(long, short), min(long, short)
    return Size(long, short) if width >= height else Size(short, long)


def snap(size: Size, among: Sequence[Size]) -> Size:
    """The nearest of some sizes, with edges compared as ratios. It keeps the orientation if one of them does."""

    def distance(made: Size) -> float:
        return abs(math.log(made.width / size.width)) + abs(math.log(made.height / size.height))

    def turn(one: Size) -> int:
        return (one.width > one.height) - (one.width < one.height)

    return min([made for made in among if turn(made) == turn(size)] or among, key=distance)


def _near(edge: float) -> int:
    return max(EDGE_STEP, EDGE_STEP * round(edge / EDGE_STEP))


def _down(edge: float) -> int:
    return EDGE_STEP * int(edge / EDGE_STEP)
