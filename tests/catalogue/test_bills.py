"""The bill of a call: how far an upstream's own numbers are believed."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalogue.capabilities import Fit
from gateway.catalogue.pricing import (
    DEAREST_IMAGE,
    MOST_CLAIMED,
    TOLERANCE_OF_BOUND,
    TOLERANCE_OF_ESTIMATE,
    Bill,
    Prices,
    Terms,
    bill,
    is_believable,
    is_upper_bound,
    quote,
    terms,
)
from gateway.jobs.job import SQUARE, ImageJob, Sent, Size, TokenUsage
from tests.support.plans import make_job, picture

OFFICIAL: dict[str, Any] = {"per_million_tokens": {"text_in": "5", "image_in": "8", "image_out": "30"}}
TIERED: dict[str, Any] = {"by_size": {"any": {"1K": "0.015", "2K": "0.03"}}, "per_thousand_credits": "1.00"}
FLAT: dict[str, Any] = {"per_image": "0.03"}
PIXELS: dict[str, Any] = {"per_megapixel": {"any": "0.04"}, "per_thousand_credits": "0.50"}

MEDIUM = 1756
"""The output tokens of a square of medium quality."""

LISTED = MEDIUM * 30 + 2 * 5
"""µ$ of such a picture by the price list, with the two tokens of its prompt."""


def make_fit(made: Size | None = SQUARE) -> Fit:
    return Fit(per_call=10, sent=Sent(size=made, quality="medium", output_format="png"), made=made, transcode=False)


def hold(prices: dict[str, Any], *, tolerance: float | None = None, made: Size | None = SQUARE, n: int = 1) -> Terms:
    """The terms of a call of n images, and what it holds."""
    read, job, fit = Prices.model_validate(prices), make_job(n=n), make_fit(made)
    found = quote(read, job, fit)
    return terms(read, job, fit, held=None if found is None else found.ceiling * n, tolerance=tolerance)


def count(made: int, taken: int = 0, total: int | None = None) -> TokenUsage:
    return TokenUsage(taken, made, taken + made if total is None else total)


@pytest.mark.parametrize(
    ("prices", "job", "made", "is_bound"),
    [
        (OFFICIAL, make_job(), SQUARE, True),
        # An upstream may choose a larger size than the dearest of its default tier.
        (OFFICIAL, make_job(), None, False),
        # The tokens of a reference are an estimate.
        (OFFICIAL, make_job("edit", references=(picture(64, 64),)), SQUARE, False),
        (FLAT, make_job(), SQUARE, False),
        (TIERED, make_job(), SQUARE, False),
        (PIXELS, make_job(), SQUARE, False),
    ],
)
def test_only_token_prices_of_a_promised_size_are_bounds(
    prices: dict[str, Any], job: ImageJob, made: Size | None, is_bound: bool
) -> None:
    """By default a bill is believed up to the held amount where that is an upper bound, else up to half more."""
    read, fit = Prices.model_validate(prices), make_fit(made)
    assert is_upper_bound(read, job, fit) is is_bound
    believed = terms(read, job, fit, held=1000).believed
    assert believed == 1000 * (TOLERANCE_OF_BOUND if is_bound else TOLERANCE_OF_ESTIMATE)
    assert terms(read, job, fit, held=1000, tolerance=2.5).believed == 2500


@pytest.mark.parametrize(
    ("prices", "counts", "charged", "disputed"),
    [
        (OFFICIAL, {"usage": count(MEDIUM)}, MEDIUM * 30, 0),
        # The held amount counts a token for each byte of the prompt, so that the bill has a little room.
        (OFFICIAL, {"usage": count(MEDIUM + 2)}, LISTED, MEDIUM * 30 + 60 - LISTED),
        (OFFICIAL, {"usage": count(10**10)}, LISTED, 30 * 10**10 - LISTED),
        (OFFICIAL, {"usage": count(10**15)}, LISTED, MOST_CLAIMED - LISTED),
        (OFFICIAL, {"usage": count(10**28)}, LISTED, MOST_CLAIMED - LISTED),
        (OFFICIAL, {"usage": count(10**4000)}, LISTED, MOST_CLAIMED - LISTED),
        # Counts that contradict each other, or count no picture, are no bill.
        (OFFICIAL, {"usage": count(10, 10, 10**10)}, LISTED, 0),
        (OFFICIAL, {"usage": count(0)}, LISTED, 0),
        (TIERED, {"charged": Decimal(15)}, 15_000, 0),
        (TIERED, {"charged": Decimal("22.5")}, 22_500, 0),
        (TIERED, {"charged": Decimal("22.501")}, 15_000, 7_501),
        (TIERED, {"charged": Decimal(10**9)}, 15_000, 10**12 - 15_000),
        (TIERED, {"charged": Decimal(10**30)}, 15_000, MOST_CLAIMED - 15_000),
        (FLAT, {"usage": count(10**28), "charged": Decimal(10**30)}, 30_000, 0),
    ],
)
def test_bill_above_the_hold_is_disputed(
    prices: dict[str, Any], counts: dict[str, Any], charged: int, disputed: int
) -> None:
    """A bill above what is believed is charged by the price list, and the rest is disputed."""
    assert bill(hold(prices), [SQUARE], **counts) == Bill(charged, disputed)


def test_larger_picture_than_promised_is_disputed() -> None:
    """A size that the upstream wrote into its picture is a number like any other."""
    assert bill(hold(PIXELS), [Size(1536, 1024)]) == Bill(62_915)
    assert bill(hold(PIXELS), [Size(16_000, 8_000)]) == Bill(41_944, 5_120_000 - 41_944)


def test_tolerance_widens_what_is_believed() -> None:
    """With a higher tolerance the same bill is charged as it came."""
    charged = Decimal(30)
    assert bill(hold(TIERED), [SQUARE], charged=charged) == Bill(15_000, 15_000)
    assert bill(hold(TIERED, tolerance=2), [SQUARE], charged=charged) == Bill(30_000)


def test_unknown_price_is_believed_within_reason() -> None:
    """A call that held nothing is charged by its credits, up to the dearest image there is, and else not at all."""
    unlisted = hold(TIERED, made=Size(3840, 2160))
    assert unlisted.held is None
    most = Decimal(DEAREST_IMAGE) / 1000
    assert bill(unlisted, [Size(3840, 2160)], charged=Decimal(60)) == Bill(60_000)
    assert bill(unlisted, [Size(3840, 2160)], charged=most) == Bill(DEAREST_IMAGE)
    assert bill(unlisted, [Size(3840, 2160)], charged=most + 1) == Bill(None, DEAREST_IMAGE + 1000)


def test_note_of_an_earlier_version_is_billed() -> None:
    """A call that was marked without its held amount is charged as it was."""
    early = Terms(Prices.model_validate(OFFICIAL), "medium")
    assert bill(early, [SQUARE], usage=count(2000)) == Bill(60_000)
    assert bill(early, [SQUARE], usage=count(10**10)) == Bill(MEDIUM * 30, 30 * 10**10 - MEDIUM * 30)


@pytest.mark.parametrize(
    ("prices", "usage", "is_shown"),
    [
        (OFFICIAL, count(MEDIUM), True),
        (OFFICIAL, count(MEDIUM * 2), False),
        (OFFICIAL, count(0), False),
        (OFFICIAL, count(1, 1, 3), False),
        (FLAT, count(MEDIUM * 2), True),
        (FLAT, count(10**16), False),
        (FLAT, TokenUsage(1, 1, 2, 10**28, 1), False),
    ],
)
def test_counts_that_are_not_believed_are_not_shown(prices: dict[str, Any], usage: TokenUsage, is_shown: bool) -> None:
    """A caller gets the upstream's token counts only where they can be true."""
    assert is_believable(hold(prices), usage, 1) is is_shown


counts = st.integers(0, 10**6) | st.integers(0, 10**40)


@given(
    prices=st.sampled_from([OFFICIAL, TIERED, FLAT, PIXELS]),
    tolerance=st.none() | st.floats(1, 10),
    made=st.none() | st.sampled_from([SQUARE, Size(2048, 1152)]),
    n=st.integers(1, 10),
    sizes=st.lists(st.builds(Size, st.integers(1, 30_000), st.integers(1, 30_000)), max_size=10),
    usage=st.none() | st.builds(TokenUsage, counts, counts, counts, st.none() | counts, st.none() | counts),
    charged=st.none() | st.decimals(0, 10**40, allow_nan=False),
    agrees=st.booleans(),
)
def test_charge_stays_within_the_tolerance(
    prices: dict[str, Any],
    tolerance: float | None,
    made: Size | None,
    n: int,
    sizes: list[Size],
    usage: TokenUsage | None,
    charged: Decimal | None,
    agrees: bool,
) -> None:
    """Whatever an upstream counts, a call costs at most its hold times the tolerance, and a disputed one its hold."""
    if usage and agrees:
        usage = TokenUsage(usage.input_tokens, usage.output_tokens, usage.input_tokens + usage.output_tokens)
    known = hold(prices, tolerance=tolerance, made=made, n=n)
    assert known.held is not None
    assert known.believed is not None
    assert known.believed <= known.held * Decimal(str(tolerance or TOLERANCE_OF_ESTIMATE))
    found = bill(known, sizes[:n], usage=usage, charged=charged)
    if found.usd is None:
        return
    assert 0 <= found.usd <= known.believed
    assert 0 <= found.disputed <= MOST_CLAIMED
    assert not found.disputed or found.usd <= known.held
