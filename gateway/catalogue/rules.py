"""The catalogue's rule for a request, and the route that follows from it. Pure functions; prices play no part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.catalogue.capabilities import size_wanted
from gateway.catalogue.document import Document, Model, OtherSize, Rule, Strategy, When
from gateway.jobs.job import ImageJob, Quality, Shape, Size, parse_size, resolve

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """The caller of a request: its key's id and name, and its team; empty where unknown."""

    key: str = ""
    name: str = ""
    team: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """The settings for one request. `rule` names the rule behind them, None without one. `upstreams` has the rule's
    upstreams; None is all of the model's. `size` and `quality` are defaults.
    """

    strategy: Strategy
    allows_nearest: bool = False
    refuses_compromises: bool = False
    other_size: OtherSize = "tell"
    upstreams: tuple[str, ...] | None = None
    size: Size | None = None
    quality: Quality | None = None
    rule: str | None = None


def find_route(job: ImageJob, model_name: str, document: Document, identity: CallerIdentity) -> Route:
    """The route of a request that names its model, or an alias, `model_name`. Raises KeyError for an unknown one."""
    alias = document.aliases.get(model_name)
    resolved = alias.model if alias else model_name
    for number, rule in enumerate(document.rules, 1):
        if matches(rule.when, job, (model_name, resolved), identity):
            return _apply(rule, document.models[resolved], number)
    return _apply(None, document.models[resolved], 0)


def matches(when: When, job: ImageJob, names: Sequence[str], identity: CallerIdentity) -> bool:
    """True when a request meets every condition of a rule. `names` holds the model as sent, and as resolved."""
    pixels = size_wanted(job).pixels
    return (
        when.operation in (None, job.operation)
        and when.mask in (None, job.mask is not None)
        and _is_among(when.models, names)
        and _is_among(when.sizes, _names_of(job.size))
        and _is_among(when.qualities, (job.quality or "auto",))
        and _is_among(when.keys, (identity.key, identity.name))
        and _is_among(when.teams, (identity.team,))
        and _is_within(when.min_pixels, pixels, when.max_pixels)
        and _is_within(when.min_n, job.n, when.max_n)
        and _is_within(when.min_references, len(job.references), when.max_references)
    )


def find_mistakes(document: Document) -> list[tuple[Place, str]]:
    """The mistakes that only a comparison of rules, models and upstreams shows, each with its path in the file."""
    found: list[tuple[Place, str]] = []
    catch_all: int | None = None
    for index, rule in enumerate(document.rules):
        here: Place = ("rules", index)
        if catch_all is not None:
            found.append((here, f"never applies: rule {catch_all} has no `when`, so it applies to every request"))
        if catch_all is None and rule.when == When():
            catch_all = index + 1
        known = {**document.models, **document.aliases}
        found += [
            ((*here, "when", "models"), f"there is no model `{name}`; there are {', '.join(known)}")
            for name in rule.when.models or ()
            if name not in known
        ]
        found += _find_wrong_upstreams(document, rule, here)
    return found


def _find_wrong_upstreams(document: Document, rule: Rule, here: Place) -> list[tuple[Place, str]]:
    place: Place = (*here, "upstreams")
    found: list[tuple[Place, str]] = []
    for index, name in enumerate(rule.upstreams or ()):
        if name not in document.upstreams:
            found.append((place, f"there is no upstream `{name}`; there are {', '.join(document.upstreams)}"))
        elif name in (rule.upstreams or ())[:index]:
            found.append((place, f"`{name}` is here twice"))
    for name in rule.when.models or ():
        alias = document.aliases.get(name)
        model = document.models.get(alias.model if alias else name)
        if model and rule.upstreams and not found and not set(model.upstreams) & set(rule.upstreams):
            found.append((place, f"none of them serves `{name}`, which has {', '.join(model.upstreams)}"))
    return found


def _apply(rule: Rule | None, model: Model, number: int) -> Route:
    if rule is None:
        return Route(model.strategy, model.sizes == "nearest", model.compromises == "refuse", model.other_size)
    return Route(
        strategy=rule.strategy or model.strategy,
        allows_nearest=(rule.sizes or model.sizes) == "nearest",
        refuses_compromises=(rule.compromises or model.compromises) == "refuse",
        other_size=rule.other_size or model.other_size,
        upstreams=rule.upstreams,
        size=parse_size(rule.defaults.size) if rule.defaults.size else None,
        quality=rule.defaults.quality,
        rule=rule.name or f"rule {number}",
    )


def _names_of(size: Size | Shape | None) -> tuple[str, ...]:
    """The texts by which a rule may name a requested size: a ratio and its pixels, pixels alone, or `auto`."""
    if isinstance(size, Shape):
        return size.ratio, str(resolve(size))
    return (str(size) if size else "auto",)


def _is_among(wanted: Sequence[str] | None, found: Sequence[str]) -> bool:
    return wanted is None or any(one in wanted for one in found if one)


def _is_within(least: int | None, value: int, most: int | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)
