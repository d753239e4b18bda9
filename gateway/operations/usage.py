"""Daily sums of requests, images, errors and dollars, for an operator: as an answer, or as rows of CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from gateway.history.export import Cells, usage_cells, usage_columns, usage_json
from gateway.history.usage import Dimension, Only, UsageReport
from gateway.operations.answers import AnswerModel, Instant
from gateway.operations.stores import Stores
from gateway.operations.time_spans import read_days

SINCE = "30d"
"""The beginning of a sum if the operator gives none."""


class UsageRow(AnswerModel):
    """The sums of one group. Of the first six columns it has those that `by` names, and `key_name` with `key`."""

    day: str | None = None
    key: str | None = Field(None, description="The key's id.")
    key_name: str | None = None
    team: str | None = None
    model: str | None = None
    upstream: str | None = Field(None, description="`(credit)`: corrections by operators.")
    requests: int
    images: int
    errors: int
    usd: str
    usd_disputed: str = Field(description="The part of the upstreams' bills that is not believed, and not charged.")


class UsageAnswer(AnswerModel):
    """Sums of whole days. Its JSON leaves out columns that are null."""

    since: Instant
    until: Instant
    by: list[Dimension]
    rows: list[UsageRow]
    total: UsageRow


@dataclass(frozen=True, slots=True)
class SummedUsage:
    """Sums of the days that `since` to just before `until` (µs) touch, and the name for each key's id."""

    since: int
    until: int
    report: UsageReport
    key_names: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        return usage_columns(self.report.by)

    @property
    def rows(self) -> list[Cells]:
        return usage_cells(self.report, self.key_names)

    def answer(self) -> UsageAnswer:
        sums = usage_json(self.report, self.key_names)
        return UsageAnswer.model_validate(sums | {"since": self.since, "until": self.until})


async def sum_usage(
    stores: Stores, since: str, until: str | None = None, by: Sequence[Dimension] = (), only: Only | None = None
) -> SummedUsage:
    """Add up whole days in the catalogue's time zone, grouped by dimensions. Raises InvalidValue for a wrong time."""
    first, last = read_days(stores, since, until)
    dimensions = tuple(dict.fromkeys(by))
    report = await stores.usage.sum(first, last, dimensions, only)
    names = {record.id: record.name for record in await stores.keys.list()} if "key" in dimensions else {}
    return SummedUsage(first, last, report, names)
