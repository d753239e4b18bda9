"""What the vendors' pages allow, written down once more, by hand: the judge of plans, calls and prices.

Read from `docs/upstreams.md` and OpenAI's published price formula. Shares no code with the gateway, so that a mistake
there is not repeated here. `sold` is what a target would do for a wish; `price` what that costs at the example prices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

TARGETS = ("official", "basic", "variant", "tasks", "openai")
"""Anyfast's model with a Direct key and with another, its variant, apiany, and OpenAI's own specification."""

SEVEN = ("1024x1024", "1536x1024", "1024x1536", "2048x2048", "2048x1152", "3840x2160", "2160x3840")


@dataclass(frozen=True)
class SizeKind:
    """A size as it is typed, its pixels, and what apiany makes of it; `ratio` where apiany knows its name."""

    fields: tuple[tuple[str, str], ...]
    exact: str
    snapped: str
    ratio: str | None = None
    is_auto: bool = False


SIZES = {
    "none": SizeKind((), "1024x1024", "", is_auto=True),
    "auto": SizeKind((("size", "auto"),), "1024x1024", "", is_auto=True),
    "square": SizeKind((("size", "1024x1024"),), "1024x1024", "1024x1024"),
    "small": SizeKind((("size", "1024x640"),), "1024x640", ""),
    "landscape": SizeKind((("size", "1536x1024"),), "1536x1024", "1536x1024"),
    "full HD": SizeKind((("size", "1920x1088"),), "1920x1088", ""),
    "large": SizeKind((("size", "2048x2048"),), "2048x2048", "2048x2048"),
    "tall": SizeKind((("size", "2160x3840"),), "2160x3840", "2160x3840"),
    "3:2": SizeKind((("size", "3:2"),), "1536x1024", "1536x1024", "3:2"),
    "16:9": SizeKind((("aspect_ratio", "16:9"),), "1536x864", "1536x1024", "16:9"),
    "16:9 2K": SizeKind((("size", "16:9"), ("resolution", "2K")), "2048x1152", "2048x1152", "16:9"),
    "7:5": SizeKind((("size", "7:5"),), "1536x1104", "1536x1024"),
    "7:5 4K": SizeKind((("size", "7:5"), ("resolution", "4K")), "3392x2416", "3840x2160"),
}
"""Sizes of every kind. `auto` on an edit follows the first image, which is square wherever this table is used."""


@dataclass(frozen=True)
class Wish:
    """What a caller asks for."""

    size: SizeKind = SIZES["none"]
    quality: str | None = None
    n: int = 1
    references: int = 0
    masked: bool = False
    output_format: str = "png"

    @property
    def operation(self) -> str:
        return "edit" if self.references else "generation"

    def fields(self) -> dict[str, Any]:
        """As they are typed, without the prompt and the pictures."""
        told: dict[str, Any] = dict(self.size.fields)
        told |= {"quality": self.quality} if self.quality else {}
        told |= {"n": self.n} if self.n > 1 else {}
        return told | ({"output_format": self.output_format} if self.output_format != "png" else {})


@dataclass(frozen=True)
class Sold:
    """What a target does for a wish: how many images each call asks for, the fields that every call has (None: not
    sent), what is made (None: its own choice), at which quality, and which of the wishes it does not honour."""

    calls: tuple[int, ...]
    sent: dict[str, str | None]
    made: str | None
    quality: str
    breaks: frozenset[str] = field(default_factory=frozenset)


def sold(target: str, wish: Wish) -> Sold | None:
    """None where the pages do not allow it at all."""
    if target == "openai":
        return _openai(wish)
    return _tasks(wish) if target == "tasks" else _anyfast(target, wish)


def _anyfast(target: str, wish: Wish) -> Sold | None:
    if wish.masked and target == "basic":
        return None
    is_edit = wish.operation == "edit"
    quality = wish.quality or "medium"
    return Sold(
        calls=(wish.n,) if target == "official" else (1,) * wish.n,
        sent={
            "size": wish.size.exact,
            "resolution": None,
            "quality": None if is_edit else quality,
            "output_format": "png" if wish.output_format == "webp" else wish.output_format,
            "response_format": "b64_json" if target == "variant" and not is_edit else None,
        },
        made=wish.size.exact,
        quality="medium" if is_edit else quality,
        breaks=frozenset({"quality"} if is_edit and wish.quality else ()),
    )


def _tasks(wish: Wish) -> Sold | None:
    size = wish.size
    if wish.masked and wish.references > 1:
        return None
    # A size in pixels is kept exactly, or refused; a ratio may come out as another size, which is told.
    is_ratio = any(name == "aspect_ratio" or ":" in value for name, value in size.fields)
    if not is_ratio and not size.is_auto and size.exact not in SEVEN:
        return None
    by_name = is_ratio and size.ratio is not None and not wish.masked
    breaks = {"size"} if is_ratio and size.snapped != size.exact else set()
    if wish.masked and wish.quality:
        breaks.add("quality")
    tier = dict(size.fields).get("resolution", "1K")
    return Sold(
        calls=(1,) * wish.n if wish.masked else (wish.n,),
        sent={
            "size": "auto" if size.is_auto else size.ratio if by_name else size.exact,
            "resolution": tier if by_name else None,
            "quality": None if wish.masked else wish.quality or "medium",
            "output_format": None,
            "response_format": None,
        },
        made=None if size.is_auto else size.snapped,
        quality="medium" if wish.masked else wish.quality or "medium",
        breaks=frozenset(breaks),
    )


def _openai(wish: Wish) -> Sold:
    """Everything that a caller can wish is in its specification; a size that was left to it is its own choice."""
    size = "auto" if wish.size.is_auto else wish.size.exact
    return Sold(
        calls=(wish.n,),
        sent={
            "size": size,
            "resolution": None,
            "quality": wish.quality or "medium",
            "output_format": wish.output_format,
            "response_format": None,
        },
        made=None if wish.size.is_auto else size,
        quality=wish.quality or "medium",
    )


def price(target: str, wish: Wish, prompt: str, references: Sequence[tuple[int, int]]) -> int | None:
    """µ$ of the whole wish at the example prices; None where it is not sold. `references` are widths and heights."""
    found = sold(target, wish)
    if found is None:
        return None
    if target == "variant":
        return 30_000 * wish.n
    if target == "tasks":
        # Left to itself it makes a square or a small landscape, both of the first tier.
        return _TIERS[_tier(found.made or "1024x1024")] * wish.n
    given = 5 * max(1, -(-len(prompt) // 4)) + 8 * sum(_taken(*one) for one in references)
    # What is left to it is counted as the dearer of a square and a small landscape.
    made = max(_tokens(size, found.quality) for size in ([found.made] if found.made else ["1024x1024", "1536x1024"]))
    return sum(given + 30 * made * images for images in found.calls)


_TIERS = {"1K": 15_000, "2K": 30_000, "4K": 60_000}


def _tier(size: str) -> str:
    wide, high = (int(edge) for edge in size.split("x"))
    if max(wide, high) <= 1536 and wide * high <= 1536 * 1024:
        return "1K"
    return "2K" if max(wide, high) <= 2048 else "4K"


def _tokens(size: str, quality: str) -> int:
    """Output tokens, by the formula that OpenAI publishes."""
    wide, high = (int(edge) for edge in size.split("x"))
    edge = {"low": 16, "medium": 48, "high": 96}[quality]
    rows = round(edge * min(wide, high) / max(wide, high))
    return -(-edge * rows * (2_000_000 + wide * high) // 4_000_000)


def _taken(wide: int, high: int) -> int:
    """About the tokens of one reference."""
    grown = max(1.0, 1024 / max(wide, high))
    return min(math.ceil(wide * grown / 32) * math.ceil(high * grown / 32), 1536)
