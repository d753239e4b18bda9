"""A plan as it can be followed at this moment: without targets that are out, equal credentials by their load.

Asked once a request by `pipeline`, after `routing`. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from gateway.catalogue.capabilities import Unfit
from gateway.catalogue.catalogue import Target
from gateway.health.condition import Block, refuse
from gateway.routing.plan import Choice, Plan, Rejection

Load = Callable[[Target], tuple[float, float]]
"""What orders equals, the least first."""

_BY_LOAD = frozenset({"cost", "priority"})
"""The other strategies tell one credential from the next by themselves."""


def narrow(plan: Plan, down: Mapping[str, Block], load: Load) -> Plan:
    """The plan without the targets that are down, by label; what they honour is dropped by no other meanwhile.

    When none is left its refusal is UpstreamUnavailable or RateLimited.
    """
    kept = [choice for choice in plan.choices if choice.target.label not in down]
    out = [(choice.target, down[choice.target.label]) for choice in plan.choices if choice.target.label in down]
    told = (Rejection(target.upstream, Unfit(bar.words, "model"), target.label) for target, bar in out)
    ordered = _share_out(kept, load) if plan.strategy in _BY_LOAD else kept
    refusal = None if kept else refuse([bar for _, bar in out])
    return replace(plan, choices=tuple(ordered), rejections=(*plan.rejections, *told), refusal=refusal)


def _share_out(choices: Sequence[Choice], load: Load) -> list[Choice]:
    """Neighbours of one upstream and one price in the order of their load; the order between ranks stays."""
    ordered: list[Choice] = []
    for _, equals in groupby(choices, key=lambda choice: (choice.target.upstream, choice.total)):
        ordered += sorted(equals, key=lambda choice: load(choice.target))
    return ordered
