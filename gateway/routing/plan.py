"""The Plan: which targets can serve a job, in which order, and why the others cannot. A pure function.

Asked once a request by `pipeline`; followed by `dispatch`. A target that would drop a hard parameter the caller set is
used only where no target honours them all, whatever the strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway import errors
from gateway.catalogue import pricing, rules
from gateway.catalogue.capabilities import Fit, Unfit, fit
from gateway.catalogue.catalogue import Catalogue, Target
from gateway.catalogue.document import Model, OtherSize, Strategy
from gateway.catalogue.pricing import Quote, Tier
from gateway.catalogue.rules import CallerIdentity, Route
from gateway.errors import PublicError
from gateway.jobs import sizes
from gateway.jobs.job import ImageJob, Quality
from gateway.routing import strategies
from gateway.routing.rights import Rights
from gateway.routing.strategies import Candidate

Medians = Mapping[tuple[str, Tier, Quality], float]
"""Seconds that a call took at a target, by its label, the tier of what it made and the quality; the median."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A target that can serve the job, how, and what that would cost; a price of None is not known.

    `quote` is for one image, `total` for the whole job in `calls` calls. `reason` says why it stands where it does.
    `other_size` is what becomes of a picture of another size than `fit` promises.
    """

    target: Target
    fit: Fit
    quote: Quote | None = None
    other_size: OtherSize = "tell"
    total: Quote | None = None
    calls: int = 1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A target that cannot, and why, for a caller to read."""

    upstream: str
    unfit: Unfit
    label: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Targets in the order in which they are tried, and the rejected ones.

    `rule` is the catalogue's rule that held; `note` what an operator should know of the order. `refusal`: why there is
    no choice at this moment, though work that was begun earlier may be joined.
    """

    choices: tuple[Choice, ...]
    rejections: tuple[Rejection, ...]
    strategy: Strategy = "priority"
    rule: str | None = None
    note: str | None = None
    refusal: PublicError | None = None

    def keep_priced(self, reason: str) -> Plan:
        """This plan without the targets whose price is not known; by cost, if that was wanted, now that it can be."""
        unpriced = [_reject(one.target, Unfit(reason, "model")) for one in self.choices if one.quote is None]
        kept = [one for one in self.choices if one.quote]
        ranked, note = _arrange(kept, self.strategy) if unpriced and self.strategy == "cost" else (kept, self.note)
        return replace(self, choices=tuple(ranked), rejections=(*self.rejections, *unpriced), note=note)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a plan depends on beside the job: who asks, the strategy that the request chose, what was measured, chance.

    `draw` is from 0 to just under 1.
    """

    identity: CallerIdentity = field(default_factory=CallerIdentity)
    strategy: Strategy | None = None
    medians: Medians = field(default_factory=dict)
    draw: float = 0.0


def plan(
    job: ImageJob,
    model_name: str,
    model: Model,
    catalogue: Catalogue,
    rights: Rights | None = None,
    around: Circumstances | None = None,
) -> Plan:
    """Order the model's targets for this job. Raises UnsupportedValue, or UpstreamUnavailable when all are off.

    `rights` is what the caller's key allows; a key that may use none of the upstreams gets ModelNotAllowed.
    """
    rights, around = rights or Rights(), around or Circumstances()
    route = rules.find_route(job, model_name, catalogue.document, around.identity)
    job = rights.hold(_fill_in(job, route, rights))
    chosen, barred = _choose(_find_targets(model_name, model, catalogue, route), model_name, rights)
    choices: list[Choice] = []
    rejections: list[Rejection] = []
    for target in chosen:
        found = _fit(job, target, route, rights)
        if isinstance(found, Unfit):
            rejections.append(_reject(target, found))
        else:
            choices.append(_price(job, target, found, route.other_size))
    rejections += barred
    if not choices:
        raise _explain(model_name, rejections)
    if honouring := [choice for choice in choices if not choice.fit.compromises]:
        rejections += [_step_aside(choice) for choice in choices if choice.fit.compromises]
    strategy = around.strategy or route.strategy
    ranked, note = _arrange(honouring or choices, strategy, around)
    return Plan(tuple(ranked), tuple(rejections), strategy, route.rule, note)


def _fill_in(job: ImageJob, route: Route, rights: Rights) -> ImageJob:
    """The job with the rule's defaults where the caller said nothing, as if it had said so."""
    size, quality = rights.hold_defaults(route.size, route.quality)
    return replace(job, size=job.size or size, quality=job.quality or quality)


def _find_targets(model_name: str, model: Model, catalogue: Catalogue, route: Route) -> list[Target]:
    """The model's targets that are on: those of the rule's upstreams first, in the rule's order."""
    targets = catalogue.targets_of(model)
    wanted = route.upstreams or model.upstreams
    served = [name for name in wanted if name in model.upstreams]
    if served and not any(target.upstream in served for target in targets):
        reasons = "; ".join(f"{name}: {catalogue.not_configured.get(name, 'off')}" for name in served)
        raise errors.UpstreamUnavailable(f"No upstream of `{model_name}` is on ({reasons}).", should_retry=False)
    return sorted(targets, key=lambda one: wanted.index(one.upstream) if one.upstream in wanted else len(wanted))


def _choose(targets: list[Target], model_name: str, rights: Rights) -> tuple[list[Target], list[Rejection]]:
    """The targets that the key may use and the request did not rule out."""
    allowed = [target for target in targets if rights.allows(target.upstream)]
    if not allowed:
        names = ", ".join(rights.upstreams or ())
        raise errors.ModelNotAllowed(
            f"This key may use the upstreams {names} only, and none of them serves `{model_name}` here.", param="model"
        )
    chosen = [target for target in allowed if rights.pins(target.upstream, target.label)]
    if not chosen:
        names = ", ".join(dict.fromkeys(target.upstream for target in allowed))
        raise errors.UnsupportedValue(
            f"X-Gateway-Upstream names no upstream that serves `{model_name}` to this key; there are {names}."
        )
    reasons = {True: "the request names another", False: "this key may not use it"}
    barred = [one for one in targets if one not in chosen]
    return chosen, [_reject(one, Unfit(reasons[one in allowed], "model")) for one in barred]


def _fit(job: ImageJob, target: Target, route: Route, rights: Rights) -> Fit | Unfit:
    if route.upstreams is not None and target.upstream not in route.upstreams:
        return Unfit(f"the rule `{route.rule}` leaves it out", "model")
    profile = target.profile if rights.lets_upstream_choose_size else target.profile.change(takes_auto_size=False)
    found = fit(job, profile, allows_nearest=route.allows_nearest)
    if isinstance(found, Unfit):
        return found
    if excess := rights.find_excess(found.quality, found.made):
        return Unfit(*excess)
    if found.compromises and route.refuses_compromises:
        return Unfit(f"it would not honour {', '.join(found.compromises)}", found.compromises[0])
    return found


def _price(job: ImageJob, target: Target, found: Fit, other_size: OtherSize) -> Choice:
    return Choice(
        target,
        found,
        quote=pricing.quote(target.prices, job, found),
        other_size=other_size,
        total=pricing.quote_job(target.prices, job, found),
        calls=len(pricing.count_calls(job.n, found.per_call)),
    )


def _reject(target: Target, unfit: Unfit) -> Rejection:
    return Rejection(target.upstream, unfit, target.label)


def _step_aside(choice: Choice) -> Rejection:
    """A target that would drop what the caller set serves only where no other can do without dropping it."""
    missing = choice.fit.compromises
    return _reject(choice.target, Unfit(f"it would not honour {', '.join(missing)}, and another does", missing[0]))


def _arrange(
    choices: Sequence[Choice], strategy: Strategy, around: Circumstances | None = None
) -> tuple[list[Choice], str | None]:
    """The choices in their order, each with the reason for it, and what there is to say of the order."""
    around = around or Circumstances()
    candidates = [
        Candidate(
            label=choice.target.label,
            price=None if choice.total is None else choice.total.expected,
            weight=choice.target.weight,
            seconds=around.medians.get(_median_of(choice)),
        )
        for choice in choices
    ]
    found = strategies.rank(strategy, candidates, around.draw)
    ranked = [replace(choices[index], reason=why) for index, why in zip(found.order, found.reasons, strict=True)]
    return ranked, found.note


def _median_of(choice: Choice) -> tuple[str, Tier, Quality]:
    """Under which name a call's seconds are kept; a size that only the upstream knows is taken for a square."""
    return choice.target.label, pricing.tier_of(choice.fit.made or sizes.SQUARE), choice.fit.quality or "medium"


def _explain(model_name: str, rejections: list[Rejection]) -> errors.UnsupportedValue:
    upstreams: dict[str, list[str]] = {}
    for one in rejections:
        names = upstreams.setdefault(one.unfit.reason, [])
        names += [one.upstream] if one.upstream not in names else []
    reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in upstreams.items())
    # What the caller can change stands in its way more than the choice of another.
    param = next((one.unfit.param for one in rejections if one.unfit.param != "model"), "model")
    return errors.UnsupportedValue(f"No upstream of `{model_name}` can serve this request ({reasons}).", param=param)
