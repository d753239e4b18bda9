"""May this target serve this job, and what would it really send and make? Pure functions over profiles, which are data.

`catalog` holds a profile for every credential, `routing` asks `fit`. Facts are the vendors' documentation pages, as
`docs/upstreams.md` tells them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from gateway import sizes
from gateway.job import Format, ImageJob, Operation, Quality
from gateway.sizes import Shape, Size


@dataclass(frozen=True, slots=True)
class Profile:
    """What one credential at one upstream can do.

    `max_n`: images in one call. `sizes`: `exact` makes any legal size, `seven` snaps to apiany's.
    `masked_references`: how many references may come with a mask (0: no masks, and `without_masks` says why).
    `masked_n`: images in one masked call.
    """

    max_n: int = 1
    sizes: Literal["exact", "seven"] = "exact"
    takes_auto_size: bool = False
    formats: tuple[Format, ...] = ("png", "jpeg")
    takes_format: bool = True
    max_references: int = 16
    masked_references: int = 0
    without_masks: str = "its key takes no masks"
    masked_n: int = 1
    masked_quality: bool = False
    edit_quality: bool = False
    moderation: tuple[Operation, ...] = ()

    def change(self, **values: Any) -> Profile:
        """This profile with an operator's corrections."""
        return replace(self, **values)


@dataclass(frozen=True, slots=True)
class Fit:
    """What a target would do for a job.

    `size` goes to the upstream and `made` is expected back (None where only the upstream knows). `compromises` are hard
    parameters that the caller set and this target would not honour; `dropped` all that it would not pass on.
    `transcode` means that the answer is re-encoded here.
    """

    per_call: int
    size: Size | Shape | None
    made: Size | None
    quality: Quality | None
    output_format: Format | None
    transcode: bool
    moderation: Literal["low"] | None
    compromises: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a target cannot serve a job, for a caller to read; `param` names the field that stands in the way."""

    reason: str
    param: str


def fit(job: ImageJob, profile: Profile, *, allows_nearest: bool = False) -> Fit | Unfit:
    """How `profile` would serve `job`, or why it cannot. `allows_nearest`: the route accepts another size, told."""
    if refusal := _find_refusal(job, profile):
        return refusal
    size, made = _choose_size(job, profile)
    compromises: list[str] = []
    if isinstance(job.size, Size) and made != job.size:
        if not allows_nearest:
            seven = ", ".join(str(one) for one in sizes.SEVEN)
            return Unfit(f"it makes only {seven}", "size")
        compromises.append("size")
    if isinstance(job.size, Shape) and made != sizes.resolve(job.size):
        compromises.append("size")
    sends_quality = _sends_quality(job, profile)
    if not sends_quality and job.quality is not None:
        compromises.append("quality")
    native = profile.takes_format and job.output_format in profile.formats
    sends_moderation = job.moderation == "low" and job.operation in profile.moderation
    dropped = [name for name in compromises if name == "quality"]
    if job.moderation == "low" and not sends_moderation:
        dropped.append("moderation")
    return Fit(
        per_call=profile.masked_n if job.mask else profile.max_n,
        size=size,
        made=made,
        quality=(job.quality or "medium") if sends_quality else None,
        output_format=(job.output_format if native else "png") if profile.takes_format else None,
        transcode=not native and job.output_format != "png",
        moderation="low" if sends_moderation else None,
        compromises=tuple(compromises),
        dropped=tuple(dropped),
    )


def _find_refusal(job: ImageJob, profile: Profile) -> Unfit | None:
    if job.background == "transparent":
        return Unfit("it makes no transparent backgrounds", "background")
    if len(job.references) > profile.max_references:
        return Unfit(f"it takes at most {profile.max_references} images, not {len(job.references)}", "image")
    if job.mask is None:
        return None
    if profile.masked_references == 0:
        return Unfit(profile.without_masks, "mask")
    if len(job.references) > profile.masked_references:
        most = "one image" if profile.masked_references == 1 else f"at most {profile.masked_references} images"
        return Unfit(f"with a mask it takes {most}, not {len(job.references)}", "mask")
    return None


def size_wanted(job: ImageJob) -> Size:
    """The size asked for in pixels; `auto` is a square, or for an edit the first image's shape."""
    if isinstance(job.size, Shape):
        return sizes.resolve(job.size)
    if job.size is None and job.references:
        first = job.references[0]
        return sizes.nearest_legal(first.width, first.height, pixels=sizes.SQUARE.pixels)
    return job.size or sizes.SQUARE


def _choose_size(job: ImageJob, profile: Profile) -> tuple[Size | Shape | None, Size | None]:
    """The size to send and the size that will be made."""
    if job.size is None and profile.takes_auto_size:
        return None, None
    exact = size_wanted(job)
    wanted = job.size or exact
    if profile.sizes == "seven":
        # A masked edit goes to an endpoint that knows sizes, not tiers; and only some ratios have a name.
        by_name = isinstance(wanted, Shape) and wanted.ratio in sizes.RATIOS and not job.mask
        return (wanted if by_name else exact), sizes.snap(exact)
    return exact, exact


def _sends_quality(job: ImageJob, profile: Profile) -> bool:
    if job.mask is not None:
        return profile.masked_quality
    return profile.edit_quality if job.operation == "edit" else True


DIRECT = "direct"


def shipped_profile(kind: str, model: str, group: str) -> Profile:
    """The documented abilities of a credential: of `kind`, for the upstream's own `model`, in a vendor's `group`."""
    if kind == "apiany":
        return Profile(
            max_n=10,
            sizes="seven",
            takes_auto_size=True,
            takes_format=False,
            masked_references=1,
            edit_quality=True,
        )
    is_direct = group == DIRECT
    return Profile(
        # The cheaper variant documents no `n` at all, in any group.
        max_n=10 if is_direct and not model.endswith("-c") else 1,
        masked_references=16 if is_direct else 0,
        without_masks="its key is not in the Direct group, which masks need",
        masked_n=10 if is_direct and not model.endswith("-c") else 1,
        moderation=("generation",),
    )
