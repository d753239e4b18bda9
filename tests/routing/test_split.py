"""One job of n images as the calls a target allows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalogue.capabilities import Fit
from gateway.jobs.job import Shape, Size
from gateway.routing.plan import split_job
from tests.support.plans import make_job

FIT = Fit(
    per_call=4,
    size=Size(1024, 1024),
    made=Size(1024, 1024),
    quality="medium",
    output_format="jpeg",
    transcode=False,
    moderation=None,
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
    """Size, quality, format and moderation are the fit's; prompt and operation the job's."""
    job = make_job("edit", quality="high", size=Size(2048, 2048), moderation="low", output_format="jpeg")
    fit = replace(FIT, size=Shape(16, 9, "2K"), quality=None, moderation="low")
    (call,) = split_job(job, fit, [3])
    assert (call.operation, call.prompt, call.slots, call.n) == ("edit", "a fox", (3,), 1)
    assert (call.size, call.quality, call.output_format, call.moderation) == (Shape(16, 9, "2K"), None, "jpeg", "low")


@pytest.mark.parametrize(("transcode", "sent"), [(False, 40), (True, None)])
def test_compression_goes_with_the_encoder(transcode: bool, sent: int | None) -> None:
    """Whoever encodes the image gets the compression; an upstream whose image is encoded again here does not."""
    job = make_job(output_format="jpeg", output_compression=40)
    (call,) = split_job(job, replace(FIT, transcode=transcode), [0])
    assert call.compression == sent
