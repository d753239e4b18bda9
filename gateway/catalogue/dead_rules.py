"""Rules that can never apply: no request meets them, or an earlier rule covers every request that does.

Such a rule does no harm, so it is a finding and no mistake. Pure functions. A rule that only two others cover together
is not found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import get_args

from gateway.catalogue.document import Document, Rule, When
from gateway.jobs.job import MAX_PIXELS, MIN_PIXELS, Operation, Quality, parse_size


@dataclass(frozen=True, slots=True)
class _Region:
    """The set of requests that meet a `when`. None is any value; a pair has the least and the greatest value."""

    operation: frozenset[str]
    mask: frozenset[bool]
    models: frozenset[str]
    sizes: frozenset[str] | None
    qualities: frozenset[str]
    keys: frozenset[str] | None
    teams: frozenset[str] | None
    pixels: tuple[int, int]
    n: tuple[int, int]
    references: tuple[int, int]

    @property
    def is_empty(self) -> bool:
        return any(_is_none(getattr(self, field.name)) for field in fields(self))

    def covers(self, other: _Region) -> bool:
        return all(_holds(getattr(self, field.name), getattr(other, field.name)) for field in fields(self))


def find_dead_rules(document: Document) -> list[tuple[int, str]]:
    """The rules that never apply, each as its index from 0 and the reason."""
    found: list[tuple[int, str]] = []
    regions = [_region(rule.when, document) for rule in document.rules]
    for index, region in enumerate(regions):
        if region.is_empty:
            found.append((index, "no request can meet all its conditions, so it never applies"))
            continue
        before = next((one for one in range(index) if not regions[one].is_empty and regions[one].covers(region)), None)
        if before is not None:
            name = name_rule(document.rules[before], before)
            found.append((index, f"{name} comes first and applies to every request that meets it"))
    return found


def name_rule(rule: Rule, index: int) -> str:
    """The words for a rule in a message: its name, else its number from 1."""
    return f"rule `{rule.name}`" if rule.name else f"rule {index + 1}"


def models_of(when: When, document: Document) -> list[str]:
    """The models, without their aliases, of the requests that may meet a `when`."""
    names = _public_names(when, document)
    resolved = {document.aliases[name].model if name in document.aliases else name for name in names}
    return [name for name in document.models if name in resolved]


def _public_names(when: When, document: Document) -> frozenset[str]:
    """The public names that requests which meet a `when` may use; a model stands for its aliases too."""
    known = {name: name for name in document.models} | {name: one.model for name, one in document.aliases.items()}
    return frozenset(name for name, model in known.items() if when.models is None or {name, model} & set(when.models))


def _region(when: When, document: Document) -> _Region:
    operation, mask, references = _forms(when)
    pixels = (max(when.min_pixels or 0, MIN_PIXELS), min(when.max_pixels or MAX_PIXELS, MAX_PIXELS))
    wanted = None if when.sizes is None else frozenset(one for one in when.sizes if _may_have(one, pixels))
    counts = [size.pixels for one in wanted or () if (size := parse_size(one))]
    if wanted and len(counts) == len(wanted):
        pixels = (min(counts), max(counts))
    return _Region(
        operation=operation,
        mask=mask,
        models=_public_names(when, document),
        sizes=wanted,
        qualities=frozenset(when.qualities or (*get_args(Quality), "auto")),
        keys=_any_of(when.keys),
        teams=_any_of(when.teams),
        pixels=pixels,
        n=(when.min_n or 1, when.max_n or 10),
        references=references,
    )


def _forms(when: When) -> tuple[frozenset[str], frozenset[bool], tuple[int, int]]:
    """The possible operations, masks and counts of references, each narrowed by the others."""
    operation = frozenset((when.operation,) if when.operation else get_args(Operation))
    mask = frozenset((False, True) if when.mask is None else (when.mask,))
    least, most = when.min_references or 0, 16 if when.max_references is None else when.max_references
    if least > 0 or mask == {True}:
        operation -= {"generation"}
    if most == 0:
        operation -= {"edit"}
    if operation == {"edit"}:
        least = max(least, 1)
    if operation == {"generation"}:
        mask, most = mask - {True}, 0
    return operation, mask, (least, most)


def _may_have(asked: str, pixels: tuple[int, int]) -> bool:
    size = parse_size(asked)
    return size is None or pixels[0] <= size.pixels <= pixels[1]


def _any_of(names: Iterable[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _is_none(value: frozenset[object] | tuple[int, int] | None) -> bool:
    if isinstance(value, tuple):
        return value[0] > value[1]
    return value is not None and not value


def _holds(
    wide: frozenset[object] | tuple[int, int] | None, narrow: frozenset[object] | tuple[int, int] | None
) -> bool:
    if wide is None:
        return True
    if isinstance(wide, tuple) and isinstance(narrow, tuple):
        return wide[0] <= narrow[0] and narrow[1] <= wide[1]
    return isinstance(wide, frozenset) and isinstance(narrow, frozenset) and narrow <= wide
