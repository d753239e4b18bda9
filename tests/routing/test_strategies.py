"""In which order targets are tried: each strategy by itself, on candidates without a catalogue."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalogue.document import STRATEGIES, Strategy
from gateway.routing.plan import Candidate, rank

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        label=st.sampled_from("abcdef"),
        price=st.none() | st.integers(0, 10**7),
        weight=st.integers(1, 1000),
        seconds=st.none() | st.floats(0.1, 600),
    ),
    max_size=8,
)


def of(**prices: int | None) -> list[Candidate]:
    return [Candidate(label, price) for label, price in prices.items()]


@given(st.sampled_from(STRATEGIES), CANDIDATES, st.floats(0, 1, exclude_max=True))
def test_everybody_has_a_turn(strategy: Strategy, candidates: list[Candidate], draw: float) -> None:
    """Whatever the strategy and the draw, each candidate stands in the order once, with a reason."""
    found = rank(strategy, candidates, draw)
    assert sorted(found.order) == list(range(len(candidates)))
    assert len(found.reasons) == len(candidates)
    assert all(found.reasons)


@given(CANDIDATES)
def test_order_follows_the_price(candidates: list[Candidate]) -> None:
    """With every price known the cheaper comes first, and of equals the first in the catalogue."""
    found = rank("cost", candidates)
    prices = [(candidates[index].price, index) for index in found.order]
    if all(price is not None for price, _ in prices):
        assert prices == sorted(prices)
        assert found.note is None
    else:
        assert found.order == tuple(range(len(candidates)))
        assert found.note
        assert "no price is known" in found.note


def test_reasons_compare_with_the_cheapest() -> None:
    """Each is told by how much it is dearer; who costs as little is as cheap."""
    found = rank("cost", of(a=30_000, b=15_000, c=15_000))
    assert found.order == (1, 2, 0)
    assert found.reasons == ("cheapest", "cheapest", "$0.015000 dearer than b")


def test_unknown_price_is_named() -> None:
    """One unknown price leaves the catalogue's order, and the note says whose it is."""
    found = rank("cost", of(a=30_000, b=None, c=15_000))
    assert found.order == (0, 1, 2)
    assert found.note == "the catalogue's order decides: no price is known for b"
    assert found.reasons == ("first in the catalogue", "second in the catalogue", "third in the catalogue")


def test_priority_is_the_catalogue() -> None:
    """Prices and seconds change nothing where priority was chosen, and nothing is missing for it."""
    found = rank("priority", [Candidate("a", 9, 1, 9.0), Candidate("b", None), Candidate("c", 1), Candidate("d")])
    assert found.order == (0, 1, 2, 3)
    assert found.reasons[-1] == "4th in the catalogue"
    assert found.note is None


def test_unmeasured_targets_go_first() -> None:
    """The fastest comes first, after those that nobody measured yet; without any measurement it is the catalogue."""
    seconds = [40.0, None, 20.0, None]
    found = rank("latency", [Candidate(str(index), seconds=one) for index, one in enumerate(seconds)])
    assert found.order == (1, 3, 2, 0)
    assert found.reasons == ("not measured yet", "not measured yet", "median 20.0 s", "median 40.0 s")
    assert rank("latency", of(a=1, b=2)).order == (0, 1)


def test_weights_share_first_turns() -> None:
    """Over many draws each is first, second and third as often as drawing anew for every turn would have it."""
    weights = {"a": 5, "b": 3, "c": 2}
    dice, count = Random(4), 20_000
    candidates = [Candidate(label, weight=weight) for label, weight in weights.items()]
    seen = Counter(rank("weighted", candidates, dice.random()).order for _ in range(count))
    names = list(weights.values())
    for order, times in seen.items():
        first, second, _ = (names[index] for index in order)
        wanted = first / 10 * second / (10 - first)
        assert times / count == pytest.approx(wanted, abs=0.015)
    assert len(seen) == 6


@pytest.mark.parametrize(("draw", "first"), [(0.0, 0), (0.4999, 0), (0.5, 1), (0.7999, 1), (0.8, 2), (1 - 2**-53, 2)])
def test_draw_falls_into_one_share(draw: float, first: int) -> None:
    """Shares lie beside each other in the catalogue's order."""
    candidates = [Candidate(label, weight=weight) for label, weight in (("a", 5), ("b", 3), ("c", 2))]
    found = rank("weighted", candidates, draw)
    assert found.order[0] == first
    assert found.reasons[0] == f"drawn with weight {(5, 3, 2)[first]} of 10"
