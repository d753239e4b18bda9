"""Types that several routes share: fields of queries, paths and bodies, and the shape of an error."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, WithJsonSchema

from gateway.callers.key_record import Label
from gateway.dollars import parse_usd
from gateway.errors import PublicError
from gateway.operations.answers import USD_SCHEMA, AnswerModel
from gateway.operations.time_spans import FORMS

_MOST_ROWS = 500
_MOST_COUNT = 10**12
_MOST_RATE = 60_000_000


def _read_usd(value: object) -> int:
    if not isinstance(value, str):
        # A float cannot hold every micro-dollar.
        raise ValueError('dollars are written as a text, as in "1.50"')
    if len(value) > 20:
        raise ValueError("too long for an amount in dollars")
    return parse_usd(value)


GivenUsd = Annotated[int, BeforeValidator(_read_usd), WithJsonSchema(USD_SCHEMA)]
"""Dollars as an operator writes them, as a text; µ$ in memory."""

DollarAmount = Annotated[GivenUsd, Field(ge=0)]
Count = Annotated[StrictInt, Field(ge=0, le=_MOST_COUNT)]
# A rate of 0 a minute would never allow anything again; to stop a key, disable it.
RateValue = Annotated[StrictInt, Field(ge=1, le=_MOST_RATE)]

# Of queries, where everything is text.
Most = Annotated[int, Field(ge=1, le=_MOST_ROWS, description="Rows of one page.")]
After = Annotated[str | None, Field(max_length=200, description="`next` of the page before.")]
Text = Annotated[str | None, Field(max_length=200)]
KeyIdOrName = Annotated[str | None, Field(max_length=200, description="A key's id, or its name.")]
Since = Annotated[str | None, Field(max_length=40, description=f"The beginning: {FORMS}.")]
Until = Annotated[str | None, Field(max_length=40, description=f"The end, not included: {FORMS}. Null: now.")]

TeamName = Annotated[Label, Path(description="The name of a team.")]
UpstreamName = Annotated[str, Path(max_length=100, description="The upstream's name in the catalogue.")]
KeyId = Annotated[str, Path(max_length=64, description="Such as `key_01k…`.")]


class QueryModel(BaseModel):
    """A query or a body. An unknown field is refused: a misspelt limit would be none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NewLimits(QueryModel):
    """The limits of a scope from now on. A field that is absent or null is no limit."""

    usd_total: DollarAmount | None = None
    usd_month: DollarAmount | None = None
    usd_week: DollarAmount | None = None
    usd_day: DollarAmount | None = None
    images_month: Count | None = None
    images_day: Count | None = None
    concurrent_requests: Count | None = None
    requests_minute: RateValue | None = None
    images_minute: RateValue | None = None


class ErrorFacts(AnswerModel):
    """One error, with the fields of OpenAI's errors."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(AnswerModel):
    """The form of every error."""

    error: ErrorFacts


KINDS = "x-kinds"
"""The field of a route's answer that holds the names of its errors, until the document is made."""


def refusals(*kinds: type[PublicError]) -> dict[int | str, dict[str, Any]]:
    """A route's own errors, as the `responses` of its documentation."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        before = described.get(kind.status, {}).get(KINDS, [])
        described[kind.status] = {"description": kind.meaning, KINDS: [*before, kind.__name__]}
    return described
