"""Credentials of one upstream and one price share the work; a target's state has a word for the operator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.condition import LONGEST_WAIT, Bar, Condition
from gateway.sharing import share_out
from gateway.sizes import Size
from tests.plans import make_job, plan

PLAN = plan(make_job(size=Size(1024, 1024)))
LOADS = {"a": (2.0, 0.0), "b": (0.0, 1.0), "c": (0.0, 0.5)}


@pytest.mark.parametrize(("strategy", "order"), [("cost", "cba"), ("priority", "cba"), ("weighted", "abc")])
def test_equal_credentials_go_by_load(strategy: str, order: str) -> None:
    """Neighbours of one upstream and price are ordered by load, unless chance decides; other ranks stay."""
    first, *rest = PLAN.choices
    twins = [replace(first, target=first.target.model_copy(update={"credential": name})) for name in "abc"]
    wide = replace(PLAN, choices=(*twins, *rest), strategy=strategy)  # type: ignore[arg-type]
    found = share_out(wide, lambda one: LOADS.get(one.credential, (0.0, 0.0)))
    assert "".join(one.target.credential for one in found.choices[:3]) == order
    assert found.choices[3:] == tuple(rest)


def test_dearer_credential_stays_behind() -> None:
    """A credential that is charged more is no equal, however little it has to do."""
    assert share_out(PLAN, lambda one: (float(one.label == PLAN.choices[0].target.label), 0.0)) == PLAN


@pytest.mark.parametrize(
    ("bar", "passes"),
    [
        (Bar("limit", LONGEST_WAIT), True),
        (Bar("limit", LONGEST_WAIT + 1), False),
        (Bar("full"), True),
        (Bar("busy", 1), True),
        (Bar("open", 1), False),
        (Bar("credential", 1), False),
        (Bar("probing"), False),
    ],
    ids=str,
)
def test_short_limits_are_waited_for(bar: Bar, passes: bool) -> None:
    """A request waits for a place and for a short rate limit, never for what is broken."""
    assert bar.is_passing == passes


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        (Condition(), "ok"),
        (Condition(breaker="half"), "tried again"),
        (Condition(breaker="open", opens_in=3), "left alone"),
        (Condition(cooled_for=3, cooled_why="limit"), "rate limit"),
        (Condition(cooled_for=3, cooled_why="credential"), "refused"),
        (Condition(is_low=True), "low balance"),
        (Condition(presumed=11), "braked"),
    ],
    ids=str,
)
def test_state_is_named(condition: Condition, state: str) -> None:
    """Each reason to be left alone has a word of its own for the operator."""
    assert condition.describe(has_floor=True, brake=10)[0] == state
