"""Prices are the published ones, to the micro-dollar."""

from decimal import Decimal

import pytest

from gateway.simulator.config import Prices
from gateway.simulator.pricing import output_tokens, token_price, usage


@pytest.mark.parametrize(
    ("size", "low", "medium", "high"),
    [
        ((1024, 1024), "0.0059", "0.0527", "0.2107"),
        ((1536, 1024), "0.0047", "0.0412", "0.1646"),
        ((2048, 2048), "0.0119", "0.1070", "0.4282"),
        ((3840, 2160), "0.0111", "0.1001", "0.4003"),
    ],
)
def test_published_prices_met(size, low, medium, high):
    """The formula gives the published price of every size and quality."""
    for quality, published in (("low", low), ("medium", medium), ("high", high)):
        price = output_tokens(size, quality) * Prices().image_output_token
        assert round(price, 4) == Decimal(published)


def test_price_agrees_with_usage():
    """What the book says is what the answer's usage comes to."""
    prices = Prices()
    told = usage("a lighthouse", [(64, 48)], (1024, 1024), "low", 2)
    details = told["input_tokens_details"]
    price = (
        details["text_tokens"] * prices.text_token
        + details["image_tokens"] * prices.image_input_token
        + told["output_tokens"] * prices.image_output_token
    )
    assert token_price(prices, "a lighthouse", [(64, 48)], (1024, 1024), "low", 2) == price
    assert told["total_tokens"] == told["input_tokens"] + told["output_tokens"]
