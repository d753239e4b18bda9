"""The fit of a job to a target: the parameters and the size of its calls, or the reason against it. Pure functions.

A profile is data: the abilities of one credential. `vendors` has the documented ones, and the catalogue corrects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from gateway.jobs.job import (
    SQUARE,
    Background,
    Format,
    ImageJob,
    Operation,
    Passed,
    Sent,
    Shape,
    Size,
    nearest_legal,
    resolve,
    snap,
    snap_shape,
)


@dataclass(frozen=True, slots=True)
class SnappedSizes:
    """The sizes of an upstream that takes any size and makes the nearest of `made`.

    It takes `ratios` by name too, each with a tier.
    """

    made: tuple[Size, ...]
    ratios: frozenset[str]


@dataclass(frozen=True, slots=True)
class Profile:
    """The abilities of one credential at one upstream.

    `max_n` is the most images of one call. `masked_n` is the most images of one call with a mask. `sizes` has three
    forms. With "exact" the upstream makes any legal size. With a tuple it takes and makes only the sizes in it. With
    SnappedSizes it takes any size and makes the nearest one of a list. `masked_references` is the most references with
    a mask. If it is 0, the upstream takes no masks, and `without_masks` is the reason. A mask must be smaller than
    `mask_bytes`. `backgrounds` are the values that the gateway may send. `passes` has pairs of a parameter and an
    operation: in that operation the gateway passes that parameter on unchanged. With `passes_user` the gateway sends
    the name of the caller's end user.
    """

    max_n: int = 1
    sizes: Literal["exact"] | SnappedSizes | tuple[Size, ...] = "exact"
    takes_auto_size: bool = False
    formats: tuple[Format, ...] = ("png", "jpeg")
    takes_format: bool = True
    max_references: int = 16
    masked_references: int = 0
    without_masks: str = "its key takes no masks"
    masked_n: int = 1
    mask_bytes: int = 50 * 2**20
    masked_quality: bool = False
    edit_quality: bool = False
    passes: frozenset[tuple[str, Operation]] = frozenset()
    backgrounds: tuple[Background, ...] = ()
    passes_user: bool = False

    @property
    def made_sizes(self) -> tuple[Size, ...] | None:
        """The only sizes that the upstream makes; None where it makes any legal size."""
        if isinstance(self.sizes, SnappedSizes):
            return self.sizes.made
        return None if self.sizes == "exact" else self.sizes

    def change(self, **values: Any) -> Profile:
        """Return a copy of this profile with other values."""
        return replace(self, **values)


@dataclass(frozen=True, slots=True)
class Fit:
    """The calls by which a target would serve a job.

    `per_call` is the most images of one call. `sent` has the parameters that the target receives with each call. The
    gateway expects pictures of the size `made`; None if only the upstream knows it. `transcode` is True when the
    gateway re-encodes the picture. `compromises` names the hard parameters that the caller set and the target would
    not honour. `dropped` names what the caller set and the target does not receive, of these alone: `quality`, passed
    parameters, `user` and `safety_identifier`. Size, format, compression and background are never in it.
    """

    per_call: int
    sent: Sent
    made: Size | None
    transcode: bool
    compromises: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unfit:
    """The reason why a target cannot serve a job, for a caller to read; `param` names the field that prevents it."""

    reason: str
    param: str


def fit(job: ImageJob, profile: Profile, *, allows_nearest: bool = False) -> Fit | Unfit:
    """Return the fit of the job to the profile, or the reason why it does not fit.

    `allows_nearest` is True when the route accepts another size than the requested one.
    """
    if refusal := _find_refusal(job, profile):
        return refusal
    size, made = _choose_size(job, profile)
    compromises: list[str] = []
    if isinstance(job.size, Size) and made != job.size and job.scaled_to is None:
        if not allows_nearest:
            return Unfit(f"it makes only {', '.join(map(str, profile.made_sizes or ()))}", "size")
        compromises.append("size")
    if isinstance(job.size, Shape) and made != resolve(job.size):
        compromises.append("size")
    sends_quality = _sends_quality(job, profile)
    if not sends_quality and job.quality is not None:
        compromises.append("quality")
    missing = [one for one in job.passed if (one.name, job.operation) not in profile.passes]
    sent_format = _choose_format(job, profile)
    # An upstream that takes no format makes PNG.
    transcode = job.output_format != (sent_format or "png")
    return Fit(
        per_call=profile.masked_n if job.mask else profile.max_n,
        sent=Sent(
            size=size,
            quality=(job.quality or "medium") if sends_quality else None,
            output_format=sent_format,
            compression=None if transcode else job.output_compression,
            background=job.background if job.background in profile.backgrounds else None,
            end_user=job.end_user if profile.passes_user else None,
            passed=tuple([one for one in job.passed if one not in missing]) if missing else job.passed,
        ),
        made=made,
        transcode=transcode,
        compromises=(*compromises, *[one.name for one in missing if one.changes_picture]),
        dropped=_find_dropped(job, profile, missing, sends_quality=sends_quality),
    )


def _find_refusal(job: ImageJob, profile: Profile) -> Unfit | None:
    if job.background == "transparent" and not _makes_transparent(job, profile):
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
    if job.mask.blob.size >= profile.mask_bytes:
        return Unfit(f"its masks must be smaller than {profile.mask_bytes:,} bytes", "mask")
    return None


def _makes_transparent(job: ImageJob, profile: Profile) -> bool:
    return "transparent" in profile.backgrounds and _choose_format(job, profile) != "jpeg"


def _choose_format(job: ImageJob, profile: Profile) -> Format | None:
    """The format to send: the caller's own, else PNG, which loses nothing before the gateway re-encodes it.

    The first of `formats` where the upstream makes neither; None where it takes no format.
    """
    if not profile.takes_format:
        return None
    if job.output_format in profile.formats:
        return job.output_format
    return "png" if "png" in profile.formats else profile.formats[0]


def _find_dropped(
    job: ImageJob, profile: Profile, missing: Sequence[Passed], *, sends_quality: bool
) -> tuple[str, ...]:
    dropped = [] if sends_quality or job.quality is None else ["quality"]
    dropped += [one.name for one in missing]
    if not profile.passes_user:
        dropped += [name for name in ("user", "safety_identifier") if name in job.explicit]
    return tuple(dropped)


def size_wanted(job: ImageJob) -> Size:
    """The requested size in pixels. `auto` is 1024x1024, or for an edit as many pixels in the first image's shape."""
    if isinstance(job.size, Shape):
        return resolve(job.size)
    if job.size is None and job.references:
        first = job.references[0]
        return nearest_legal(first.width, first.height, pixels=SQUARE.pixels)
    return job.size or SQUARE


def _choose_size(job: ImageJob, profile: Profile) -> tuple[Size | Shape | None, Size | None]:
    """The size to send, and the size that the upstream will make. Both are None where the upstream chooses."""
    if job.size is None and profile.takes_auto_size:
        return None, None
    exact = size_wanted(job)
    if job.scaled_to is not None and profile.made_sizes is not None:
        # The gateway scales the picture, so its shape counts for more than its size.
        near = snap_shape(exact, profile.made_sizes)
        return near, near
    wanted = job.size or exact
    if isinstance(profile.sizes, SnappedSizes):
        # A masked edit goes to an endpoint that knows sizes, not tiers; and only some ratios have a name.
        by_name = isinstance(wanted, Shape) and wanted.ratio in profile.sizes.ratios and not job.mask
        return (wanted if by_name else exact), snap(exact, profile.sizes.made)
    if isinstance(profile.sizes, tuple):
        near = snap(exact, profile.sizes)
        return near, near
    return exact, exact


def _sends_quality(job: ImageJob, profile: Profile) -> bool:
    if job.mask is not None:
        return profile.masked_quality
    return profile.edit_quality if job.operation == "edit" else True
