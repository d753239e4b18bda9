"""The price of an image at an upstream, before it is made and after, in µ$. Pure functions over the catalogue's prices.

An amount that no price covers is None, never a guess. The token formula is OpenAI's published one. A bill above a
given multiple of the held amount is not believed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.catalogue.capabilities import Fit
from gateway.dollars import parse_usd
from gateway.jobs.job import TIERS, ImageJob, Quality, Size, TokenUsage

MILLION = 1_000_000

_ONE = Decimal(1)
_EDGES = {"low": 16, "medium": 48, "high": 96}
_TIER_PIXELS = {"1K": 1536 * 1024, "2K": 2048 * 2048}
"""The most pixels of a tier; a larger image is in 4K."""

_CHOSEN_SIZES = (Size(1024, 1024), Size(1536, 1024))
"""Sizes that an upstream may make where it chooses the size; the prices decide which one costs more."""

_WAYS = ("per_image", "by_size", "per_megapixel", "per_million_tokens")


def _refuse_number(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError('write dollars in quotes, such as "0.03"; a bare number would be rounded')
    return value


Dollars = Annotated[str, BeforeValidator(_refuse_number), Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?$")]
Tier = Literal["1K", "2K", "4K"]
Grade = Literal["low", "medium", "high", "any"]


class TokenPrices(BaseModel):
    """Dollars for a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    text_in: Dollars = Field(description="Of the prompt.")
    image_in: Dollars = Field(description="Of reference images.")
    image_out: Dollars = Field(description="Of the images made.")


class Prices(BaseModel):
    """Prices of an upstream or a credential in dollars: exactly one of the first four, and additions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    per_image: Dollars | None = Field(None, description="For any size and quality.")
    by_size: dict[Grade, dict[Tier, Dollars]] | None = Field(
        None, description="By quality (`any`: every other quality) and resolution tier. A missing price is unknown."
    )
    per_megapixel: dict[Grade, Dollars] | None = Field(None, description="For a million pixels made, by quality.")
    per_million_tokens: TokenPrices | None = Field(None, description="As OpenAI charges.")
    per_input_image: Dollars | None = Field(None, description="In addition, for each reference of an edit.")
    per_thousand_credits: Dollars | None = Field(
        None,
        description="The price of the upstream's own credits. Where its answer reports credits, they are the bill.",
    )

    @model_validator(mode="after")
    def _is_one_way(self) -> Prices:
        given = [way for way in _WAYS if getattr(self, way) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of {', '.join(_WAYS)}; there is {found}")
        if self.per_million_tokens is not None and self.per_input_image is not None:
            raise ValueError("per_input_image is part of per_million_tokens.image_in already")
        return self


@dataclass(frozen=True, slots=True)
class Quote:
    """The cost of an image or of a job at one target in µ$: expected, and the highest by its prices (`ceiling`)."""

    expected: int
    ceiling: int


def quote(prices: Prices | None, job: ImageJob, fit: Fit) -> Quote | None:
    """The price of one image of this job, with the whole prompt and all references; None where it is unknown."""
    found = quote_both(prices, job, fit)
    return found and found[0]


def quote_job(prices: Prices | None, job: ImageJob, fit: Fit) -> Quote | None:
    """Return the price of the whole job: the sum over its calls. None if a price is unknown.

    Each call costs the price of its images, and once that of the prompt and the references.
    """
    found = quote_both(prices, job, fit)
    return found and found[1]


def quote_both(prices: Prices | None, job: ImageJob, fit: Fit) -> tuple[Quote, Quote] | None:
    """Return the prices that `quote` and `quote_job` return; None where they are unknown."""
    making = None if prices is None else _quote_making(prices, fit)
    if prices is None or making is None:
        return None
    expected, most = making
    given = most_given = _take(prices, job, text_tokens(job.prompt))
    if prices.per_million_tokens is not None:
        most_given = _take(prices, job, _most_text(job))
    image = Quote(_round(expected + given), _round(most + most_given, up=True))
    if job.n == 1:
        return image, image
    calls = count_calls(job.n, fit.per_call)
    whole = Quote(
        expected=sum(_round(expected * images + given) for images in calls),
        ceiling=sum(_round(most * images + most_given, up=True) for images in calls),
    )
    return image, whole


def count_calls(n: int, per_call: int) -> list[int]:
    """The numbers of images of the calls of a job of `n` images, with `per_call` or fewer in each."""
    return [min(per_call, n - start) for start in range(0, n, per_call)]


def _quote_making(prices: Prices, fit: Fit) -> tuple[Decimal, Decimal] | None:
    """The expected and the highest cost of making one image, in µ$; None where the prices do not cover it."""
    sizes = (fit.made,) if fit.made else _CHOSEN_SIZES
    expected = _make_dearest(prices, sizes, fit.sent.quality or "medium")
    # An upstream that takes no quality documents medium as its default, and does not promise it.
    most = expected if fit.sent.quality else _make_dearest(prices, sizes, "high")
    return None if expected is None or most is None else (expected, max(expected, most))


def _make_dearest(prices: Prices, sizes: Sequence[Size], quality: Quality) -> Decimal | None:
    """The highest cost of one image of one of these sizes, in µ$; None where the prices do not cover them all."""
    costs = [cost for size in sizes if (cost := _make(prices, size, quality)) is not None]
    return max(costs) if len(costs) == len(sizes) else None


def _most_text(job: ImageJob) -> int:
    # No tokenizer makes more tokens than the text has bytes.
    return len(job.prompt.encode())


TOLERANCE_OF_BOUND = 1.0
"""The default `accounting.bill_tolerance` where the held amount is an upper bound of the bill."""

TOLERANCE_OF_ESTIMATE = 1.5
"""The default `accounting.bill_tolerance` where the held amount is an estimate."""

DEAREST_IMAGE = 10 * MILLION
"""µ$ for each image of a call of unknown price: a bill above this, and above the price list, is not believed."""

MOST_CLAIMED = 10**15
"""The most µ$, tokens or credits of a bill that are counted; a larger number is read as this."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms by which a call that brought pictures is billed. `given` is the µ$ of its prompt and references.

    `held` is the µ$ that the call holds in the ledger, and `believed` the highest bill in µ$ that is believed. Both are
    None where no price was known.
    """

    prices: Prices | None
    quality: Quality | None
    given: Decimal = Decimal(0)
    held: int | None = None
    believed: int | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """The cost of one call. `usd` is the charged amount in µ$, None where it is unknown.

    `disputed` is 0 for a believed bill. Else it is the upstream's bill, at most MOST_CLAIMED, less the charged µ$.
    """

    usd: int | None
    disputed: int = 0


def terms(
    prices: Prices | None, job: ImageJob, fit: Fit, *, held: int | None = None, tolerance: float | None = None
) -> Terms:
    """The terms of a call of this job that holds `held` µ$, None if unknown.

    `tolerance` is the factor up to which a bill is believed; None is the default of its kind of price.
    """
    given = Decimal(0) if prices is None else _take(prices, job, text_tokens(job.prompt))
    if held is None or prices is None:
        return Terms(prices, fit.sent.quality, given)
    if tolerance is None:
        tolerance = TOLERANCE_OF_BOUND if is_upper_bound(prices, job, fit) else TOLERANCE_OF_ESTIMATE
    return Terms(prices, fit.sent.quality, given, held, int(held * Decimal(str(tolerance))))


def is_upper_bound(prices: Prices, job: ImageJob, fit: Fit) -> bool:
    """True when no honest bill is above the held price: by tokens, for a promised size, without references.

    The tokens of a reference are an estimate, and an upstream may choose a larger size than expected. A price list does
    not bound a bill in credits or for another size than promised.
    """
    return prices.per_million_tokens is not None and fit.made is not None and not job.references


def bill(
    terms: Terms, made: Sequence[Size], *, usage: TokenUsage | None = None, charged: Decimal | None = None
) -> Bill:
    """The cost of one call that brought images of the sizes `made`: the upstream's own count, else the price list's.

    `charged` is the upstream's count in its credits. For a count above the believed bill, the charge is the
    price list's amount, at most the held amount, and the rest is disputed.
    """
    listed = _list(terms, made)
    claimed = _read_claim(terms.prices, usage, charged)
    if claimed is None:
        claimed = listed
    if claimed is None or claimed <= _find_believed(terms, len(made), listed):
        return Bill(claimed)
    known = [amount for amount in (listed, terms.held) if amount is not None]
    usd = min(known) if known else None
    return Bill(usd, min(claimed, MOST_CLAIMED) - (usd or 0))


def is_believable(terms: Terms, usage: TokenUsage, images: int) -> bool:
    """True when the token counts of a call with `images` images agree with each other, and their bill is believed."""
    counts = (usage.input_tokens, usage.output_tokens, usage.text_tokens or 0, usage.image_tokens or 0)
    if not usage.is_consistent or max(counts) > MOST_CLAIMED:
        return False
    claimed = _read_claim(terms.prices, usage, None)
    return claimed is None or claimed <= _find_believed(terms, images, None)


def _read_claim(prices: Prices | None, usage: TokenUsage | None, charged: Decimal | None) -> int | None:
    """The µ$ of the upstream's own credits or tokens; None where it counted none that these prices cover."""
    if prices is None:
        return None
    if charged is not None and prices.per_thousand_credits is not None:
        return _round(min(charged, Decimal(MOST_CLAIMED)) * parse_usd(prices.per_thousand_credits) / 1000)
    if usage is not None and usage.is_consistent and prices.per_million_tokens is not None:
        return _round(_count_tokens(prices.per_million_tokens, usage))
    return None


def _find_believed(terms: Terms, images: int, listed: int | None) -> int:
    """The highest believed bill in µ$. A call of unknown price, or of an older version, has none in its terms."""
    if terms.believed is not None:
        return terms.believed
    return max(DEAREST_IMAGE * max(images, 1), listed or 0)


def _list(terms: Terms, made: Sequence[Size]) -> int | None:
    """The µ$ of a call's input and of pictures of these sizes in the price list; None where it does not cover them."""
    if terms.prices is None:
        return None
    parts = [_make(terms.prices, size, terms.quality or "medium") for size in made]
    known = [part for part in parts if part is not None]
    return _round(sum(known, terms.given)) if len(known) == len(parts) else None


def tier_of(size: Size) -> Tier:
    """The resolution tier of a size: the smallest that holds both its long edge and its pixels."""
    long = max(size.width, size.height)
    for tier in ("1K", "2K"):
        if long <= TIERS[tier] and size.pixels <= _TIER_PIXELS[tier]:
            return tier
    return "4K"


def output_tokens(size: Size, quality: Quality) -> int:
    """The tokens of one image, by OpenAI's published formula for gpt-image-2."""
    edge = _EDGES[quality]
    short = round(edge * min(size.width, size.height) / max(size.width, size.height))
    return math.ceil(edge * short * (2 * MILLION + size.pixels) / (4 * MILLION))


def input_tokens(size: Size) -> int:
    """The estimated tokens of one reference: its tiles of 32x32 pixels, small ones enlarged to 1024; at most 1,536."""
    scale = max(1.0, 1024 / max(size.width, size.height))
    return min(math.ceil(size.width * scale / 32) * math.ceil(size.height * scale / 32), 1536)


def text_tokens(prompt: str) -> int:
    """The estimated tokens of a prompt: a quarter of its characters, rounded up; at least 1."""
    return max(1, math.ceil(len(prompt) / 4))


def _make(prices: Prices, size: Size, quality: Quality) -> Decimal | None:
    """µ$ for one image, without prompt and references; None where the prices do not cover it."""
    if prices.per_image is not None:
        return Decimal(parse_usd(prices.per_image))
    if prices.by_size is not None:
        tier = tier_of(size)
        told = prices.by_size.get(quality, {}).get(tier) or prices.by_size.get("any", {}).get(tier)
        return Decimal(parse_usd(told)) if told else None
    if prices.per_megapixel is not None:
        rate = prices.per_megapixel.get(quality) or prices.per_megapixel.get("any")
        return Decimal(parse_usd(rate)) * size.pixels / MILLION if rate else None
    assert prices.per_million_tokens is not None
    return Decimal(parse_usd(prices.per_million_tokens.image_out)) * output_tokens(size, quality) / MILLION


def _take(prices: Prices, job: ImageJob, text: int) -> Decimal:
    """µ$ for a call's input: `text` tokens of prompt, and the references."""
    if prices.per_million_tokens is None:
        each = parse_usd(prices.per_input_image) if prices.per_input_image else 0
        return Decimal(each * len(job.references))
    pictures = sum(input_tokens(Size(one.width, one.height)) for one in job.references)
    rates = prices.per_million_tokens
    return Decimal(parse_usd(rates.text_in) * text + parse_usd(rates.image_in) * pictures) / MILLION


def _count_tokens(rates: TokenPrices, usage: TokenUsage) -> Decimal:
    text, image = usage.text_tokens, usage.image_tokens
    if text is None or image is None or text + image != usage.input_tokens:
        # Without separate counts, all input tokens are charged at the image price, which is higher.
        text, image = 0, usage.input_tokens
    rows = ((rates.text_in, text), (rates.image_in, image), (rates.image_out, usage.output_tokens))
    return Decimal(sum(parse_usd(rate) * min(count, MOST_CLAIMED) for rate, count in rows)) / MILLION


def _round(micro: Decimal, *, up: bool = False) -> int:
    """Whole µ$: half to even, or up for an upper bound. Each booked amount is rounded once."""
    return int(micro.quantize(_ONE, ROUND_CEILING if up else ROUND_HALF_EVEN))
