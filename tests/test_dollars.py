"""Dollars and micro-dollars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dollars import MICRO, MOST_USD, parse_usd, show_usd


@given(st.integers(-MOST_USD * MICRO, MOST_USD * MICRO))
def test_amounts_survive_writing(micro: int) -> None:
    """What is shown is read back as the same amount."""
    assert parse_usd(show_usd(micro)) == micro


@pytest.mark.parametrize(
    ("text", "micro"), [("1.50", 1_500_000), ("0", 0), ("0.000001", 1), ("-2", -2_000_000), ("007", 7_000_000)]
)
def test_amounts_read_exactly(text: str, micro: int) -> None:
    """An amount in dollars is that many millionths."""
    assert parse_usd(text) == micro


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1,5", "$1", "1e3", "NaN", "inf", ".5", "1.", "0.0000001", "+1", "१", "1000000001", "--1"]
)
def test_other_texts_refused(text: str) -> None:
    """What is no plain amount is refused with an example of one."""
    with pytest.raises(ValueError, match=r"1\.50"):
        parse_usd(text)
