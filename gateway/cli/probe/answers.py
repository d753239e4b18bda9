"""The reading of a vendor's reply to a probe's question, as words and as catalogue fields.

Pure functions. Where a reply proves nothing, the answer is `unclear`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from gateway.catalogue import pricing
from gateway.catalogue.catalogue import Target
from gateway.dollars import MICRO, parse_usd, show_usd
from gateway.jobs.job import Size, TokenUsage, snap
from gateway.upstreams.client import find_balance, find_credits
from gateway.upstreams.verdict import Executed, Failure, classify

AbilityAnswer = Literal["yes", "no", "unclear"]


@dataclass(frozen=True, slots=True)
class Seen:
    """The reply: the documents of the submission and of the ended task, and the pictures' formats and sizes.

    `in_answer` is True when the answer itself holds the pictures. `balances` has the upstream's credits before and
    after the call, None if it does not report them.
    """

    failure: Failure | None = None
    submitted: Any = None
    ended: Any = None
    pictures: tuple[tuple[str, Size], ...] = ()
    in_answer: bool = False
    usage: TokenUsage | None = None
    balances: tuple[Decimal | None, Decimal | None] = (None, None)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Learned:
    """An answer in words, and as the credential's capabilities, or prices, in the catalogue."""

    verdict: AbilityAnswer
    words: tuple[str, ...]
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    prices: Mapping[str, Any] = field(default_factory=dict)


def read_models(seen: Seen, target: Target) -> Learned:
    if refused := _read_failure(seen):
        return refused
    listed = seen.submitted.get("data") if isinstance(seen.submitted, dict) else None
    items = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    own = next((one for one in items if one.get("id") == target.config.model), None)
    if own is None:
        names = ", ".join(str(one.get("id"))[:60] for one in items[:20]) or "none"
        return Learned("no", (f"its list has no {target.config.model}; it has {names}",))
    priced = (f"its list says of the price: {own['pricing']}"[:400],) if own.get("pricing") else ()
    return Learned("yes", (f"its list has {target.config.model}", *priced))


def read_balance(seen: Seen, target: Target) -> Learned:
    if refused := _read_failure(seen):
        return refused
    left = find_balance(seen.submitted)
    if left is None:
        return Learned("unclear", ("its answer has no `credits`",))
    return Learned("yes", (f"{left} credits are left",))


def read_plain(seen: Seen, target: Target) -> Learned:
    """The facts of an ordinary answer: the form of its pictures, their size, tokens, credits."""
    if refused := _read_missing_picture(seen):
        return refused
    told = seen.submitted if seen.ended is None else seen.ended
    size = told.get("size") if isinstance(told, dict) else None
    tokens = f"{seen.usage.output_tokens} output tokens" if seen.usage else ""
    words = [
        "pictures come in the answer itself" if seen.in_answer else "pictures come as links",
        f"it reports `usage`: {tokens}" if tokens else "it does not report `usage`",
        f"it reports `size`: {size}" if size else "it does not report `size`, so the picture gives it",
        *_describe_credits(seen),
    ]
    return Learned("yes", (*words, _describe_pictures(seen)))


def read_price(seen: Seen, target: Target) -> Learned:
    """The facts of an ordinary answer, the credits of an image at 1K and medium, and its price if that is new."""
    plain = read_plain(seen, target)
    taken = _count_credits(seen)
    if plain.verdict != "yes" or taken is None:
        return plain
    rate = target.prices.per_thousand_credits if target.prices else None
    words = (*plain.words, f"an image took {taken} credits")
    if target.prices is None or rate is None:
        hint = "`per_thousand_credits` in the catalogue's prices would make dollars of them"
        return Learned("yes", (*words, hint))
    paid = round(taken * parse_usd(rate) / 1000)
    words = (*words, f"that is ${show_usd(paid)} at ${rate} for a thousand")
    by_size = target.prices.by_size
    if by_size is None:
        return Learned("yes", words)
    grade = "medium" if "1K" in by_size.get("medium", {}) else "any"
    said = by_size.get(grade, {}).get("1K")
    if said is not None and parse_usd(said) == paid:
        return Learned("yes", words)
    right = {**by_size.get(grade, {}), "1K": _write_usd(paid)}
    return Learned("yes", words, prices={"by_size": {**by_size, grade: right}})


def _count_credits(seen: Seen) -> Decimal | None:
    """The credits that a call took: the fall of the balance, else the reported number; None if both are unknown."""
    before, after = seen.balances
    if before is not None and after is not None and before > after:
        return before - after
    return find_credits(seen.submitted if seen.ended is None else seen.ended)


def _write_usd(micro: int) -> str:
    """Dollars in the catalogue's form: 0.015, not 0.015000."""
    whole, rest = divmod(micro, MICRO)
    return f"{whole}.{rest:06d}".rstrip("0").removesuffix(".")


def read_n(seen: Seen, target: Target) -> Learned:
    if refused := _read_missing_picture(seen, {"max_n": 1}, "n"):
        return refused
    made = len(seen.pictures)
    if made >= 2:
        words = f"one call made {made} images; the limit of ten is from its documentation"
        return Learned("yes", (words, *_describe_credits(seen)), {"max_n": 10})
    return Learned("no", ("it takes `n`, but makes one image",), {"max_n": 1})


def read_mask(seen: Seen, target: Target) -> Learned:
    if refused := _read_missing_picture(seen, {"masks": False}, "mask"):
        return refused
    form = "as a task" if seen.ended is not None else "at once"
    where = "in the answer itself" if seen.in_answer else "as a link"
    return Learned("yes", (f"it takes a mask, and answers {form}, {where}", *_describe_credits(seen)), {"masks": True})


def read_edit_form(seen: Seen, target: Target) -> Learned:
    if refused := _read_missing_picture(seen):
        return refused
    words = "in the answer itself" if seen.in_answer else "as a link"
    return Learned("yes", (f"an edit's picture comes {words}; the gateway reads both forms", _describe_pictures(seen)))


def read_edit_quality(seen: Seen, target: Target) -> Learned:
    """Yes when an edit takes `quality`, and, where the reply reports tokens, when the tokens agree with it."""
    if refused := _read_missing_picture(seen, {"edit_quality": False}, "quality"):
        return refused
    if seen.usage:
        made = seen.pictures[0][1]
        low, medium = (pricing.output_tokens(made, quality) for quality in ("low", "medium"))
        if abs(seen.usage.output_tokens - medium) < abs(seen.usage.output_tokens - low):
            words = f"it takes `quality: low`, but makes another quality: {seen.usage.output_tokens} tokens"
            return Learned("no", (words,), {"edit_quality": False})
        words = f"it makes the requested quality: {seen.usage.output_tokens} tokens"
        return Learned("yes", (words, *_describe_credits(seen)), {"edit_quality": True})
    words = "it takes `quality: low`; its answer does not show the quality it made"
    return Learned("yes", (words, *_describe_credits(seen)), {"edit_quality": True})


def read_webp(seen: Seen, target: Target) -> Learned:
    without = {"formats": ["png", "jpeg"]}
    if refused := _read_missing_picture(seen, without, "output_format"):
        return refused
    form = seen.pictures[0][0]
    if form == "webp":
        return Learned("yes", ("it makes WebP itself",), {"formats": ["png", "jpeg", "webp"]})
    return Learned("no", (f"it takes `webp`, but makes {form}",), without)


def read_snapping(asked: Size, seen: Seen, target: Target) -> Learned:
    """Yes when the size `asked` became the nearest of the vendor's documented sizes, as the gateway promises.

    No if it became another of them; then the answer has the list for the catalogue. Unclear for any other size.
    """
    if refused := _read_missing_picture(seen):
        return refused
    made, documented = seen.pictures[0][1], target.offer.profile.made_sizes or ()
    if made == snap(asked, documented):
        return Learned("yes", (f"it made {made}, the nearest of its sizes, as promised", *_describe_credits(seen)))
    named = "auto", *map(str, documented)
    words = f"it made {made}, which is not the nearest: with this list the gateway asks only for its documented sizes"
    if made not in documented:
        words = f"it made {made}, which is no documented size: see what other sizes become before you rely on it"
        return Learned("unclear", (words, *_describe_credits(seen)))
    return Learned("no", (words, *_describe_credits(seen)), {"sizes": list(named)})


def _read_failure(seen: Seen, refused: Mapping[str, Any] | None = None, param: str | None = None) -> Learned | None:
    """The answer of a failed call; None when it did not fail. `refused` has the capabilities if it refuses `param`."""
    failure = seen.failure
    if failure is None:
        return None
    said = f"{failure.status or ''} {failure.code or ''} {failure.message}".strip()[:300] or failure.phase
    verdict = classify(failure, error_is_unbilled=True)
    if failure.phase == "prepare":
        return Learned("unclear", (f"a free step before the call failed: {said}",))
    is_refusal = failure.spoke and (verdict.kind in ("refused", "missing") or failure.status == 403)
    if is_refusal and (param is None or failure.param in (None, param)):
        return Learned("no", (f"it refuses: {said}",), refused or {})
    if is_refusal:
        return Learned("unclear", (f"it refuses, for another reason, {failure.param}: {said}",))
    billed = "" if verdict.executed is Executed.NO else "; this may have been billed"
    return Learned("unclear", (f"no usable answer: {said}{billed}",))


def _read_missing_picture(
    seen: Seen, refused: Mapping[str, Any] | None = None, param: str | None = None
) -> Learned | None:
    """The answer of a call that failed or made no readable picture; None when it made one."""
    if failed := _read_failure(seen, refused, param):
        return failed
    return None if seen.pictures else Learned("unclear", ("the answer holds no picture; it was probably billed",))


def _describe_pictures(seen: Seen) -> str:
    made = ", ".join(f"{size} {form}" for form, size in seen.pictures)
    return f"it made {made} in {seen.seconds:.1f} s"


def _describe_credits(seen: Seen) -> list[str]:
    """The names under which the reply reports credits, and the change of the balance."""
    told: list[str] = []
    for when, document in (("the submission", seen.submitted), ("the ended task", seen.ended)):
        amounts = document.get("credits") if isinstance(document, dict) else None
        if isinstance(amounts, dict):
            shown = ", ".join(f"{name} {value}" for name, value in list(amounts.items())[:5])
            told.append(f"{when} reports credits: {shown}"[:200])
    before, after = seen.balances
    if before is not None and after is not None:
        told.append(f"the balance went down by {before - after} credits, if nothing else used this key meanwhile")
    return told
