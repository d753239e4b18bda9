"""What was made and spent: daily sums, and the record of each request; as JSON, or as CSV for a spreadsheet."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from gateway import errors
from gateway.admin.access import ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import After, AnswerModel, Instant, Listing, Most, QueryModel, Text, refusals
from gateway.admin.spans import Since, Until, read_span
from gateway.history.export import (
    RECORD_COLUMNS,
    Cells,
    csv_line,
    record_cells,
    record_json,
    stream_csv,
    usage_cells,
    usage_columns,
    usage_json,
)
from gateway.history.history import DAY, History, RecordFilter
from gateway.history.usage import Dimension, Only

router = APIRouter(route_class=GuardedRoute, tags=["reports"])

Format = Annotated[Literal["json", "csv"], Field(description="`csv` has all rows at once, as a download.")]

_FILTERS = {"key", "team", "model", "upstream", "status", "task", "request"}
_CSV = "text/csv; charset=utf-8"
_ALSO_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


class UsageQuery(QueryModel):
    """Which sums, and by what they are grouped."""

    since: Since = None
    until: Until = None
    by: Annotated[tuple[Dimension, ...], Field(max_length=5, description="Say it again to group by several.")] = ()
    key: Text = None
    team: Text = None
    model: Text = None
    upstream: Text = None
    format: Format = "json"


class HistoryQuery(QueryModel):
    """Which requests."""

    since: Since = None
    until: Until = None
    key: Text = None
    team: Text = None
    model: Text = None
    upstream: Text = None
    status: Annotated[int | None, Field(ge=100, le=599)] = None
    task: Text = None
    request: Text = None
    most: Most = 50
    after: After = None
    format: Format = "json"


class UsageRow(AnswerModel):
    """One group. Of the columns that name it there are those that were asked for by `by`."""

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


class UsageAnswer(AnswerModel):
    """Sums of whole days."""

    since: Instant
    until: Instant
    by: list[Dimension]
    rows: list[UsageRow]
    total: UsageRow


class RecordedCall(AnswerModel):
    """One paid call of a request."""

    id: str
    upstream: str
    target: str
    outcome: str = Field(description="`delivered`, or the verdict on its failure.")
    seconds: float
    n: int
    images: int
    usd: str | None
    state: str
    promised: str | None = Field(None, description="The size that was to be made, where another was.")
    made: list[str] = Field(default_factory=list, description="The sizes that were made, where one was another.")


class PassedByTarget(AnswerModel):
    """A target of the model that was not asked."""

    target: str
    reason: str = Field(description="What it cannot do, or what kept calls away from it at that moment.")


class RequestRecord(AnswerModel):
    """One request, without its pictures."""

    id: str
    time: str
    request: str
    task: str | None
    is_joined: bool = Field(description="Another request began the task; its record tells what it made and cost.")
    key: str
    key_name: str
    team: str | None
    end_user: str | None
    operation: str
    model: str
    upstreams: list[str]
    calls: list[RecordedCall]
    size_asked: str | None
    sizes_made: list[str]
    quality_asked: str | None
    quality_sent: str | None
    n_asked: int
    n_delivered: int
    usd_held: str | None
    usd_settled: str | None
    is_presumed: bool
    status: int
    error: str | None
    repeats: int = Field(description="Requests that it tells of: refusals that come too fast are told together.")
    seconds: float
    prompt: str | None = Field(description="Only where the catalogue says `keep_prompts`.")
    strategy: str | None = Field(description="What ordered the targets; null where the request came to no plan.")
    rule: str | None = Field(description="The catalogue's rule that held.")
    passed_by: list[PassedByTarget] = Field(description="The model's targets that were not asked, and why.")


@router.get(
    "/usage",
    summary="What was made and spent, by day",
    response_model=UsageAnswer,
    response_model_exclude_none=True,
    responses=_ALSO_CSV,
)
async def show_usage(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[UsageQuery, Query()]
) -> UsageAnswer | Response:
    """Sums of the whole days that the span touches, 30 days if it is not said, in the configured time zone."""
    first, last = read_span(services, wanted.since, wanted.until, "30d")
    if (wanted.since or "30d").endswith("d"):
        # Whole days are summed, and today is one of them: 30d would touch 31.
        first += DAY
    by = tuple(dict.fromkeys(wanted.by))
    only = Only(key=wanted.key, team=wanted.team, model=wanted.model, upstream=wanted.upstream)
    report = await services.usage.sum(first, last, by, only)
    names = {record.id: record.name for record in await services.keys.list()} if "key" in by else {}
    if wanted.format == "csv":
        columns = usage_columns(by)
        rows = [csv_line(row[column] for column in columns) for row in usage_cells(report, names)]
        return Response("".join([csv_line(columns), *rows]), media_type=_CSV, headers=_download("usage"))
    return UsageAnswer.model_validate(usage_json(report, names) | {"since": first, "until": last})


@router.get("/history", summary="Requests, newest first", response_model=Listing[RequestRecord], responses=_ALSO_CSV)
async def list_history(
    services: ServicesDep, operator: ViewerDep, query: Annotated[HistoryQuery, Query()]
) -> Listing[RequestRecord] | Response:
    """Of the last 7 days if nothing is said. A page may be short and still have a next one."""
    first, last = read_span(services, query.since, query.until, "7d")
    wanted = RecordFilter(first, last, **query.model_dump(include=_FILTERS))
    if query.format == "csv":
        lines = stream_csv(RECORD_COLUMNS, _cells(services.history, wanted))
        return StreamingResponse(lines, media_type=_CSV, headers=_download("history"))
    try:
        found = await services.history.find(wanted, query.most, query.after)
    except ValueError as error:
        raise errors.InvalidValue("`after` must be the `next` of a page.", param="after") from error
    rows = [RequestRecord.model_validate(record_json(record)) for record in found.records]
    return Listing[RequestRecord](data=rows, has_more=found.cursor is not None, next=found.cursor)


@router.get("/history/{record_id}", summary="One request", responses=refusals(errors.RecordNotFound))
async def show_record(
    services: ServicesDep,
    operator: ViewerDep,
    record_id: Annotated[str, Path(max_length=64, description="Its own id, or its task's.")],
) -> RequestRecord:
    record = await services.history.show(record_id)
    if record is None:
        raise errors.RecordNotFound("There is no record of this id, or it is over its time.", param="record_id")
    return RequestRecord.model_validate(record_json(record))


async def _cells(history: History, wanted: RecordFilter) -> AsyncIterator[Cells]:
    async for record in history.stream(wanted):
        yield record_cells(record)


def _download(what: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{what}-{time.strftime("%Y-%m-%d", time.gmtime())}.csv"'}
