"""The bounds on what is under way in one process: kept, told apart by key, and given back however a request ends."""

from __future__ import annotations

import pytest

from gateway import errors
from gateway.process.admission import Crowd, Places


def end_badly(crowd: Crowd) -> None:
    with Places(crowd) as places:
        places.enter(0)
        raise ValueError("a request that ends badly")


def test_places_come_back() -> None:
    """One more than the most is refused with a time to come back, until one has ended, in whatever way."""
    crowd = Crowd(1, 1)
    with pytest.raises(ValueError, match="ends badly"):
        end_badly(crowd)
    with Places(crowd) as places:
        places.enter(0)
        with pytest.raises(errors.Overloaded) as refused:
            end_badly(crowd)
        assert crowd.count == 1
    assert refused.value.all_headers()["retry-after"] == "2"
    assert crowd.count == 0


def test_work_without_request_counts() -> None:
    """Work whose caller has left, or was promised a task, takes a place as a request does."""
    with Places(Crowd(3, 3)) as places, pytest.raises(errors.Overloaded):
        places.enter(3)


def test_keys_are_told_apart() -> None:
    """A key at its bound is refused; another one is not."""
    crowd = Crowd(9, 1)
    with Places(crowd) as first, Places(crowd) as other, Places(crowd) as second:
        first.enter_key("one")
        other.enter_key("other")
        with pytest.raises(errors.RateLimited):
            second.enter_key("one")
    with Places(crowd) as places:
        places.enter_key("one")
