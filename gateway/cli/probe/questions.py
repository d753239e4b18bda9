"""What no vendor's page settles, as questions: what would be sent, what it may cost, and what an answer means.

Asked by `imagegate probe`, one paid call a question; `asking` sends them. Pure functions and data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway.catalogue import pricing
from gateway.catalogue.capabilities import Fit, Profile
from gateway.catalogue.catalogue import Target
from gateway.cli.probe.answers import (
    Learned,
    Seen,
    read_balance,
    read_edit_form,
    read_edit_quality,
    read_mask,
    read_models,
    read_n,
    read_plain,
    read_price,
    read_snapping,
    read_webp,
)
from gateway.jobs import sizes
from gateway.jobs.job import ImageJob
from gateway.jobs.sizes import Shape, Size
from gateway.pictures.picture import Picture
from gateway.pictures.spool import Blob
from gateway.upstreams.verdict import classify

PROMPT = "a plain grey square"
SMALL = Size(1024, 640)
"""The fewest pixels that gpt-image-2 makes, and so the cheapest by tokens."""

_AMBIGUOUS = Size(1600, 1024)
"""Nearest to 1536x1024, while the smallest of the seven that holds it whole is 2048x1152."""

Read = Callable[[Seen, Target], Learned]


@dataclass(frozen=True, slots=True)
class Question:
    """One question. A free one asks at `path`; a paid one sends `job`, whose picture may be any of `may_make`.

    Where a `control` is not answered with yes, no other answer would tell anything.
    """

    name: str
    asks: str
    read: Read
    path: str | None = None
    job: ImageJob | None = None
    may_make: tuple[Size, ...] = ()
    is_control: bool = False

    @property
    def is_free(self) -> bool:
        return self.job is None


def questions_of(target: Target) -> tuple[Question, ...]:
    """The questions for one credential, free ones first."""
    if target.config.kind == "apiany":
        return _APIANY
    is_variant = target.config.kind == "anyfast" and target.config.model.endswith("-c")
    own = target.profile.sizes
    questions = _VARIANT if is_variant else _SYNCHRONOUS
    if isinstance(own, tuple):
        smallest = min(own, key=lambda size: size.pixels)
        return tuple(one if one.job is None else replace(one, job=_resize(one.job, smallest)) for one in questions)
    return questions


def cost_at_most(question: Question, target: Target) -> int | None:
    """µ$ that a question may cost by the catalogue's prices; None where they do not tell."""
    if question.job is None:
        return 0
    job = question.job
    # Where nobody knows whether a quality is honoured, the dearest may be made.
    quality = job.quality if job.operation == "generation" else None
    sized = question.may_make or ((job.size,) if isinstance(job.size, Size) else ())
    fits = (Fit(job.n, job.size, made, quality, job.output_format, transcode=False, moderation=None) for made in sized)
    quotes = [pricing.quote_job(target.prices, job, one) for one in fits]
    known = [one.ceiling for one in quotes if one is not None]
    return max(known) if known and len(known) == len(quotes) else None


def find_changes(learned: Sequence[Learned], profile: Profile) -> dict[str, Any]:
    """What was learned and the catalogue does not say already, as a credential's capabilities."""
    found = {name: value for one in learned for name, value in one.capabilities.items()}
    said = {
        "masks": profile.masked_references > 0,
        "edit_quality": profile.edit_quality,
        "formats": list(profile.formats),
        # One call of two proves no more than that: a bound of the operator's own stays.
        "max_n": 10 if profile.max_n > 1 else 1,
        "sizes": None,
    }
    return {name: value for name, value in found.items() if value != said[name]}


def ends(question: Question, seen: Seen, learned: Learned) -> bool:
    """Whether it is no use to go on: the key is refused, nobody answers, or nobody knows what was billed."""
    if question.is_control and learned.verdict != "yes":
        return True
    if seen.failure is None:
        return False
    kind = classify(seen.failure, error_is_unbilled=True).kind
    return kind in ("unknown", "unreachable", "unsent") or seen.failure.status in (401, 402)


def _imagine(count: int, size: Size) -> tuple[Picture, ...]:
    """Pictures without bytes, for their price; `asking` draws those that are sent."""
    one = Picture(Blob(0, data=b""), "png", size.width, size.height, orientation=1, has_alpha=True)
    return (one,) * count


def _resize(job: ImageJob, size: Size) -> ImageJob:
    references = _imagine(len(job.references), size)
    return replace(job, size=size, references=references, mask=references[0] if job.mask else None)


def _generation(size: Size | Shape, **more: Any) -> ImageJob:
    return replace(ImageJob("generation", PROMPT, size=size, quality="low"), **more)


def _edit(size: Size, *, is_masked: bool = False, **more: Any) -> ImageJob:
    pictures = _imagine(1, size)
    return ImageJob("edit", PROMPT, size=size, references=pictures, mask=pictures[0] if is_masked else None, **more)


_TALL = Shape(9, 16, "2K")

_MODELS = Question("models", "Does its list have the model?", read_models, path="/v1/models")
_WEBP = Question("webp", "Does it make WebP itself?", read_webp, job=_generation(SMALL, output_format="webp"))
_N = Question("n", "Does one call make two images?", read_n, job=_generation(SMALL, n=2))
_MASK = Question("mask", "Does this key take a mask?", read_mask, job=_edit(SMALL, is_masked=True))
_QUALITY = Question("edit-quality", "Does an edit take `quality`?", read_edit_quality, job=_edit(SMALL, quality="low"))
_PLAIN = Question(
    "plain",
    "Are tokens and size told, and in which form comes the picture?",
    read_plain,
    job=_generation(SMALL),
    is_control=True,
)

_SYNCHRONOUS = (_MODELS, _PLAIN, _N, _WEBP, _QUALITY, _MASK)
_VARIANT = (
    _MODELS,
    _PLAIN,
    _N,
    _WEBP,
    Question("edit-form", "In which form comes the picture of an edit?", read_edit_form, job=_edit(SMALL)),
    _QUALITY,
    _MASK,
)
_APIANY = (
    _MODELS,
    Question("balance", "Is the balance told?", read_balance, path="/v1/credits/balance"),
    Question(
        "price",
        "What does an image at 1K and medium cost, and are credits told as reserved or as charged?",
        read_price,
        job=_generation(sizes.SQUARE, quality="medium"),
        is_control=True,
    ),
    Question("n", "Does one call make two images?", read_n, job=_generation(sizes.SQUARE, n=2)),
    Question(
        "edit-quality",
        "Does a generation with references take `quality`?",
        read_edit_quality,
        job=_edit(sizes.SQUARE, quality="low"),
    ),
    Question(
        "mask",
        "Does its edits endpoint take a mask, and does it answer at once?",
        read_mask,
        job=_edit(sizes.SQUARE, is_masked=True),
    ),
    Question(
        "snapping",
        f"Does {_AMBIGUOUS} become the nearest of the seven, or the smallest that holds it?",
        partial(read_snapping, _AMBIGUOUS),
        job=_generation(_AMBIGUOUS),
        may_make=(Size(1536, 1024), Size(2048, 1152)),
    ),
    Question(
        "tall",
        "And 9:16 at 2K, of which there is none among the seven?",
        partial(read_snapping, sizes.resolve(_TALL)),
        job=_generation(_TALL),
        may_make=(Size(1024, 1536), Size(2160, 3840)),
    ),
)


def choose(questions: Sequence[Question], names: Sequence[str]) -> tuple[Question, ...]:
    """The questions with these names, or all. Raises ValueError that names those there are."""
    known = [one.name for one in questions]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no question {name!r} here; there are {', '.join(known)}")
    return tuple(one for one in questions if not names or one.name in names)
