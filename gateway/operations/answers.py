"""Types that operators' answers share: dollars, instants, lists with pages, deletions."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from gateway.dollars import show_usd
from gateway.history.export import show_time

Row = TypeVar("Row")

USD_SCHEMA = {"type": "string", "pattern": r"^-?[0-9]{1,10}(\.[0-9]{1,6})?$", "examples": ["1.500000"]}

Usd = Annotated[int, PlainSerializer(show_usd, return_type=str), WithJsonSchema(USD_SCHEMA)]
"""µ$ in memory; in JSON a text of dollars with six digits after the point."""

Instant = Annotated[
    int, PlainSerializer(show_time, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""µs since 1970 in memory; in JSON ISO 8601 in UTC."""


class AnswerModel(BaseModel):
    """An answer to an operator. `--json` of a command prints the same document as the admin API."""

    model_config = ConfigDict(frozen=True)


class Listing(AnswerModel, Generic[Row]):
    """A page of a list. `next` is the `after` of the next page; null on the last page and in a list without pages."""

    object: Literal["list"] = "list"
    data: list[Row]
    has_more: bool = False
    next: str | None = Field(None, description="Send it as `after` for the next page.")


class Deleted(AnswerModel):
    """The id or the name of the thing that was deleted, or whose data was deleted."""

    id: str
    deleted: Literal[True] = True


def page(rows: list[Row], most: int | None, after: str | None, name: str) -> Listing[Row]:
    """Return the page of rows whose attribute `name` is above `after`, no more than `most`.

    An `after` of None begins at the first row, a `most` of None takes all rows. `rows` must be in the order of that
    attribute.
    """
    rest = rows if after is None else [row for row in rows if str(getattr(row, name)) > after]
    if most is None or len(rest) <= most:
        return Listing[Any](data=rest)
    return Listing[Any](data=rest[:most], has_more=True, next=getattr(rest[most - 1], name))
