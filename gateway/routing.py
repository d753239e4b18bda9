"""The Plan: which targets can serve a job, in which order, and why the others cannot. A pure function.

Asked once a request by `pipeline`; followed by `dispatch`. A target that would drop a hard parameter the caller set is
used only where no target honours them all, whatever the order in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import errors, pricing
from gateway.capabilities import Fit, Unfit, fit
from gateway.catalog import Catalogue, Target
from gateway.document import Model, OtherSize
from gateway.job import ImageJob
from gateway.permits import Permits
from gateway.pricing import Quote


@dataclass(frozen=True, slots=True)
class Choice:
    """A target that can serve the job, how, and what an image would cost there; `quote` None is not known.

    `other_size` is what becomes of a picture of another size than `fit` promises.
    """

    target: Target
    fit: Fit
    quote: Quote | None = None
    other_size: OtherSize = "tell"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A target that cannot, and why, for a caller to read."""

    upstream: str
    unfit: Unfit


@dataclass(frozen=True, slots=True)
class Plan:
    """Targets in the order in which they are tried, and the rejected ones."""

    choices: tuple[Choice, ...]
    rejections: tuple[Rejection, ...]

    def keep_priced(self, reason: str) -> Plan:
        """This plan without the targets whose price is not known."""
        unpriced = (Rejection(one.target.upstream, Unfit(reason, "model")) for one in self.choices if one.quote is None)
        return Plan(tuple(one for one in self.choices if one.quote), (*self.rejections, *unpriced))


def plan(job: ImageJob, model_name: str, model: Model, catalogue: Catalogue, permits: Permits | None = None) -> Plan:
    """Order the model's targets for this job. Raises UnsupportedValue, or UpstreamUnavailable when all are off.

    `permits` is what the caller's key allows; a key that may use none of the upstreams gets ModelNotAllowed.
    """
    permits = permits or Permits()
    job = permits.hold(job)
    targets = catalogue.targets_of(model)
    if not targets:
        reasons = "; ".join(f"{name}: {catalogue.off.get(name, 'off')}" for name in model.upstreams)
        raise errors.UpstreamUnavailable(f"No upstream of `{model_name}` is on ({reasons}).", should_retry=False)
    chosen, barred = _choose(targets, model_name, permits)
    choices: list[Choice] = []
    rejections: list[Rejection] = []
    for target in chosen:
        found = _fit(job, target, model, permits)
        if isinstance(found, Unfit):
            rejections.append(Rejection(target.upstream, found))
        else:
            choices.append(Choice(target, found, pricing.quote(target.prices, job, found), model.other_size))
    rejections += barred
    if not choices:
        raise _explain(model_name, rejections)
    honouring = [choice for choice in choices if not choice.fit.compromises]
    if honouring:
        rejections += [_step_aside(choice) for choice in choices if choice.fit.compromises]
    return Plan(tuple(honouring or choices), tuple(rejections))


def _choose(targets: list[Target], model_name: str, permits: Permits) -> tuple[list[Target], list[Rejection]]:
    """The targets that the key may use and the request did not rule out."""
    allowed = [target for target in targets if permits.allows(target.upstream)]
    if not allowed:
        names = ", ".join(permits.upstreams or ())
        raise errors.ModelNotAllowed(
            f"This key may use the upstreams {names} only, and none of them serves `{model_name}` here.", param="model"
        )
    chosen = [target for target in allowed if permits.pins(target.upstream, target.label)]
    if not chosen:
        names = ", ".join(dict.fromkeys(target.upstream for target in allowed))
        raise errors.UnsupportedValue(
            f"X-Gateway-Upstream names no upstream that serves `{model_name}` to this key; there are {names}."
        )
    reasons = {True: "the request names another", False: "this key may not use it"}
    barred = [one for one in targets if one not in chosen]
    return chosen, [Rejection(one.upstream, Unfit(reasons[one in allowed], "model")) for one in barred]


def _fit(job: ImageJob, target: Target, model: Model, permits: Permits) -> Fit | Unfit:
    profile = target.profile if permits.lets_upstream_choose_size else target.profile.change(takes_auto_size=False)
    found = fit(job, profile, allows_nearest=model.sizes == "nearest")
    if isinstance(found, Unfit):
        return found
    if excess := permits.find_excess(found.quality, found.made):
        return Unfit(*excess)
    if found.compromises and model.compromises == "refuse":
        return Unfit(f"it would not honour {', '.join(found.compromises)}", found.compromises[0])
    return found


def _step_aside(choice: Choice) -> Rejection:
    """A target that would drop what the caller set serves only where no other can do without dropping it."""
    missing = choice.fit.compromises
    return Rejection(
        choice.target.upstream, Unfit(f"it would not honour {', '.join(missing)}, and another does", missing[0])
    )


def _explain(model_name: str, rejections: list[Rejection]) -> errors.UnsupportedValue:
    upstreams: dict[str, list[str]] = {}
    for one in rejections:
        names = upstreams.setdefault(one.unfit.reason, [])
        names += [one.upstream] if one.upstream not in names else []
    reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in upstreams.items())
    return errors.UnsupportedValue(
        f"No upstream of `{model_name}` can serve this request ({reasons}).", param=rejections[0].unfit.param
    )
