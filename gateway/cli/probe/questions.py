"""The questions of a probe: the request of each, its cost, and the reader of its answer.

Pure functions and data; a paid question is one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from gateway.jobs.job import SQUARE, ImageJob, Sent, Shape, Size, resolve
from gateway.pictures.picture import Picture
from gateway.pictures.spool import Blob
from gateway.upstreams.verdict import classify

PROMPT = "a plain grey square"
SMALL = Size(1024, 640)
"""The smallest size that gpt-image-2 makes, and so the cheapest by tokens."""

_AMBIGUOUS = Size(1600, 1024)
"""Nearest to 1536x1024, while the smallest snapped size that holds it whole is 2048x1152."""

Read = Callable[[Seen, Target], Learned]


@dataclass(frozen=True, slots=True)
class Question:
    """One question. A paid one sends `job`. `may_make` has the sizes that its picture may have; empty is the job's own.

    A free one sends a GET to `path`, or makes the adapter's own free call. A job keeps its size with `keeps_size`;
    otherwise it gets the smallest size that the upstream makes. If the answer to an `is_control` question is not yes,
    the probe ends: no other answer would mean anything.
    """

    name: str
    asks: str
    read: Read
    path: str | None = None
    job: ImageJob | None = None
    may_make: tuple[Size, ...] = ()
    keeps_size: bool = False
    is_control: bool = False

    @property
    def is_free(self) -> bool:
        return self.job is None


def questions_of(target: Target) -> tuple[Question, ...]:
    """The questions for one credential, free ones first."""
    smallest = min(target.profile.made_sizes or (SMALL,), key=lambda size: size.pixels)
    return tuple(_resize(QUESTIONS[name], smallest) for name in target.offer.questions)


def cost_at_most(question: Question, target: Target) -> int | None:
    """The most that a question may cost by the catalogue's prices, in µ$; None where they do not cover it."""
    if question.job is None:
        return 0
    job = question.job
    # Where it is unknown whether an edit honours its quality, the most expensive one counts.
    quality = job.quality if job.operation == "generation" else None
    sized = question.may_make or ((job.size,) if isinstance(job.size, Size) else ())
    fits = (Fit(job.n, Sent(quality=quality), made, transcode=False) for made in sized)
    quotes = [pricing.quote_job(target.prices, job, one) for one in fits]
    known = [one.ceiling for one in quotes if one is not None]
    return max(known) if known and len(known) == len(quotes) else None


def find_changes(learned: Sequence[Learned], profile: Profile) -> dict[str, Any]:
    """The answers that the catalogue does not have already, as a credential's capabilities."""
    found = {name: value for one in learned for name, value in one.capabilities.items()}
    said = {
        "masks": profile.masked_references > 0,
        "edit_quality": profile.edit_quality,
        "formats": list(profile.formats),
        # One call of two images proves no more than two: the operator's own bound stays.
        "max_n": 10 if profile.max_n > 1 else 1,
        "sizes": None,
    }
    return {name: value for name, value in found.items() if value != said[name]}


def ends(question: Question, seen: Seen, learned: Learned) -> bool:
    """True when further questions are useless: the key is rejected, no answer comes, the billing is unknown, or the
    answer to a control question is not yes.
    """
    if question.is_control and learned.verdict != "yes":
        return True
    if seen.failure is None:
        return False
    kind = classify(seen.failure, error_is_unbilled=True).kind
    return kind in ("unknown", "unreachable", "unsent") or seen.failure.status in (401, 402)


def _make_placeholders(count: int, size: Size) -> tuple[Picture, ...]:
    """Placeholders without bytes, for the price; real pictures are drawn before a call."""
    one = Picture(Blob(0, data=b""), "png", size.width, size.height, orientation=1, has_alpha=True)
    return (one,) * count


def _resize(question: Question, size: Size) -> Question:
    job = question.job
    if job is None or question.keeps_size:
        return question
    references = _make_placeholders(len(job.references), size)
    mask = references[0] if job.mask else None
    return replace(question, job=replace(job, size=size, references=references, mask=mask))


def _generation(size: Size | Shape, **more: Any) -> ImageJob:
    return replace(ImageJob("generation", PROMPT, size=size, quality="low"), **more)


def _edit(size: Size, *, is_masked: bool = False, **more: Any) -> ImageJob:
    pictures = _make_placeholders(1, size)
    return ImageJob("edit", PROMPT, size=size, references=pictures, mask=pictures[0] if is_masked else None, **more)


_TALL = Shape(9, 16, "2K")

_ALL = (
    Question("models", "Does its list have the model?", read_models, path="/v1/models"),
    Question("balance", "Does it report the balance?", read_balance),
    Question(
        "plain",
        "Does it report tokens and size, and does the picture come in the answer or as a link?",
        read_plain,
        job=_generation(SMALL),
        is_control=True,
    ),
    Question(
        "price",
        "What does an image at 1K and medium cost, and does it report credits as reserved or as charged?",
        read_price,
        job=_generation(SQUARE, quality="medium"),
        keeps_size=True,
        is_control=True,
    ),
    Question("n", "Does one call make two images?", read_n, job=_generation(SMALL, n=2)),
    Question("webp", "Does it make WebP itself?", read_webp, job=_generation(SMALL, output_format="webp")),
    Question(
        "edit-form", "Does the picture of an edit come in the answer or as a link?", read_edit_form, job=_edit(SMALL)
    ),
    Question("edit-quality", "Does an edit take `quality`?", read_edit_quality, job=_edit(SMALL, quality="low")),
    Question(
        "mask", "Does this key take a mask, and does it answer at once?", read_mask, job=_edit(SMALL, is_masked=True)
    ),
    Question(
        "snapping",
        f"Does it make the nearest of its sizes from {_AMBIGUOUS}, or the smallest that holds it?",
        partial(read_snapping, _AMBIGUOUS),
        job=_generation(_AMBIGUOUS),
        may_make=(Size(1536, 1024), Size(2048, 1152)),
        keeps_size=True,
    ),
    Question(
        "tall",
        "And from 9:16 at 2K, which is not among its sizes?",
        partial(read_snapping, resolve(_TALL)),
        job=_generation(_TALL),
        may_make=(Size(1024, 1536), Size(2160, 3840)),
        keeps_size=True,
    ),
)

QUESTIONS: Mapping[str, Question] = {question.name: question for question in _ALL}
"""Every question, with its name as the key; a vendor's row in `catalogue.vendors` has the names of its questions."""


def choose(questions: Sequence[Question], names: Sequence[str]) -> tuple[Question, ...]:
    """The questions with these names; all if there are no names. Raises ValueError that names the known ones."""
    known = [one.name for one in questions]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no question {name!r} here; there are {', '.join(known)}")
    return tuple(one for one in questions if not names or one.name in names)
