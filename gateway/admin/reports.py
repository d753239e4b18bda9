"""The routes of usage and history: as JSON, or as CSV for a spreadsheet."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from gateway import errors
from gateway.admin.access import ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import After, KeyIdOrName, Most, QueryModel, Since, Text, Until, refusals
from gateway.api.request import ServicesDep
from gateway.history.export import RECORD_COLUMNS, Cells, csv_line, record_cells, stream_csv
from gateway.history.history import RecordFilter
from gateway.history.record import Record
from gateway.history.usage import Dimension, Only
from gateway.operations import history
from gateway.operations.answers import Listing
from gateway.operations.history import RequestRecord
from gateway.operations.time_spans import read_span
from gateway.operations.usage import SINCE, SummedUsage, UsageAnswer, sum_usage

router = APIRouter(route_class=GuardedRoute, tags=["reports"])

Format = Annotated[Literal["json", "csv"], Field(description="`csv` has all rows at once, as a download.")]

_FILTERS = {"key", "team", "model", "upstream", "status", "task", "request", "is_disputed"}
_CSV = "text/csv; charset=utf-8"
_ALSO_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


class UsageQuery(QueryModel):
    """The query of `GET /usage`: time span, filters, grouping and format."""

    since: Since = None
    until: Until = None
    by: Annotated[tuple[Dimension, ...], Field(max_length=5, description="Repeat it to group by several.")] = ()
    key: KeyIdOrName = None
    team: Text = None
    model: Text = None
    upstream: Text = None
    format: Format = "json"


class HistoryQuery(QueryModel):
    """The query of `GET /history`: time span, filters, page and format."""

    since: Since = None
    until: Until = None
    key: KeyIdOrName = None
    team: Text = None
    model: Text = None
    upstream: Text = None
    status: Annotated[int | None, Field(ge=100, le=599)] = None
    task: Text = None
    request: Text = None
    is_disputed: Annotated[bool | None, Field(description="True: only with a disputed bill.")] = None
    most: Most = 50
    after: After = None
    format: Format = "json"


@router.get(
    "/usage",
    summary="Requests, images and dollars, by day",
    response_model=UsageAnswer,
    response_model_exclude_none=True,
    responses=_ALSO_CSV | refusals(errors.KeyNotFound),
)
async def show_usage(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[UsageQuery, Query()]
) -> UsageAnswer | Response:
    """Return the sums of the whole days that the span touches, in the catalogue's time zone.

    A `since` of `7d` is today and the six days before. Without `since` it is `30d`.
    """
    key = await services.keys.find_id(wanted.key) if wanted.key else None
    only = Only(key=key, team=wanted.team, model=wanted.model, upstream=wanted.upstream)
    found = await sum_usage(services, wanted.since or SINCE, wanted.until, wanted.by, only)
    return _render_csv(found) if wanted.format == "csv" else found.answer()


@router.get(
    "/history",
    summary="Requests, newest first",
    response_model=Listing[RequestRecord],
    responses=_ALSO_CSV | refusals(errors.KeyNotFound),
)
async def list_history(
    services: ServicesDep, operator: ViewerDep, query: Annotated[HistoryQuery, Query()]
) -> Listing[RequestRecord] | Response:
    """Return requests, newest first; without `since` those of the last 7 days.

    A page may be shorter than `most` and still have a next page. CSV has all rows, whatever `most` is.
    """
    first, last = read_span(services, query.since or history.SINCE, query.until)
    key = await services.keys.find_id(query.key) if query.key else None
    wanted = RecordFilter(first, last, **query.model_dump(include=_FILTERS) | {"key": key})
    if query.format == "csv":
        lines = stream_csv(RECORD_COLUMNS, _cells(history.stream_records(services, wanted)))
        return StreamingResponse(lines, media_type=_CSV, headers=_download("history"))
    return await history.list_requests(services, wanted, query.most, query.after)


@router.get("/history/{record_id}", summary="One request", responses=refusals(errors.RecordNotFound))
async def show_record(
    services: ServicesDep,
    operator: ViewerDep,
    record_id: Annotated[str, Path(max_length=64, description="Its own id, or its task's.")],
) -> RequestRecord:
    return RequestRecord.of(await history.find_record(services, record_id))


def _render_csv(found: SummedUsage) -> Response:
    rows = [csv_line(row[column] for column in found.columns) for row in found.rows]
    return Response("".join([csv_line(found.columns), *rows]), media_type=_CSV, headers=_download("usage"))


async def _cells(records: AsyncIterator[Record]) -> AsyncIterator[Cells]:
    async for record in records:
        yield record_cells(record)


def _download(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}-{time.strftime("%Y-%m-%d", time.gmtime())}.csv"'}
