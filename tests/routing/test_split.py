"""One job of n images as the calls a target allows."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.catalogue.capabilities import Fit
from gateway.jobs.job import Sent, Shape, Size
from gateway.routing.plan import split_job
from tests.support.plans import LOW_MODERATION, make_job

FIT = Fit(
    per_call=4,
    sent=Sent(Shape(16, 9, "2K"), "medium", "jpeg", passed=LOW_MODERATION),
    made=Size(2048, 1152),
    transcode=False,
)


@given(st.integers(1, 10), st.lists(st.integers(0, 9), unique=True, max_size=10))
def test_each_slot_is_asked_for_once(per_call: int, slots: list[int]) -> None:
    """Calls fill exactly the slots they were given, in order, and never ask for more than the target allows."""
    calls = split_job(make_job(n=10), replace(FIT, per_call=per_call), slots)
    assert [slot for call in calls for slot in call.slots] == slots
    assert all(1 <= call.n <= per_call for call in calls)
    assert len(calls) == -(-len(slots) // per_call)
    assert len({call.id for call in calls}) == len(calls)


def test_calls_say_what_fits() -> None:
    """A call sends what its target receives; prompt and operation are the job's."""
    (call,) = split_job(make_job("edit", quality="high", size=Size(2048, 2048)), FIT, [3])
    assert (call.operation, call.prompt, call.slots, call.n, call.sent) == ("edit", "a fox", (3,), 1, FIT.sent)
