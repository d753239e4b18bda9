"""Credentials of one upstream and one price share the work: neighbours in a plan, ordered by their load.

Asked once a request by `pipeline`, after `routing`. A pure function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby

from gateway.catalog import Target
from gateway.routing import Choice, Plan

Load = Callable[[Target], tuple[float, float]]
"""What orders equals, the least first."""

_BY_LOAD = frozenset({"cost", "priority"})
"""The other strategies tell one credential from the next by themselves."""


def share_out(plan: Plan, load: Load) -> Plan:
    """The plan with equals in the order of their load; the order between ranks stays."""
    if plan.strategy not in _BY_LOAD:
        return plan
    ordered: list[Choice] = []
    for _, equals in groupby(plan.choices, key=lambda choice: (choice.target.upstream, choice.total)):
        ordered += sorted(equals, key=lambda choice: load(choice.target))
    return replace(plan, choices=tuple(ordered))
