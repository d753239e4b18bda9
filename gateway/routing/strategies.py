"""The routing strategies: they order targets by price, catalogue, weight or latency. Pure functions.

Chance is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.catalogue.document import Strategy
from gateway.dollars import show_usd


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target to be ranked. `price` is µ$ for the whole job, `seconds` the measured median; None is unknown."""

    label: str
    price: int | None = None
    weight: int = 1
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Indexes of candidates in order, the reason for each position, and a note for operators."""

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
    cheapest = prices[order[0]] if order else 0
    reasons = [
        "cheapest" if prices[one] == cheapest else f"${show_usd(prices[one] - cheapest)} dearer" for one in order
    ]
    return Ranking(order, tuple(reasons))


def _by_weight(candidates: Sequence[Candidate], draw: float) -> Ranking:
    """Order all candidates by one draw: its position within the winner's share is the next draw."""
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
    """Targets without a measurement come first: otherwise they would never get one."""
    order = tuple(sorted(range(len(candidates)), key=lambda index: candidates[index].seconds or 0.0))
    found = [candidates[index].seconds for index in order]
    reasons = ["not measured yet" if seconds is None else f"median {seconds:.1f} s" for seconds in found]
    return Ranking(order, tuple(reasons))


def _ordinal(index: int) -> str:
    names = ("first", "second", "third")
    return names[index] if index < len(names) else f"{index + 1}th"
