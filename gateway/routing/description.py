"""A Plan as JSON, for a dry run and for `imagegate quote`. Pure functions; nothing is sent or held."""

from __future__ import annotations

from typing import Any

from gateway.catalogue.capabilities import size_wanted
from gateway.dollars import show_usd
from gateway.errors import PublicError
from gateway.jobs.job import ImageJob
from gateway.routing.plan import Choice, Plan, Rejection


def describe_plan(plan: Plan, job: ImageJob, model: str, refusal: PublicError | None = None) -> dict[str, Any]:
    """The Plan of a request to a model, as JSON. `refusal` is the error that the request would get, if any."""
    return {
        "object": "image.plan",
        "model": model,
        "operation": job.operation,
        "n": job.n,
        "size": str(job.size_asked or "auto"),
        "quality": job.quality or "auto",
        "references": len(job.references),
        "mask": job.mask is not None,
        "strategy": plan.strategy,
        "rule": plan.rule,
        "note": plan.note,
        "choices": [_describe_choice(choice, job) for choice in plan.choices],
        "rejections": [_describe_rejection(one) for one in plan.rejections],
        "refusal": None if refusal is None else refusal.body()["error"],
    }


def _describe_choice(choice: Choice, job: ImageJob) -> dict[str, Any]:
    found, quote, total = choice.fit, choice.quote, choice.total
    return {
        "target": choice.target.label,
        "upstream": choice.target.upstream,
        "price_usd": None if total is None else show_usd(total.expected),
        "price_per_image_usd": None if quote is None else show_usd(quote.expected),
        # The amount that the limits must allow, and that is held until the task ends.
        "held_usd": None if quote is None else show_usd(quote.ceiling * job.n),
        "size": None if found.made is None else str(found.made),
        "quality": found.sent.quality,
        "calls": choice.calls,
        "images_per_call": min(found.per_call, job.n),
        "compensation": _describe_compensation(choice, job),
        "dropped": list(found.dropped),
        "reason": choice.reason,
    }


def _describe_compensation(choice: Choice, job: ImageJob) -> list[str]:
    """The differences from one call that makes the request exactly: more calls, a conversion, scaling, another size."""
    found = choice.fit
    notes: list[str] = []
    if choice.calls > 1:
        notes.append(
            f"{choice.calls} calls of up to {found.per_call}" if found.per_call > 1 else f"{choice.calls} calls"
        )
    if found.transcode:
        notes.append(f"converted to {job.output_format} here")
    if job.scaled_to is not None and found.made != job.scaled_to:
        notes.append(f"scaled to {job.scaled_to} here")
    if "size" in found.compromises:
        notes.append(f"{found.made} in place of {size_wanted(job)}")
    return notes


def _describe_rejection(one: Rejection) -> dict[str, Any]:
    return {"target": one.label, "upstream": one.upstream, "reason": one.unfit.reason, "param": one.unfit.param}
