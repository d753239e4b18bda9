"""What an image costs: each way of charging, before and after it is made."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.catalogue.capabilities import Fit
from gateway.catalogue.pricing import Prices, bill, output_tokens, quote, quote_job, terms, tier_of
from gateway.catalogue.vendors import SEVEN
from gateway.jobs.job import SQUARE, Quality, Sent, Size, TokenUsage, parse_size
from tests.support.plans import make_job, picture

OFFICIAL = {"per_million_tokens": {"text_in": "5", "image_in": "8", "image_out": "30"}}
TIERED = {"by_size": {"any": {"1K": "0.015", "2K": "0.03"}, "high": {"1K": "0.05"}}}

# The published price of one image, in dollars, by size and quality.
PUBLISHED = {
    "1024x1024": (0.0059, 0.0527, 0.2107),
    "1536x1024": (0.0047, 0.0412, 0.1646),
    "2048x2048": (0.0119, 0.1070, 0.4282),
    "3840x2160": (0.0111, 0.1001, 0.4003),
}


def fit(made: Size | None = SQUARE, quality: Quality | None = "medium") -> Fit:
    return Fit(per_call=1, sent=Sent(size=made, quality=quality), made=made, transcode=False)


def read(**fields: Any) -> Prices:
    return Prices.model_validate(fields)


def charge(*terms: Any, **counts: Any) -> int | None:
    """What a call is charged."""
    return bill(*terms, **counts).usd


def tokens(text: int | None, image: int | None, made: int, taken: int) -> TokenUsage:
    return TokenUsage(taken, made, taken + made, text, image)


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("quality", ["low", "medium", "high"])
def test_official_prices_are_met(size: str, quality: Quality) -> None:
    """The token formula gives the published price of every size and quality, to a hundredth of a cent."""
    parsed = parse_size(size)
    assert parsed
    dollars = output_tokens(parsed, quality) * 30 / 1_000_000
    assert round(dollars, 4) == PUBLISHED[size][("low", "medium", "high").index(quality)]


def test_flat_price_ignores_everything() -> None:
    """A price for an image is that, whatever is made."""
    job = make_job("edit", images=3, quality="high")
    found = quote(read(per_image="0.03"), job, fit(Size(3840, 2160), "high"))
    assert found
    assert (found.expected, found.ceiling) == (30_000, 30_000)


def test_references_come_on_top() -> None:
    """A price for references is added for each."""
    found = quote(read(per_image="0.03", per_input_image="0.001"), make_job("edit", images=3), fit())
    assert found
    assert found.expected == 33_000


@pytest.mark.parametrize(
    ("size", "quality", "micro"),
    [
        (Size(1536, 1024), "low", 15_000),
        (Size(1536, 1024), "high", 50_000),
        (Size(2048, 1152), "high", 30_000),
        (Size(3840, 2160), "low", None),
    ],
)
def test_table_is_read_by_tier(size: Size, quality: Quality, micro: int | None) -> None:
    """A table is read at the quality, else at `any`; what it does not hold is unknown."""
    found = quote(read(**TIERED), make_job(), fit(size, quality))
    assert (found and found.expected) == micro


@pytest.mark.parametrize(
    ("size", "tier"),
    [
        (Size(1024, 1024), "1K"),
        (Size(1536, 1024), "1K"),
        (Size(1536, 1536), "2K"),
        (Size(2048, 704), "2K"),
        (Size(2048, 2048), "2K"),
        (Size(2160, 3840), "4K"),
        (Size(2560, 1024), "4K"),
        (Size(2880, 2880), "4K"),
    ],
)
def test_tier_holds_edge_and_pixels(size: Size, tier: str) -> None:
    """A size belongs to the least tier that holds its long edge and its pixels."""
    assert tier_of(size) == tier


def test_pixels_are_charged_exactly() -> None:
    """A price by the megapixel is for the pixels made, rounded once, half to even."""
    prices = read(per_megapixel={"any": "0.04"})
    assert charge(terms(prices, make_job(), fit()), [Size(1024, 1024)]) == 41_943
    assert charge(terms(prices, make_job(), fit()), [Size(1024, 1024)] * 2) == 83_886


def test_hold_bounds_the_token_bill() -> None:
    """What is held is at least what any count of tokens for that prompt can come to."""
    job = make_job(prompt="ж" * 100)
    found = quote(read(**OFFICIAL), job, fit())
    assert found
    assert found.expected == 25 * 5 + 1756 * 30
    assert found.ceiling == 200 * 5 + 1756 * 30


def test_untold_quality_is_held_as_high() -> None:
    """Where an upstream takes no quality, medium is expected and high is held."""
    found = quote(read(**OFFICIAL), make_job("edit"), fit(quality=None))
    assert found
    assert (found.ceiling - found.expected) > 1_000_000 * 0.15


def test_untold_size_is_held_as_the_dearest() -> None:
    """Where an upstream chooses the size, the dearest of its default tier is held."""
    found = quote(read(per_megapixel={"any": "1"}), make_job(), fit(made=None))
    assert found
    assert found.ceiling == 1536 * 1024


def test_usage_is_the_bill() -> None:
    """Counted tokens are charged as counted, the prompt's and the references' at their own rates."""
    prices = read(**OFFICIAL)
    assert charge(terms(prices, make_job(), fit()), [SQUARE], usage=tokens(10, 100, 1000, 110)) == 50 + 800 + 30_000
    assert charge(terms(prices, make_job(), fit()), [SQUARE], usage=tokens(None, None, 1000, 110)) == 880 + 30_000


def test_missing_usage_is_estimated() -> None:
    """Without a count the formula stands, references counted once for the call."""
    job = make_job("edit", references=(picture(1024, 1024),))
    assert charge(terms(read(**OFFICIAL), job, fit()), [SQUARE] * 2) == 2 * 1756 * 30 + 1024 * 8 + 2 * 5


def test_credits_are_the_bill() -> None:
    """An upstream's own credits are charged at what they cost, and ignored where that is not configured."""
    priced = read(per_image="0.03", per_thousand_credits="1.00")
    assert charge(terms(priced, make_job(), fit()), [SQUARE], charged=Decimal("12.5")) == 12_500
    assert charge(terms(read(per_image="0.03"), make_job(), fit()), [SQUARE], charged=Decimal(12)) == 30_000


def test_fewer_images_cost_less() -> None:
    """A bill is for the images that came."""
    assert charge(terms(read(per_image="0.03"), make_job(n=3), fit()), [SQUARE] * 2) == 60_000
    assert charge(terms(read(per_image="0.03"), make_job(n=3), fit()), []) == 0


def test_unknown_prices_stay_unknown() -> None:
    """Where nothing is configured there is no price, not a zero."""
    assert quote(None, make_job(), fit()) is None
    assert charge(terms(None, make_job(), fit()), [SQUARE]) is None
    assert charge(terms(read(**TIERED), make_job(), fit(quality="low")), [Size(3840, 2160)]) is None


@given(
    st.sampled_from(SEVEN.made),
    st.sampled_from(["low", "medium", "high"]),
    st.integers(1, 10),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
    st.sampled_from([OFFICIAL, TIERED, {"per_image": "0.03"}, {"per_megapixel": {"any": "0.0401"}}]),
)
def test_bill_never_passes_the_hold(size: Size, quality: Quality, n: int, prompt: str, prices: dict[str, Any]) -> None:
    """Without surprises from the upstream, a call of n images costs at most n times what was held for one."""
    job, fitted, read_prices = make_job(prompt=prompt, n=n), fit(size, quality), read(**prices)
    found = quote(read_prices, job, fitted)
    cost = charge(terms(read_prices, job, fitted), [size] * n)
    assert (found is None) == (cost is None)
    if found and cost is not None:
        assert cost <= n * found.ceiling
        assert found.expected <= found.ceiling


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "exactly one of"),
        ({"per_image": "0.1", "per_megapixel": {"any": "1"}}, "per_image and per_megapixel"),
        ({"per_image": 0.03}, "in quotes"),
        ({"per_image": "free"}, "pattern"),
        ({"per_image": "-1"}, "pattern"),
        ({**OFFICIAL, "per_input_image": "1"}, "already"),
        ({"by_size": {"any": {"8K": "1"}}}, "1K"),
        ({"by_size": {"best": {"1K": "1"}}}, "low"),
    ],
)
def test_wrong_prices_are_refused(fields: dict[str, Any], said: str) -> None:
    """Prices that cannot be read say what would be right."""
    with pytest.raises(ValidationError, match=said):
        read(**fields)


WAYS = [OFFICIAL, {"per_image": "0.03", "per_input_image": "0.001"}, TIERED, {"per_megapixel": {"any": "0.0417"}}]


@given(
    prices=st.sampled_from(WAYS),
    n=st.integers(1, 10),
    per_call=st.integers(1, 10),
    images=st.integers(1, 3),
    made=st.sampled_from([Size(1024, 1024), Size(1536, 1024), Size(2048, 1152)]),
    quality=st.sampled_from(["low", "medium", "high"]),
    prompt=st.text(min_size=1, max_size=40),
)
def test_job_costs_what_its_calls_are_billed(
    prices: dict[str, Any], n: int, per_call: int, images: int, made: Size, quality: Quality, prompt: str
) -> None:
    """The price of a job is the sum of the bills of its calls, to the µ$, if they make what was promised."""
    job = make_job("edit", images=images, n=n, prompt=prompt)
    promised = replace(fit(made, quality), per_call=per_call)
    found = quote_job(read(**prices), job, promised)
    bills = [
        charge(terms(read(**prices), job, promised), [made] * count)
        for count in [per_call] * (n // per_call) + [n % per_call] * (n % per_call > 0)
    ]
    assert found
    assert found.expected == sum(one or 0 for one in bills)
    assert found.ceiling >= found.expected


def test_references_cost_once_a_call() -> None:
    """Four images in one call take the references once, in four calls four times."""
    prices, job = read(per_image="0.03", per_input_image="0.001"), make_job("edit", images=3, n=4)
    together, apart = quote_job(prices, job, replace(fit(), per_call=10)), quote_job(prices, job, fit())
    assert together
    assert apart
    assert (together.expected, apart.expected) == (123_000, 132_000)


def test_job_without_a_price_has_none() -> None:
    """What one image would cost is not known, so neither is the job's price."""
    assert quote_job(None, make_job(), fit()) is None
    assert quote_job(read(**TIERED), make_job(n=2), fit(Size(3840, 2160))) is None


def test_most_a_job_costs_bounds_untold_quality() -> None:
    """Where no quality is sent, each image of the job may come out as high, and the prompt as a token a byte."""
    job = make_job("edit", n=2, prompt="ж" * 100)
    found = quote_job(read(**OFFICIAL), job, fit(quality=None))
    assert found
    given = 1024 * 8
    assert found.expected == 2 * (output_tokens(SQUARE, "medium") * 30 + given + 25 * 5)
    assert found.ceiling == 2 * (output_tokens(SQUARE, "high") * 30 + given + 200 * 5)
