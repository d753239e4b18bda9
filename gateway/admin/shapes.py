"""The forms that the admin API's answers share: dollars, lists, errors. Used by every module of `gateway.admin`."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from gateway.dollars import parse_usd, show_usd
from gateway.errors import PublicError
from gateway.history.export import show_time

Row = TypeVar("Row")

_MOST_ROWS = 500


def _read_usd(value: object) -> int:
    if not isinstance(value, str):
        # A float cannot hold every micro-dollar.
        raise ValueError('dollars are written as a text, as in "1.50"')
    if len(value) > 20:
        raise ValueError("too long for an amount in dollars")
    return parse_usd(value)


_SCHEMA = {"type": "string", "pattern": r"^-?[0-9]{1,10}(\.[0-9]{1,6})?$", "examples": ["1.500000"]}

GivenUsd = Annotated[int, BeforeValidator(_read_usd), WithJsonSchema(_SCHEMA)]
"""Dollars as an operator writes them; µ$ inside."""

Usd = Annotated[int, PlainSerializer(show_usd, return_type=str), WithJsonSchema(_SCHEMA)]
"""µ$ that leave as dollars with six digits."""


Instant = Annotated[
    int, PlainSerializer(show_time, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""µs that leave as ISO 8601."""


class AnswerModel(BaseModel):
    """What an admin route answers."""

    model_config = ConfigDict(frozen=True)


class QueryModel(BaseModel):
    """What an admin route is sent. A field that nobody knows is refused: a misspelt limit would be none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Listing(AnswerModel, Generic[Row]):
    """A page of a list; the next one begins after `next`."""

    object: Literal["list"] = "list"
    data: list[Row]
    has_more: bool = False
    next: str | None = Field(None, description="Send it as `after` for the next page.")


class Gone(AnswerModel):
    """What was deleted."""

    id: str
    deleted: Literal[True] = True


class ErrorFacts(AnswerModel):
    """One error, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(AnswerModel):
    """Every refusal has this form."""

    error: ErrorFacts


# Of queries, where everything is text.
Most = Annotated[int, Field(ge=1, le=_MOST_ROWS, description="Rows of one page.")]
After = Annotated[str | None, Field(max_length=200, description="`next` of the page before.")]
Text = Annotated[str | None, Field(max_length=200)]


def page(rows: list[Row], most: int, after: str | None, name: str) -> Listing[Row]:
    """The rows that follow `after`; `rows` are in the order of their attribute `name`."""
    rest = rows if after is None else [row for row in rows if str(getattr(row, name)) > after]
    has_more = len(rest) > most
    return Listing[Any](data=rest[:most], has_more=has_more, next=getattr(rest[most - 1], name) if has_more else None)


def refusals(*kinds: type[PublicError]) -> dict[int | str, dict[str, Any]]:
    """What a route's own refusals are, for its documentation."""
    told: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        line = f"`{kind.code}`: {kind.meaning}"
        before = told.get(kind.status, {}).get("description")
        told[kind.status] = {"model": ErrorAnswer, "description": f"{before} {line}" if before else line}
    return told
