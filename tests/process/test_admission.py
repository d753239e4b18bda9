"""The bounds on what is under way in one process: kept, told apart by key, and given back however a request ends."""

from __future__ import annotations

import pytest

from gateway import errors
from gateway.process.admission import Admission, AdmittedRequest


def end_badly(admission: Admission) -> None:
    with AdmittedRequest(admission) as places:
        places.enter(0)
        raise ValueError("a request that ends badly")


def test_places_come_back() -> None:
    """One more than the most is refused with a time to come back, until one has ended, in whatever way."""
    admission = Admission(1, 1)
    with pytest.raises(ValueError, match="ends badly"):
        end_badly(admission)
    with AdmittedRequest(admission) as places:
        places.enter(0)
        with pytest.raises(errors.Overloaded) as refused:
            end_badly(admission)
        assert admission.count == 1
    assert refused.value.all_headers()["retry-after"] == "2"
    assert admission.count == 0


def test_work_without_request_counts() -> None:
    """Work whose caller has left, or was promised a task, takes a place as a request does."""
    with AdmittedRequest(Admission(3, 3)) as places, pytest.raises(errors.Overloaded):
        places.enter(3)


def test_keys_are_told_apart() -> None:
    """A key at its bound is refused; another one is not."""
    admission = Admission(9, 1)
    with AdmittedRequest(admission) as first, AdmittedRequest(admission) as other, AdmittedRequest(admission) as second:
        first.enter_key("one")
        other.enter_key("other")
        with pytest.raises(errors.RateLimited):
            second.enter_key("one")
    with AdmittedRequest(admission) as places:
        places.enter_key("one")
