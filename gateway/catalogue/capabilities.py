"""May this target serve this job, and what would it really send and make? Pure functions over profiles, which are data.

`catalog` holds a profile for every credential, `routing` asks `fit`. Facts are the vendors' documentation pages, as
`docs/upstreams.md` tells them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from gateway.jobs import sizes
from gateway.jobs.job import Background, Format, ImageJob, Operation, Quality
from gateway.jobs.sizes import Shape, Size


@dataclass(frozen=True, slots=True)
class Profile:
    """What one credential at one upstream can do.

    `max_n`: images in one call. `sizes`: `exact` makes any legal size, `seven` snaps to apiany's, a list is all that
    it takes. `masked_references`: how many references may come with a mask (0: no masks, and `without_masks` says why).
    `masked_n`: images in one masked call; `mask_bytes`: a mask must be smaller. `backgrounds`: those that may be sent.
    `passes_user`: who asks the caller may be told.
    """

    max_n: int = 1
    sizes: Literal["exact", "seven"] | tuple[Size, ...] = "exact"
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
    moderation: tuple[Operation, ...] = ()
    backgrounds: tuple[Background, ...] = ()
    passes_user: bool = False

    def change(self, **values: Any) -> Profile:
        """This profile with an operator's corrections."""
        return replace(self, **values)


@dataclass(frozen=True, slots=True)
class Fit:
    """What a target would do for a job.

    `size` goes to the upstream and `made` is expected back (None where only the upstream knows). `compromises` are hard
    parameters that the caller set and this target would not honour; `dropped` all that it would not pass on.
    `transcode` means that the answer is re-encoded here. `passes_user`: the caller's own user is sent along.
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
    background: Background | None = None
    passes_user: bool = False


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
            return Unfit(f"it makes only {', '.join(map(str, _list_sizes(profile)))}", "size")
        compromises.append("size")
    if isinstance(job.size, Shape) and made != sizes.resolve(job.size):
        compromises.append("size")
    sends_quality = _sends_quality(job, profile)
    if not sends_quality and job.quality is not None:
        compromises.append("quality")
    sent_format = _choose_format(job, profile)
    sends_moderation = job.moderation == "low" and job.operation in profile.moderation
    return Fit(
        per_call=profile.masked_n if job.mask else profile.max_n,
        size=size,
        made=made,
        quality=(job.quality or "medium") if sends_quality else None,
        output_format=sent_format,
        # An upstream that cannot be told a format makes PNG.
        transcode=job.output_format != (sent_format or "png"),
        moderation="low" if sends_moderation else None,
        compromises=tuple(compromises),
        dropped=_find_dropped(job, profile, sends_quality=sends_quality, sends_moderation=sends_moderation),
        background=job.background if job.background in profile.backgrounds else None,
        passes_user=profile.passes_user,
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
    """The format to ask for: the caller's own, else PNG, which loses nothing before it is re-encoded here."""
    if not profile.takes_format:
        return None
    return next((one for one in (job.output_format, "png") if one in profile.formats), profile.formats[0])


def _find_dropped(job: ImageJob, profile: Profile, *, sends_quality: bool, sends_moderation: bool) -> tuple[str, ...]:
    dropped = [] if sends_quality or job.quality is None else ["quality"]
    if job.moderation == "low" and not sends_moderation:
        dropped.append("moderation")
    if not profile.passes_user:
        dropped += [name for name in ("user", "safety_identifier") if name in job.explicit]
    return tuple(dropped)


def _list_sizes(profile: Profile) -> tuple[Size, ...]:
    return sizes.SEVEN if isinstance(profile.sizes, str) else profile.sizes


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
    if isinstance(profile.sizes, tuple):
        near = sizes.snap(exact, profile.sizes)
        return near, near
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
    if kind == "openai":
        return Profile(
            max_n=10,
            # Only gpt-image-2 is documented to make any size; what another model makes, the catalogue may say.
            sizes="exact" if model.rpartition("/")[2].startswith("gpt-image-2") else sizes.THREE,
            takes_auto_size=True,
            formats=("png", "jpeg", "webp"),
            masked_references=16,
            masked_n=10,
            mask_bytes=4_000_000,
            masked_quality=True,
            edit_quality=True,
            # The form of an edit has no such field; its JSON sibling, which takes no files, has one.
            moderation=("generation",),
            backgrounds=("opaque",),
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
