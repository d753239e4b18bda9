"""The rights of a caller's key: the most images, the best quality, the most pixels, and the upstreams. Pure.

They are checked on the job, and again on each target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway import errors
from gateway.jobs.job import SQUARE, ImageJob, Quality, Shape, Size, resolve

_RANKS: dict[Quality, int] = {"low": 0, "medium": 1, "high": 2}

_USUAL: Quality = "medium"
"""The quality that `auto` stands for, and that an upstream without a quality parameter is assumed to make."""


@dataclass(frozen=True, slots=True)
class Rights:
    """The limits that a key and a request set on the choice of a target. A field that is None sets no limit.

    `upstreams` holds names in the catalogue. `pinned` is the request's own choice: the name of an upstream, or an
    `upstream/credential`.
    """

    upstreams: tuple[str, ...] | None = None
    max_quality: Quality | None = None
    max_pixels: int | None = None
    max_n: int | None = None
    pinned: str | None = None

    @property
    def lets_upstream_choose_size(self) -> bool:
        """False when the key limits pixels: the upstream could choose more."""
        return self.max_pixels is None

    def allows(self, upstream: str) -> bool:
        return self.upstreams is None or upstream in self.upstreams

    def is_chosen(self, upstream: str, label: str) -> bool:
        """True when the request chose this target, or made no choice."""
        return self.pinned in (None, upstream, label)

    def check(self, job: ImageJob) -> None:
        """Raise UnsupportedValue when the job exceeds the key's limits on images, quality or pixels."""
        if self.max_n is not None and job.n > self.max_n:
            raise errors.UnsupportedValue(
                f"This key may ask for at most {self.max_n} images at once, not {job.n}.", param="n"
            )
        if self.max_quality and job.quality and _RANKS[job.quality] > _RANKS[self.max_quality]:
            raise errors.UnsupportedValue(
                f"This key may ask for `quality` {self.max_quality} at most, not {job.quality}.", param="quality"
            )
        if self.max_pixels is not None:
            _check_size(job.size, self.max_pixels)

    def cap_quality(self, job: ImageJob) -> ImageJob:
        """Return the job, with the key's best quality in place of `auto` if that is below medium."""
        is_below = self.max_quality is not None and _RANKS[self.max_quality] < _RANKS[_USUAL]
        return replace(job, quality=self.max_quality) if is_below and job.quality is None else job

    def cap_defaults(self, size: Size | None, quality: Quality | None) -> tuple[Size | None, Quality | None]:
        """A rule's default size and quality within the key's limits: None for a larger size, the key's best quality."""
        is_large = size is not None and self.max_pixels is not None and size.pixels > self.max_pixels
        is_better = quality and self.max_quality and _RANKS[quality] > _RANKS[self.max_quality]
        return None if is_large else size, self.max_quality if is_better else quality

    def find_excess(self, quality: Quality | None, made: Size | None) -> tuple[str, str] | None:
        """The reason why a target's result exceeds the key's limits, and the parameter; None if it does not."""
        if self.max_quality and _RANKS[quality or _USUAL] > _RANKS[self.max_quality]:
            return f"it takes no quality here, and this key is limited to {self.max_quality}", "quality"
        if self.max_pixels is not None and made is not None and made.pixels > self.max_pixels:
            return f"it would make {made}, and this key is limited to {self.max_pixels:,} pixels", "size"
        return None


def _check_size(size: Size | Shape | None, most: int) -> None:
    if size is None:
        if most < SQUARE.pixels:
            raise errors.UnsupportedValue(
                f"This key is limited to {most:,} pixels, less than `auto` makes; send a `size` such as 1024x640.",
                param="size",
            )
        return
    exact = resolve(size) if isinstance(size, Shape) else size
    if exact.pixels > most:
        shown = f"{size} ({exact})" if isinstance(size, Shape) else str(size)
        raise errors.UnsupportedValue(
            f"This key is limited to {most:,} pixels; `size` {shown} has {exact.pixels:,}.", param="size"
        )
