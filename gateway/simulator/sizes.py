"""Sizes: Anyfast's rules for WxH, and apiany's snapping of every target to one of seven.

Pure functions; the vendors' documentation pages give the numbers.
"""

import math
import re
from typing import TypeAlias

Size: TypeAlias = tuple[int, int]

_WXH = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_LONG_EDGES = {"1K": 1536, "2K": 2048, "4K": 3840}
_MOST_PIXELS = 8_294_400
_FEWEST_PIXELS = 655_360

RATIOS = (
    *("1:1", "1:2", "2:1", "1:3", "3:1", "2:3", "3:2", "3:4"),
    *("4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "9:21"),
)
RESOLUTIONS = tuple(_LONG_EDGES)
SNAPPED: tuple[Size, ...] = (
    (1024, 1024),
    (1536, 1024),
    (1024, 1536),
    (2048, 2048),
    (2048, 1152),
    (3840, 2160),
    (2160, 3840),
)


def parse_size(text: str) -> Size | None:
    """`WxH` as numbers; None for anything else, also for a capital X or a leading zero."""
    match = _WXH.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


def show_size(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def broken_rule(size: Size) -> str | None:
    """The rule of Anyfast that a size breaks; None when it breaks none."""
    width, height = size
    if width % 16 or height % 16:
        return "edges must be multiples of 16"
    if max(size) > 3840:
        return "the longest edge is 3840"
    if max(size) > 3 * min(size):
        return "the aspect ratio is at most 3:1"
    if not _FEWEST_PIXELS <= width * height <= _MOST_PIXELS:
        return "total pixels must be 655,360 to 8,294,400"
    return None


def _orientation(size: Size) -> int:
    return (size[0] > size[1]) - (size[0] < size[1])


def _distance(one: Size, other: Size) -> float:
    return math.hypot(math.log(one[0] / other[0]), math.log(one[1] / other[1]))


def snap(size: Size) -> Size:
    """The nearest of the seven with the same orientation, edges compared by their ratio."""
    same = [candidate for candidate in SNAPPED if _orientation(candidate) == _orientation(size)]
    return min(same, key=lambda candidate: _distance(size, candidate))


def ratio_size(ratio: str, resolution: str) -> Size:
    """The size of `W:H` at a resolution, before snapping."""
    wide, high = (int(part) for part in ratio.split(":"))
    edge = 1024 if wide == high and resolution == "1K" else _LONG_EDGES[resolution]
    scale = edge / max(wide, high)
    scale = min(scale, math.sqrt(_MOST_PIXELS / (wide * high)))
    return round(wide * scale / 16) * 16, round(high * scale / 16) * 16


def shape_size(like: Size) -> Size:
    """`auto` with a picture: its orientation, at 1K."""
    return {0: (1024, 1024), 1: (1536, 1024), -1: (1024, 1536)}[_orientation(like)]


def tier(size: Size) -> str:
    """The resolution by which a snapped size is billed."""
    return next(name for name, edge in _LONG_EDGES.items() if max(size) <= edge)
