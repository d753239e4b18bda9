"""The retry budget: ten a minute, or a tenth of the minute's calls, and never more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.process.admission import LEAST, SHARE, RetryBudget

STEPS = st.lists(st.tuples(st.sampled_from(["call", "call", "call", "retry"]), st.floats(0, 3)), max_size=300)


@given(STEPS)
def test_budget_is_never_passed(steps: list[tuple[str, float]]) -> None:
    """At each moment the last minute holds no more retries than allowed, and one is refused only at the bound."""
    now = 0.0
    budget = RetryBudget(lambda: now)
    calls: list[float] = []
    retries: list[float] = []
    for step, pause in steps:
        now += pause
        if step == "call":
            budget.note_call()
            calls.append(now)
            continue
        most = max(LEAST, int(SHARE * sum(at > now - 60 for at in calls)))
        before = sum(at > now - 60 for at in retries)
        assert budget.take() == (before < most)
        if before < most:
            retries.append(now)


def test_traffic_widens_the_budget() -> None:
    """A thousand calls in a minute allow a hundred retries; a minute later it is ten again."""
    now = 0.0
    budget = RetryBudget(lambda: now)
    for _ in range(1000):
        budget.note_call()
    assert sum(budget.take() for _ in range(200)) == 100
    now = 61.0
    assert sum(budget.take() for _ in range(200)) == 10
