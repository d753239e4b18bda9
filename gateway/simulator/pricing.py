"""The price of a submission and its `usage`, by the official token formula or a flat price."""

import math
from decimal import Decimal

from gateway.simulator.config import Prices
from gateway.simulator.sizes import Size, tier

_BASE = {"low": 16, "medium": 48, "high": 96}


def output_tokens(size: Size, quality: str) -> int:
    """The published formula for one gpt-image-2 picture."""
    base = _BASE[quality]
    short = round(base * min(size) / max(size))
    return math.ceil(base * short * (2_000_000 + size[0] * size[1]) / 4_000_000)


def input_image_tokens(size: Size) -> int:
    """The estimated tokens of an input picture: 32-pixel tiles with a long edge of at least 1024."""
    scale = max(1.0, 1024 / max(size))
    return min(math.ceil(size[0] * scale / 32) * math.ceil(size[1] * scale / 32), 1536)


def text_tokens(prompt: str) -> int:
    return max(1, math.ceil(len(prompt) / 4))


def usage(prompt: str, inputs: list[Size], size: Size, quality: str, n: int) -> dict[str, object]:
    """The `usage` object of a gpt-image-2 answer."""
    text = text_tokens(prompt)
    image = sum(input_image_tokens(one) for one in inputs)
    made = n * output_tokens(size, quality)
    return {
        "input_tokens": text + image,
        "output_tokens": made,
        "total_tokens": text + image + made,
        "input_tokens_details": {"text_tokens": text, "image_tokens": image},
    }


def token_price(prices: Prices, prompt: str, inputs: list[Size], size: Size, quality: str, n: int) -> Decimal:
    """Dollars for a gpt-image-2 submission of n pictures."""
    return (
        text_tokens(prompt) * prices.text_token
        + sum(input_image_tokens(one) for one in inputs) * prices.image_input_token
        + n * output_tokens(size, quality) * prices.image_output_token
    )


def tier_price(prices: Prices, size: Size, n: int) -> Decimal:
    """Dollars for an apiany submission of n pictures of a snapped size."""
    return n * prices.apiany_image[tier(size)]
