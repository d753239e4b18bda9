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
    """A page of a list; the next one begins after `next`."""

    object: Literal["list"] = "list"
    data: list[Row]
    has_more: bool = False
    next: str | None = Field(None, description="Send it as `after` for the next page.")


class Deleted(AnswerModel):
    """The id of something that was deleted."""

    id: str
    deleted: Literal[True] = True


def page(rows: list[Row], most: int | None, after: str | None, name: str) -> Listing[Row]:
    """The page of the rows after the row `after`, no more than `most`. None begins at the first row, or takes all.

    `rows` are in the order of their attribute `name`, with which `after` is compared.
    """
    rest = rows if after is None else [row for row in rows if str(getattr(row, name)) > after]
    if most is None or len(rest) <= most:
        return Listing[Any](data=rest)
    return Listing[Any](data=rest[:most], has_more=True, next=getattr(rest[most - 1], name))
