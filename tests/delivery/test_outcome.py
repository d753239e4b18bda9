"""The outcome of a task: the error that its caller gets for several failures, and the sums of its end."""

from __future__ import annotations

import pytest

from gateway import errors
from gateway.delivery.outcome import CallEnd, choose_error, conclude
from gateway.history.record import CallFact, SettledState
from gateway.jobs.job import TokenUsage
from gateway.upstreams.verdict import Executed, Verdict

REFUSED = Verdict("refused", Executed.NO, again=False, elsewhere=False, error=errors.InvalidValue("no"))
POLICY = Verdict("policy", Executed.NO, again=False, elsewhere=False, error=errors.ModerationBlocked("no"))
UNKNOWN = Verdict("unknown", Executed.UNKNOWN, again=False, elsewhere=False, error=errors.UpstreamOutcomeUnknown("?"))
FAILED = Verdict("task_failed", Executed.NO, again=False, elsewhere=True, error=errors.UpstreamFailed("no"))


def limited(retry_after: int) -> Verdict:
    error = errors.RateLimited("later", retry_after=retry_after)
    return Verdict("rate_limited", Executed.NO, again=True, elsewhere=True, error=error)


@pytest.mark.parametrize(
    ("verdicts", "chosen"),
    [
        ([FAILED, UNKNOWN, REFUSED, POLICY], POLICY),
        ([FAILED, UNKNOWN, REFUSED], REFUSED),
        ([FAILED, UNKNOWN, FAILED], UNKNOWN),
        ([limited(5), FAILED], FAILED),
    ],
    ids=["policy", "refusal", "may be billed", "last"],
)
def test_error_is_chosen(verdicts: list[Verdict], chosen: Verdict) -> None:
    """A refusal goes before a failure that may have been billed, and that before the last failure."""
    assert choose_error(verdicts) is chosen.error


def test_least_wait_is_told() -> None:
    """Of several upstreams that ask to be left for a while the shortest time is told."""
    assert choose_error([limited(30), limited(7), limited(12)]).retry_after == 7


def test_nobody_asked_is_told() -> None:
    """Without any failure no upstream took the request."""
    assert isinstance(choose_error([]), errors.UpstreamUnavailable)


def call(state: SettledState = "posted", usd: int | None = 10, usage: TokenUsage | None = None) -> CallEnd:
    fact = CallFact(id="call_1", upstream="a", target="a/b", outcome="delivered", seconds=1, n=1, usd=usd, state=state)
    return CallEnd(fact, charge=usd, may_be_billed=state != "void", is_answered=state == "posted", usage=usage)


def test_end_counts_calls() -> None:
    """An end counts the calls that may have been billed, their charge, and tokens where every answer counts them."""
    counted = TokenUsage(1, 2, 3)
    outcome = conclude([], 2, [call(usage=counted), call(usage=counted), call("void", 0)], [UNKNOWN])
    end = outcome.to_end(7)
    assert (end.completed, end.status, end.calls, end.spent, end.is_guess) == (7, "failed", 2, 20, False)
    assert end.usage is not None
    assert end.usage["total_tokens"] == 6
    assert conclude([], 2, [call(usage=counted), call()], [UNKNOWN]).to_end(7).usage is None


def test_unknown_price_makes_the_sum_unknown() -> None:
    """One call without a known price leaves the sum unknown; a presumed one makes it a guess."""
    end = conclude([], 1, [call(), call("presumed", None)], [UNKNOWN]).to_end(7)
    assert (end.spent, end.is_guess) == (None, True)
