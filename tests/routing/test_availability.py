"""What is left of a plan at a moment: no target that is out, credentials of one rank by their load."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import Paused, PublicError, RateLimited, UpstreamUnavailable
from gateway.health.condition import LONGEST_WAIT, Block, Condition, refuse_paused
from gateway.jobs.job import Size
from gateway.routing.plan import Plan, narrow
from tests.support.plans import make_job, plan

PLAN = plan(make_job(size=Size(1024, 1024)))
LABELS = [choice.target.label for choice in PLAN.choices]
LOADS = {"a": (2.0, 0.0), "b": (0.0, 1.0), "c": (0.0, 0.5)}


def idle(_: object) -> tuple[float, float]:
    return (0.0, 0.0)


def labels(found: Plan) -> list[str]:
    return [choice.target.label for choice in found.choices]


def test_nothing_changes_while_all_is_well() -> None:
    """A plan of targets that are all well is followed as it was made."""
    assert narrow(PLAN, {}, idle) == PLAN


def test_target_that_is_down_is_told() -> None:
    """A target whose circuit is open is no choice any more, but a rejection with its label and its reason."""
    found = narrow(PLAN, {LABELS[0]: Block("circuit_open", 30)}, idle)
    assert labels(found) == LABELS[1:]
    assert [(one.label, one.unfit.reason) for one in found.rejections] == [(LABELS[0], Block("circuit_open").words)]


def test_outage_makes_no_compromise() -> None:
    """While the only target that honours a quality is down, no other drops it: the request is told to come back."""
    found = narrow(plan(make_job("edit", quality="high")), {"apiany/main": Block("credential_rejected", 60)}, idle)
    assert not found.choices
    assert isinstance(found.refusal, UpstreamUnavailable)
    assert "rejected the gateway's credential" in found.refusal.message


@pytest.mark.parametrize(
    ("blocks", "kind", "seconds"),
    [
        (
            [Block("circuit_open", 100), Block("credential_rejected", 40.2), Block("rate_limited", 90)],
            UpstreamUnavailable,
            41,
        ),
        ([Block("circuit_open", 9000)] * 3, UpstreamUnavailable, 120),
        ([Block("low_balance")] * 3, UpstreamUnavailable, 5),
        ([Block("rate_limited", 50), Block("rate_limited", 45), Block("rate_limited", 300)], RateLimited, 45),
        ([Block("rate_limited", 9000)] * 3, RateLimited, 60),
        ([Block("paused", 9000), Block("paused"), Block("paused", 7000.2)], Paused, 7001),
        ([Block("paused")] * 3, Paused, None),
        ([Block("paused", 9000), Block("circuit_open", 30), Block("paused")], UpstreamUnavailable, 30),
    ],
    ids=str,
)
def test_all_down_tells_the_least_time(blocks: list[Block], kind: type[PublicError], seconds: int) -> None:
    """With every target down the caller hears the least time: 429 where all are rate limits, else 503."""
    refusal = narrow(PLAN, dict(zip(LABELS, blocks, strict=True)), idle).refusal
    assert isinstance(refusal, kind)
    assert refusal.retry_after == seconds


def test_refusal_keeps_the_choices() -> None:
    """A request that is refused for a pause still has its plan, so that a dry run shows both."""
    refusal = Paused("paused")
    found = narrow(PLAN, {}, idle, refusal)
    assert (found.choices, found.refusal) == (PLAN.choices, refusal)


@pytest.mark.parametrize(
    ("pauses", "words", "retry_after", "should_retry"),
    [
        ({"everything": 0.0}, "paused this gateway.", None, False),
        ({"everything": 59.2}, "paused this gateway; the pause ends in 60 s.", 60, None),
        ({"team:design": 7200.0}, "paused this key's team; the pause ends in 7200 s.", 7200, False),
        ({"everything": 30.0, "team:design": 90.0}, "paused this gateway; the pause ends in 90 s.", 90, False),
        ({"everything": 30.0, "team:design": 0.0}, "paused this gateway.", None, False),
    ],
    ids=str,
)
def test_pause_is_said_with_its_end(
    pauses: dict[str, float], words: str, retry_after: int | None, should_retry: bool | None
) -> None:
    """A refusal names the last of the ends that apply, and no team; an SDK repeats only what ends within a minute."""
    refusal = refuse_paused(pauses, "design")
    assert isinstance(refusal, Paused)
    assert words in refusal.message
    assert "design" not in refusal.message
    assert (refusal.retry_after, refusal.should_retry) == (retry_after, should_retry)


@pytest.mark.parametrize("team", [None, "", "other"])
def test_pause_of_others_refuses_nobody(team: str | None) -> None:
    """A pause of another team, or of an upstream, is no reason to refuse a request as a whole."""
    assert refuse_paused({"team:design": 0.0, "upstream:anyfast": 0.0}, team) is None


@pytest.mark.parametrize(("strategy", "order"), [("cost", "cba"), ("priority", "cba"), ("weighted", "abc")])
def test_equal_credentials_go_by_load(strategy: str, order: str) -> None:
    """Neighbours of one upstream and price are ordered by load, unless chance decides; other ranks stay."""
    first, *rest = PLAN.choices
    twins = [replace(first, target=replace(first.target, credential=name)) for name in "abc"]
    wide = replace(PLAN, choices=(*twins, *rest), strategy=strategy)  # type: ignore[arg-type]
    found = narrow(wide, {}, lambda one: LOADS.get(one.credential, (0.0, 0.0)))
    assert "".join(one.target.credential for one in found.choices[:3]) == order
    assert found.choices[3:] == tuple(rest)


def test_dearer_credential_stays_behind() -> None:
    """A credential that is charged more is no equal, however little it has to do."""
    assert narrow(PLAN, {}, lambda one: (float(one.label == PLAN.choices[0].target.label), 0.0)) == PLAN


@pytest.mark.parametrize(
    ("bar", "passes"),
    [
        (Block("rate_limited", LONGEST_WAIT), True),
        (Block("rate_limited", LONGEST_WAIT + 1), False),
        (Block("full"), True),
        (Block("busy", 1), True),
        (Block("circuit_open", 1), False),
        (Block("credential_rejected", 1), False),
        (Block("half_open"), False),
        (Block("paused", 1), False),
    ],
    ids=str,
)
def test_short_limits_are_waited_for(bar: Block, passes: bool) -> None:
    """A request waits for a place and for a short rate limit, never for what is broken."""
    assert bar.is_passing == passes


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        (Condition(), "ok"),
        (Condition(breaker="half_open"), "half_open"),
        (Condition(breaker="open", opens_in=3), "circuit_open"),
        (Condition(cooled_for=3, cooled_why="limit"), "rate_limited"),
        (Condition(cooled_for=3, cooled_why="credential"), "credential_rejected"),
        (Condition(is_low=True), "low_balance"),
        (Condition(presumed=11), "paused_by_spend_limit"),
    ],
    ids=str,
)
def test_state_is_named(condition: Condition, state: str) -> None:
    """Each reason why no call goes to a target has a state of its own for the operator."""
    assert condition.describe(has_floor=True, spend_limit=10)[0] == state
