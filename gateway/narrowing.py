"""A plan as it can be followed at this moment: without targets that are out, credentials of one rank by their load.

Asked once a request by `pipeline`, between `routing.plan` and the task. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from gateway.capabilities import Unfit
from gateway.catalog import Target
from gateway.condition import Bar, refuse
from gateway.routing import Choice, Plan, Rejection

Barring = Callable[[Target], Bar | None]
Load = Callable[[Target], tuple[float, float]]


def narrow(plan: Plan, bar: Barring, load: Load) -> Plan:
    """The plan without the targets that `bar` keeps calls away from for longer than a request waits.

    Raises UpstreamUnavailable, or RateLimited, when none is left.
    """
    kept: list[Choice] = []
    out: list[Rejection] = []
    bars: list[Bar] = []
    for choice in plan.choices:
        found = bar(choice.target)
        if found is None or found.is_passing:
            kept.append(choice)
        else:
            bars.append(found)
            out.append(Rejection(choice.target.upstream, Unfit(found.words, "model")))
    if not kept:
        raise refuse(bars)
    return Plan(tuple(_spread(kept, load)), (*plan.rejections, *out))


def _spread(choices: list[Choice], load: Load) -> list[Choice]:
    """Neighbours of one upstream and one price take turns; the order between ranks stays."""

    def rank(choice: Choice) -> tuple[str, object]:
        return choice.target.upstream, choice.quote

    ordered: list[Choice] = []
    for _, group in groupby(choices, key=rank):
        ordered += sorted(group, key=lambda choice: load(choice.target))
    return ordered
