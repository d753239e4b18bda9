"""The Plan: the targets that can serve a job, in the order of trial, and the reasons against the others; a job's calls.

Pure functions, except that `split_job` makes new ids.

With every strategy, a target with compromises is in the Plan only if no target is without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from gateway import errors
from gateway.catalogue import pricing, rules
from gateway.catalogue.capabilities import Fit, Unfit, fit
from gateway.catalogue.catalogue import Catalogue, Target
from gateway.catalogue.document import Model, OtherSize, Strategy
from gateway.catalogue.pricing import Quote
from gateway.catalogue.rules import CallerIdentity, Route
from gateway.dollars import show_usd
from gateway.errors import PublicError
from gateway.health.condition import Block, kind_of, refuse
from gateway.ids import new_id
from gateway.jobs.job import Call, ImageJob
from gateway.routing.rights import Rights

Medians = Mapping[tuple[str, str], float]
"""The median seconds of a call, for each pair of a target's label and a kind of call (`kind_of`)."""


Load = Callable[[Target], tuple[float, float]]
"""Returns the sort key of a target among equal ones, the least loaded first."""

_BY_LOAD = frozenset({"cost", "priority"})
"""The strategies in which the load orders equal credentials of an upstream."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A target that can serve the job, its fit and its prices; a price of None is unknown.

    `quote` is for one image, `total` for the whole job in `calls` calls. `reason` explains its position. `other_size`
    is the treatment of a picture of another size than `fit` promises.
    """

    target: Target
    fit: Fit
    quote: Quote | None = None
    other_size: OtherSize = "tell"
    total: Quote | None = None
    calls: int = 1
    reason: str = ""

    def explain(self, reason: str) -> Choice:
        """Return the choice with the reason for its position."""
        return Choice(self.target, self.fit, self.quote, self.other_size, self.total, self.calls, reason)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A target that cannot serve the job, and the reason, for the caller to read."""

    upstream: str
    unfit: Unfit
    label: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Targets in the order in which they are tried, and the rejected ones.

    `rule` is the catalogue's rule that applied, `note` a remark on the order for operators. `refusal` is set when there
    is no choice at this moment, or while the caller's requests are paused; the request may still join a running task.
    """

    choices: tuple[Choice, ...]
    rejections: tuple[Rejection, ...]
    strategy: Strategy = "priority"
    rule: str | None = None
    note: str | None = None
    refusal: PublicError | None = None

    def keep_priced(self, reason: str) -> Plan:
        """This plan with the targets of unknown price rejected for `reason`; `cost` then orders the others again."""
        unpriced = [_reject(one.target, Unfit(reason, "model")) for one in self.choices if one.quote is None]
        kept = [one for one in self.choices if one.quote]
        ranked, note = _arrange(kept, self.strategy) if unpriced and self.strategy == "cost" else (kept, self.note)
        return replace(self, choices=tuple(ranked), rejections=(*self.rejections, *unpriced), note=note)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The facts a plan depends on beside the job: the caller, the request's strategy, measured medians, and chance.

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
    """Return the Plan of a job: the model's targets in order. `rights` are those of the caller's key and the request.

    Raises UnsupportedValue if no target can serve the job, UpstreamUnavailable if none of the upstreams that the model
    and the rule name is configured, and ModelNotAllowed for a key that may use none of the targets.
    """
    rights, around = rights or Rights(), around or Circumstances()
    route = rules.find_route(job, model_name, catalogue.document, around.identity)
    job = rights.cap_quality(_apply_defaults(job, route, rights))
    chosen, excluded = _choose(_find_targets(model_name, model, catalogue, route), model_name, rights)
    choices: list[Choice] = []
    rejections: list[Rejection] = []
    for target in chosen:
        found = _fit(job, target, route, rights)
        if isinstance(found, Unfit):
            rejections.append(_reject(target, found))
        else:
            choices.append(_price(job, target, found, route.other_size))
    rejections += excluded
    if not choices:
        raise _unserved(model_name, rejections)
    if honouring := [choice for choice in choices if not choice.fit.compromises]:
        rejections += [_reject_compromise(choice) for choice in choices if choice.fit.compromises]
    strategy = around.strategy or route.strategy
    ranked, note = _arrange(honouring or choices, strategy, around)
    return Plan(tuple(ranked), tuple(rejections), strategy, route.rule, note)


def narrow(plan: Plan, down: Mapping[str, Block], load: Load, refusal: PublicError | None = None) -> Plan:
    """Return the plan with the targets in `down` rejected. With `cost` and `priority`, load orders equal credentials.

    `down` has the block of each unavailable target by its label. A target that the plan rejected does not come back.
    The new plan has the `refusal`. Without one, and if no target is left, it is Paused, UpstreamUnavailable or
    RateLimited.
    """
    kept, rejections = list(plan.choices), list(plan.rejections)
    blocks: list[Block] = []
    if down:
        kept = [choice for choice in plan.choices if choice.target.label not in down]
        out = [choice.target for choice in plan.choices if choice.target.label in down]
        blocks = [down[target.label] for target in out]
        rejections += [_reject(target, Unfit(block.words, "model")) for target, block in zip(out, blocks, strict=True)]
    if len(kept) > 1 and plan.strategy in _BY_LOAD:
        kept = _order_by_load(kept, load)
    if refusal is None and not kept:
        refusal = refuse(blocks)
    return Plan(tuple(kept), tuple(rejections), plan.strategy, plan.rule, plan.note, refusal)


def split_job(job: ImageJob, fit: Fit, slots: Sequence[int]) -> list[Call]:
    """Make calls of `fit.per_call` images or less that together fill the slots, in the order of `slots`."""
    each = fit.per_call
    return [
        Call(new_id("call"), tuple(slots[start : start + each]), job.operation, job.prompt, fit.sent)
        for start in range(0, len(slots), each)
    ]


def _apply_defaults(job: ImageJob, route: Route, rights: Rights) -> ImageJob:
    """The job with the rule's defaults, within the key's limits, for parameters that the caller did not set."""
    size, quality = rights.cap_defaults(route.size, route.quality)
    size, quality = job.size or size, job.quality or quality
    return job if (size, quality) == (job.size, job.quality) else replace(job, size=size, quality=quality)


def _find_targets(model_name: str, model: Model, catalogue: Catalogue, route: Route) -> list[Target]:
    """The model's targets, those of the rule's upstreams first, in its order.

    Raises UpstreamUnavailable, and UnsupportedValue if the rule excludes the model's upstreams.
    """
    targets = catalogue.targets_of(model)
    wanted = route.upstreams or model.upstreams
    if not any(target.upstream in wanted for target in targets):
        if served := [name for name in wanted if name in model.upstreams]:
            reasons = "; ".join(f"{name}: {catalogue.not_configured.get(name, 'not configured')}" for name in served)
            raise errors.UpstreamUnavailable(
                f"No upstream of `{model_name}` is configured ({reasons}).", should_retry=False
            )
        if not targets:
            raise _unserved(model_name, [Rejection(name, _exclude(route)) for name in model.upstreams])
    if route.upstreams is None:
        return targets
    return sorted(targets, key=lambda one: wanted.index(one.upstream) if one.upstream in wanted else len(wanted))


def _choose(targets: list[Target], model_name: str, rights: Rights) -> tuple[list[Target], list[Rejection]]:
    """The targets that the key and the request allow, and the others. Raises ModelNotAllowed, UnsupportedValue."""
    allowed = [target for target in targets if rights.allows(target.upstream)]
    if not allowed:
        names = ", ".join(rights.upstreams or ())
        raise errors.ModelNotAllowed(
            f"This key may use the upstreams {names} only, and none of them serves `{model_name}` here.", param="model"
        )
    chosen = [target for target in allowed if rights.is_chosen(target.upstream, target.label)]
    if not chosen:
        names = ", ".join(dict.fromkeys(target.upstream for target in allowed))
        raise errors.UnsupportedValue(
            f"X-Gateway-Upstream names no upstream that serves `{model_name}` to this key; use one of {names}."
        )
    if len(chosen) == len(targets):
        return chosen, []
    reasons = {True: "the request names another", False: "this key may not use it"}
    excluded = [one for one in targets if one not in chosen]
    return chosen, [_reject(one, Unfit(reasons[one in allowed], "model")) for one in excluded]


def _fit(job: ImageJob, target: Target, route: Route, rights: Rights) -> Fit | Unfit:
    if route.upstreams is not None and target.upstream not in route.upstreams:
        return _exclude(route)
    profile = target.profile if rights.lets_upstream_choose_size else target.profile.change(takes_auto_size=False)
    found = fit(job, profile, allows_nearest=route.allows_nearest)
    if isinstance(found, Unfit):
        return found
    if excess := rights.find_excess(found.sent.quality, found.made):
        return Unfit(*excess)
    if found.compromises and route.refuses_compromises:
        return Unfit(f"it would not honour {', '.join(found.compromises)}", found.compromises[0])
    return found


def _exclude(route: Route) -> Unfit:
    return Unfit(f"the rule `{route.rule}` excludes it", "model")


def _price(job: ImageJob, target: Target, found: Fit, other_size: OtherSize) -> Choice:
    each, total = pricing.quote_both(target.prices, job, found) or (None, None)
    return Choice(target, found, each, other_size, total, calls=len(pricing.count_calls(job.n, found.per_call)))


def _reject(target: Target, unfit: Unfit) -> Rejection:
    return Rejection(target.upstream, unfit, target.label)


def _reject_compromise(choice: Choice) -> Rejection:
    """The rejection of a target that would drop a parameter which another target honours."""
    missing = choice.fit.compromises
    return _reject(choice.target, Unfit(f"it would not honour {', '.join(missing)}, and another does", missing[0]))


def _arrange(
    choices: Sequence[Choice], strategy: Strategy, around: Circumstances | None = None
) -> tuple[list[Choice], str | None]:
    """The choices in the strategy's order, each with its reason, and a note on the order or None."""
    around = around or Circumstances()
    candidates = [
        Candidate(
            label=choice.target.label,
            price=None if choice.total is None else choice.total.expected,
            weight=choice.target.weight,
            seconds=around.medians.get((choice.target.label, kind_of(choice.fit))) if strategy == "latency" else None,
        )
        for choice in choices
    ]
    found = rank(strategy, candidates, around.draw)
    ranked = [choices[index].explain(why) for index, why in zip(found.order, found.reasons, strict=True)]
    return ranked, found.note


def _order_by_load(choices: Sequence[Choice], load: Load) -> list[Choice]:
    """The choices in order, but neighbours of one upstream and one price sorted by `load`."""
    ordered: list[Choice] = []
    for _, equals in groupby(choices, key=lambda choice: (choice.target.upstream, choice.total)):
        ordered += sorted(equals, key=lambda choice: load(choice.target))
    return ordered


def _unserved(model_name: str, rejections: list[Rejection]) -> errors.UnsupportedValue:
    upstreams: dict[str, list[str]] = {}
    for one in rejections:
        names = upstreams.setdefault(one.unfit.reason, [])
        names += [one.upstream] if one.upstream not in names else []
    reasons = "; ".join(
        f"{'each of ' if len(names) > 1 else ''}{', '.join(names)}: {reason}" for reason, names in upstreams.items()
    )
    # Name a parameter that the caller can change rather than the model.
    param = next((one.unfit.param for one in rejections if one.unfit.param != "model"), "model")
    remedy = " Leave `background` out, or send `opaque`." if param == "background" else ""
    return errors.UnsupportedValue(
        f"No upstream of `{model_name}` can serve this request ({reasons}).{remedy}", param=param
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target to rank. `price` is the expected µ$ of the whole job, `seconds` the measured median; None is unknown."""

    label: str
    price: int | None = None
    weight: int = 1
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Indexes of candidates in the order of trial, the reason for each position, and a note for operators or None."""

    order: tuple[int, ...]
    reasons: tuple[str, ...]
    note: str | None = None


def rank(strategy: Strategy, candidates: Sequence[Candidate], draw: float = 0.0) -> Ranking:
    """Order candidates that come in the catalogue's order. `draw`, from 0 to just under 1, is for `weighted`."""
    if strategy == "cost":
        return _by_price(candidates)
    if strategy == "weighted":
        return _by_weight(candidates, draw)
    if strategy == "latency":
        return _by_seconds(candidates)
    return _by_catalogue(candidates)


def _by_catalogue(candidates: Sequence[Candidate], note: str | None = None) -> Ranking:
    order = tuple(range(len(candidates)))
    return Ranking(order, tuple(f"{_ordinal(index)} in the catalogue" for index in order), note)


def _by_price(candidates: Sequence[Candidate]) -> Ranking:
    prices = [one.price for one in candidates if one.price is not None]
    if len(prices) < len(candidates):
        unknown = ", ".join(one.label for one in candidates if one.price is None)
        return _by_catalogue(candidates, f"the catalogue's order decides: no price is known for {unknown}")
    # Sorting keeps the catalogue's order among equals.
    order = tuple(sorted(range(len(candidates)), key=prices.__getitem__))

    def explain(one: int) -> str:
        dearer = prices[one] - prices[order[0]]
        # The cheapest may be unavailable, and then has another place in the plan.
        return f"${show_usd(dearer)} dearer than {candidates[order[0]].label}" if dearer else "cheapest"

    return Ranking(order, tuple(map(explain, order)))


def _by_weight(candidates: Sequence[Candidate], draw: float) -> Ranking:
    """Order all candidates by chance from one draw: its position within the winner's share is the next draw."""
    left = list(range(len(candidates)))
    order: list[int] = []
    reasons: list[str] = []
    while left:
        total = sum(candidates[one].weight for one in left)
        point, chosen = draw * total, left[-1]
        for one in left:
            if point < candidates[one].weight:
                chosen = one
                break
            point -= candidates[one].weight
        draw = min(max(point / candidates[chosen].weight, 0.0), 1.0 - 2**-53)
        left.remove(chosen)
        order.append(chosen)
        reasons.append(f"drawn with weight {candidates[chosen].weight} of {total}")
    return Ranking(tuple(order), tuple(reasons))


def _by_seconds(candidates: Sequence[Candidate]) -> Ranking:
    """Order candidates from the lowest median up. Those without one come first: otherwise they would never get one."""
    order = tuple(sorted(range(len(candidates)), key=lambda index: candidates[index].seconds or 0.0))
    found = [candidates[index].seconds for index in order]
    reasons = ["not measured yet" if seconds is None else f"median {seconds:.1f} s" for seconds in found]
    return Ranking(order, tuple(reasons))


def _ordinal(index: int) -> str:
    names = ("first", "second", "third")
    return names[index] if index < len(names) else f"{index + 1}th"
