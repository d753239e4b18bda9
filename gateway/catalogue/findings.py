"""Findings about a usable catalogue: missing keys and prices, entries that no request reaches, dead rules.

Pure functions over a loaded catalogue. `catalogue` refuses a file that cannot be used at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from gateway.catalogue import pricing
from gateway.catalogue.capabilities import Fit, fit
from gateway.catalogue.catalogue import Catalogue, Target
from gateway.catalogue.dead_rules import find_dead_rules, models_of, name_rule
from gateway.catalogue.rules import Place
from gateway.jobs.job import ImageJob, Quality, Size

Level = Literal["warning", "note"]
"""A `note` may follow from a choice, such as an upstream without keys. A `warning` is probably a mistake."""

FindingKind = Literal[
    "no_key", "upstream_not_configured", "unused_upstream", "unreachable", "rule_without_upstream", "dead_rule",
    "no_price", "missing_price", "drift",
]  # fmt: skip

_ANY_SIZE = (
    *(Size(1024, 640), Size(1536, 1024)),
    *(Size(2048, 1152), Size(2048, 2048)),
    *(Size(3840, 2160), Size(2880, 2880)),
)
"""Two sizes of each tier, by which the prices of an upstream that makes any size are tested."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: the path of its entry in the catalogue, and its text."""

    level: Level
    kind: FindingKind
    place: Place
    text: str


def inspect(catalogue: Catalogue) -> list[Finding]:
    """All findings about a catalogue, one kind after another.

    Without any key, those about prices, unreachable names and rules without an upstream are left out.
    """
    found = [*_inspect_keys(catalogue), *_inspect_prices(catalogue), *_find_unused(catalogue)]
    if catalogue.targets:
        found += _find_unreachable(catalogue)
        found += _find_closed_rules(catalogue)
    dead = find_dead_rules(catalogue.document)
    return [*found, *(Finding("warning", "dead_rule", ("rules", index), text) for index, text in dead)]


def reach(catalogue: Catalogue) -> dict[str, list[str]]:
    """The labels of the configured targets of each public name, aliases included."""
    document = catalogue.document
    found = {name: [one.label for one in catalogue.targets_of(model)] for name, model in document.models.items()}
    return found | {name: found[alias.model] for name, alias in document.aliases.items()}


def _inspect_keys(catalogue: Catalogue) -> Iterator[Finding]:
    on = {target.label for target in catalogue.targets}
    for name, upstream in catalogue.document.upstreams.items():
        if name in catalogue.not_configured:
            yield Finding(
                "note",
                "upstream_not_configured",
                ("upstreams", name),
                f"{catalogue.not_configured[name]}, so it is not configured",
            )
            continue
        for index, credential in enumerate(upstream.credentials):
            if f"{name}/{credential.name}" not in on:
                place: Place = ("upstreams", name, "credentials", index, "key")
                yield Finding("warning", "no_key", place, f"{credential.key} is not set, so it gets no calls")


def _find_unused(catalogue: Catalogue) -> Iterator[Finding]:
    used = {name for model in catalogue.document.models.values() for name in model.upstreams}
    for name in catalogue.document.upstreams:
        if name not in used:
            yield Finding(
                "warning", "unused_upstream", ("upstreams", name), "no model names it, so no request reaches it"
            )


def _find_unreachable(catalogue: Catalogue) -> Iterator[Finding]:
    document, targets = catalogue.document, reach(catalogue)
    if not targets[document.default_model]:
        text = f"no request can reach `{document.default_model}`, so every request must name another model"
        yield Finding("warning", "unreachable", ("default_model",), text)
    for name, model in document.models.items():
        if not targets[name]:
            text = f"no request can reach it: {', '.join(model.upstreams)} {_are(model.upstreams)} not configured"
            yield Finding("note", "unreachable", ("models", name), text)
    for name, alias in document.aliases.items():
        if not targets[name]:
            text = f"no request can reach it: it stands for `{alias.model}`, whose upstreams are not configured"
            yield Finding("note", "unreachable", ("aliases", name), text)


def _find_closed_rules(catalogue: Catalogue) -> Iterator[Finding]:
    """The rules that leave some requests without an upstream: none is configured, or none is the model's own."""
    document = catalogue.document
    on = {target.upstream for target in catalogue.targets}
    for index, rule in enumerate(document.rules):
        if rule.upstreams is None:
            continue
        place, kept = ("rules", index, "upstreams"), on & set(rule.upstreams)
        if not kept:
            which = f"{', '.join(rule.upstreams)} {_are(rule.upstreams)} not configured"
            yield Finding(
                "warning",
                "rule_without_upstream",
                place,
                f"{which}: the gateway refuses the requests that it applies to",
            )
            continue
        models = ((name, document.models[name].upstreams) for name in models_of(rule.when, document))
        closed = [f"`{name}`" for name, upstreams in models if on & set(upstreams) and not kept & set(upstreams)]
        if closed:
            text = (
                f"{name_rule(rule, index)} leaves no upstream to {', '.join(closed)}: the gateway refuses such requests"
            )
            yield Finding("note", "rule_without_upstream", place, text)


def _inspect_prices(catalogue: Catalogue) -> Iterator[Finding]:
    # A catalogue without any price is a choice; one price that is missing among others is probably forgotten.
    level: Level = "warning" if any(target.prices is not None for target in catalogue.targets) else "note"
    for target in catalogue.targets:
        place = _place_of_prices(target)
        if target.prices is None:
            text = f"{target.label} has no prices: no key with a limit in dollars can use it, nor can `cost` rank it"
            yield Finding(level, "no_price", place, text)
        elif holes := _find_holes(target):
            text = (
                f"{target.label} has no price for {', '.join(holes)}, which it makes: such requests have no known price"
            )
            yield Finding("warning", "missing_price", place, text)


def _place_of_prices(target: Target) -> Place:
    """The path of a target's prices in the catalogue: in its credential if that has prices, else in its upstream."""
    names = [credential.name for credential in target.config.credentials]
    index = names.index(target.credential)
    if target.config.credentials[index].prices is not None:
        return ("upstreams", target.upstream, "credentials", index, "prices")
    return ("upstreams", target.upstream, "prices")


def _find_holes(target: Target) -> list[str]:
    """The qualities and tiers that a target makes without a price; qualities alone where prices have no tiers."""
    profile, found = target.profile, dict[str, None]()
    by_tier = target.prices is not None and target.prices.by_size is not None
    for quality in get_args(Quality):
        for size in _sizes_of(target):
            job = ImageJob("generation", "x", size=size, quality=quality)
            fitted = fit(job, profile)
            if isinstance(fitted, Fit) and pricing.quote(target.prices, job, fitted) is None:
                found[f"{quality} at {pricing.tier_of(size)}" if by_tier else quality] = None
    return list(found)


def _sizes_of(target: Target) -> tuple[Size, ...]:
    return target.profile.made_sizes or _ANY_SIZE


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
