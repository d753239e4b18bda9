"""What is left of a plan at a moment: no target that is out, credentials of one rank by their load."""

from __future__ import annotations

import pytest

from gateway import errors
from gateway.catalog import Target
from gateway.condition import LONGEST_WAIT, Bar, Condition
from gateway.narrowing import narrow
from gateway.routing import Choice, Plan
from gateway.sizes import Size
from tests.plans import make_job, plan

PLAN = plan(make_job(size=Size(1024, 1024)))
LABELS = [choice.target.label for choice in PLAN.choices]


def labels(plan: Plan) -> list[str]:
    return [choice.target.label for choice in plan.choices]


def test_nothing_changes_while_all_is_well() -> None:
    """A plan of targets that are all well is followed as it was made."""
    assert narrow(PLAN, lambda _: None, lambda _: (0, 0)) == PLAN


def test_target_that_is_out_is_told() -> None:
    """A target that is left alone is no choice any more, but a rejection with its reason."""
    out = LABELS[0]
    found = narrow(PLAN, lambda one: Bar("open", 30) if one.label == out else None, lambda _: (0, 0))
    assert labels(found) == LABELS[1:]
    assert [one.unfit.reason for one in found.rejections] == ["it failed too often and is left alone"]


def test_short_wait_stays_a_choice() -> None:
    """A rate limit that ends before a request gives up waiting keeps its target in the plan."""
    assert labels(narrow(PLAN, lambda _: Bar("limit", LONGEST_WAIT), lambda _: (0, 0))) == LABELS


@pytest.mark.parametrize(
    ("bars", "kind", "seconds"),
    [
        ([Bar("open", 100), Bar("credential", 40.2), Bar("limit", 90)], errors.UpstreamUnavailable, 41),
        ([Bar("open", 9000)] * 3, errors.UpstreamUnavailable, 120),
        ([Bar("low")] * 3, errors.UpstreamUnavailable, 5),
        ([Bar("limit", 50), Bar("limit", 45), Bar("limit", 300)], errors.RateLimited, 45),
        ([Bar("limit", 9000)] * 3, errors.RateLimited, 60),
    ],
    ids=str,
)
def test_all_out_tells_the_least_time(bars: list[Bar], kind: type[errors.PublicError], seconds: int) -> None:
    """With every target out the caller hears the least time: 429 where all are rate limits, else 503."""
    by_label = dict(zip(LABELS, bars, strict=True))
    with pytest.raises(kind) as caught:
        narrow(PLAN, lambda one: by_label[one.label], lambda _: (0, 0))
    assert caught.value.retry_after == seconds


def test_equal_credentials_go_by_load() -> None:
    """Neighbours of one upstream and price are ordered by load; a cheaper upstream stays before them all."""
    first, *rest = PLAN.choices
    twins = [Choice(_renamed(first.target, name), first.fit, first.quote) for name in ("a", "b", "c")]
    loads = {"a": (2.0, 0.0), "b": (0.0, 1.0), "c": (0.0, 0.5)}
    twofold = Plan((*twins, *rest), ())
    found = narrow(twofold, lambda _: None, lambda one: loads.get(one.credential, (0, 0)))
    assert [one.target.credential for one in found.choices[:3]] == ["c", "b", "a"]
    assert labels(found)[3:] == LABELS[1:]


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


def _renamed(target: Target, credential: str) -> Target:
    return target.model_copy(update={"credential": credential})
