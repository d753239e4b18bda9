"""The facts of each vendor, one row a kind: abilities, fields of its own, and its part in simulator and probe.

The source is the vendors' documentation, as `docs/upstreams.md` quotes it. `upstreams/KIND.py` holds the dialect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.catalogue.capabilities import Profile, SnappedSizes
from gateway.catalogue.pricing import Prices
from gateway.jobs.job import Operation, Size


@dataclass(frozen=True, slots=True)
class Offer:
    """The facts of some of a vendor's credentials: those whose upstream model matches `models`, in `group`.

    `models` is a regular expression for the whole name; a `group` of None is any. `simulator_key` opens the simulator,
    where `example_prices` replace missing prices. `questions` has the names of a probe's questions, free ones first.
    """

    profile: Profile
    simulator_key: str
    example_prices: Prices
    questions: tuple[str, ...]
    models: str = ".*"
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Vendor:
    """One kind of upstream. The first of `offers` that fits a credential holds; the last one fits every credential.

    `options` has the capabilities that an operator may switch on for this kind alone. `masks_take_quality` is True when
    a masked edit has `quality` wherever an edit has it, `tells_balance` when a free call returns the credits left.
    """

    kind: str
    offers: tuple[Offer, ...]
    options: frozenset[Literal["transparent", "pass_user"]] = frozenset()
    masks_take_quality: bool = True
    tells_balance: bool = False


THREE = (Size(1024, 1024), Size(1536, 1024), Size(1024, 1536))
"""The sizes that every GPT image model of OpenAI makes (its published specification)."""

SEVEN = SnappedSizes(
    made=(*THREE, Size(2048, 2048), Size(2048, 1152), Size(3840, 2160), Size(2160, 3840)),
    ratios=frozenset(
        {"1:1", "1:2", "2:1", "1:3", "3:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "9:21"}
    ),
)
"""The sizes that apiany makes, and the ratios that it takes by name (its public documentation).

It documents 1280x720 -> 1536x1024, 1920x1080 -> 2048x1152 and 1440x2560 -> 2160x3840, which is the nearest each time.
"""

_OPENAI_PRICES = Prices.model_validate({"per_million_tokens": {"text_in": "5", "image_in": "8", "image_out": "30"}})

_MODERATION: frozenset[tuple[str, Operation]] = frozenset({("moderation", "generation")})

_ONE_A_CALL = Profile(without_masks="its key is not in the Direct group, which masks need", passes=_MODERATION)
"""Anyfast's documentation has no `n` for its cheaper variant, and masks in its Direct group alone."""

_DIRECT = _ONE_A_CALL.change(masked_references=16)

_GPT_IMAGE = Profile(
    max_n=10,
    sizes=THREE,
    takes_auto_size=True,
    formats=("png", "jpeg", "webp"),
    masked_references=16,
    masked_n=10,
    mask_bytes=4_000_000,
    masked_quality=True,
    edit_quality=True,
    # The form of an edit has no such field. Its JSON sibling, which takes no files, has one.
    passes=_MODERATION,
    backgrounds=("opaque",),
)

_SYNCHRONOUS = ("models", "plain", "n", "webp", "edit-quality", "mask")
_VARIANT = ("models", "plain", "n", "webp", "edit-form", "edit-quality", "mask")

_FLAT = Prices(per_image="0.03")
"""An example: no price list of a vendor is behind it."""

_ROWS = (
    Vendor(
        kind="anyfast",
        offers=(
            Offer(_DIRECT, "sim-c", _FLAT, _VARIANT, models=".*-c", group="direct"),
            Offer(_DIRECT.change(max_n=10, masked_n=10), "sim-direct", _OPENAI_PRICES, _SYNCHRONOUS, group="direct"),
            Offer(_ONE_A_CALL, "sim-basic", _FLAT, _VARIANT, models=".*-c"),
            Offer(_ONE_A_CALL, "sim-basic", _OPENAI_PRICES, _SYNCHRONOUS),
        ),
    ),
    Vendor(
        kind="apiany",
        offers=(
            Offer(
                Profile(
                    max_n=10,
                    sizes=SEVEN,
                    takes_auto_size=True,
                    takes_format=False,
                    masked_references=1,
                    edit_quality=True,
                ),
                "sim-apiany",
                Prices(by_size={"any": {"1K": "0.015", "2K": "0.03", "4K": "0.06"}}, per_thousand_credits="1.00"),
                ("models", "balance", "price", "n", "edit-quality", "mask", "snapping", "tall"),
            ),
        ),
        # Its endpoint for masked edits has no such field.
        masks_take_quality=False,
        tells_balance=True,
    ),
    Vendor(
        kind="openai",
        offers=(
            # Only gpt-image-2 is documented to make any size; the catalogue may say it of another model.
            Offer(
                _GPT_IMAGE.change(sizes="exact"), "sim-openai", _OPENAI_PRICES, _SYNCHRONOUS, models="gpt-image-2[^/]*"
            ),
            Offer(_GPT_IMAGE, "sim-openai", _OPENAI_PRICES, _SYNCHRONOUS, models="gpt-image-.*"),
            # An endpoint that only resembles OpenAI's has models of its own.
            Offer(
                _GPT_IMAGE.change(sizes="exact"),
                "sim-compatible",
                _OPENAI_PRICES,
                _SYNCHRONOUS,
                models=".*/gpt-image-2[^/]*",
            ),
            Offer(_GPT_IMAGE, "sim-compatible", _OPENAI_PRICES, _SYNCHRONOUS),
        ),
        options=frozenset({"transparent", "pass_user"}),
    ),
)

VENDORS: Mapping[str, Vendor] = {vendor.kind: vendor for vendor in _ROWS}


def find_offer(kind: str, model: str, group: str) -> Offer:
    """The first offer that fits a credential: of `kind`, for the upstream's own `model`, in the vendor's `group`."""
    return next(
        offer
        for offer in VENDORS[kind].offers
        if offer.group in (None, group) and re.fullmatch(offer.models, model, re.DOTALL)
    )


def name_takers(option: str) -> str:
    """The kinds of upstream that take an option, in backticks with commas between them."""
    return ", ".join(f"`{vendor.kind}`" for vendor in VENDORS.values() if option in vendor.options)
