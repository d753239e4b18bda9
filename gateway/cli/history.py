"""`imagegate history`: records of requests, from the store itself, with or without a gateway."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated

import orjson
import typer

from gateway.cli import options
from gateway.cli.display import Column, print_csv, print_json, print_rows, show_cell
from gateway.cli.store import AsJson, DataDir, OpenedStore, remark_on_team, with_store
from gateway.dollars import show_usd
from gateway.history.export import RECORD_COLUMNS, Cells, record_cells, stream_csv
from gateway.history.history import RecordFilter
from gateway.history.record import Record
from gateway.operations.history import SINCE, RequestRecord, find_record, stream_records
from gateway.operations.time_spans import read_span
from gateway.store.windows import Calendar

_COLUMNS = ("time", "id", "key", "team", "model", "upstreams", "size", "images", "usd", "seconds", "status")
_DETAILS = {"key", "team", "model", "upstreams", "size", "images", "seconds"}
_WORTH = {"key": -1, "team": -1, "upstreams": 1}
_TEXTS = {"status"}
_NUMBERS = {"images", "usd", "disputed", "seconds"}
_TABLE = tuple(
    Column(name, name in _NUMBERS, name in _DETAILS, name in _TEXTS, _WORTH.get(name, 0)) for name in _COLUMNS
)
_REMEDY = "`imagegate history ID` shows one request in full; --json shows everything."
_CALLS = ("upstream", "outcome", "seconds", "images", "usd", "state", "disputed", "id")
_IN_TABLES = {"calls", "passed_by"}
"""Fields of one record that have tables of their own."""


def history(  # noqa: PLR0913 (each option is a parameter)
    identifier: Annotated[
        str | None, typer.Argument(metavar="ID", help="One whole record, by its id or its task's.")
    ] = None,
    since: options.Since = SINCE,
    until: options.Until = None,
    key: options.OnlyKey = None,
    team: options.OnlyTeam = None,
    model: options.OnlyModel = None,
    upstream: options.OnlyUpstream = None,
    status: Annotated[int | None, typer.Option(help="Only answered with this status.", show_default=False)] = None,
    request: Annotated[str | None, typer.Option(help="Only of this request id.", show_default=False)] = None,
    is_disputed: Annotated[bool, typer.Option("--disputed", help="Only with a disputed bill.")] = False,
    most: options.Most = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: options.AsCsv = False,
) -> None:
    """Show requests, newest first.

    \b
    imagegate history --team design --since 7d
    imagegate history --status 429 --json
    imagegate history task_01k…
    """
    options.check_format(as_json=as_json, as_csv=as_csv)

    async def show(store: OpenedStore) -> None:
        first, last = read_span(store, since, until)
        await remark_on_team(store, team)
        key_id = None if key is None else await store.keys.find_id(key)
        wanted = RecordFilter(first, last, key_id, team, model, upstream, status)
        wanted = replace(wanted, request=request, is_disputed=True if is_disputed else None)
        if as_json:
            await _print_listing(store, wanted, most)
        elif as_csv:
            async for piece in stream_csv(RECORD_COLUMNS, _cells_of(stream_records(store, wanted, most))):
                sys.stdout.write(piece)
        else:
            records = stream_records(store, wanted, most or options.TABLE_ROWS)
            rows = [_show_record(record, store.calendar) async for record in records]
            print_rows(_TABLE, rows, remedy=_REMEDY)

    if identifier is None:
        with_store(data_dir, show)
        return
    record = with_store(data_dir, lambda store: find_record(store, identifier))
    if as_csv:
        print_csv(RECORD_COLUMNS, [record_cells(record)])
    elif as_json:
        print_json(RequestRecord.of(record))
    else:
        _print_record(record)


async def _print_listing(store: OpenedStore, wanted: RecordFilter, most: int | None) -> None:
    """Print the admin API's listing row by row: all records together may not fit into memory."""
    sys.stdout.write('{"object":"list","data":[')
    last, count, has_more = None, 0, False
    async for record in stream_records(store, wanted, None if most is None else most + 1):
        if count == most:
            has_more = True
            break
        sys.stdout.write(("," if count else "") + RequestRecord.of(record).model_dump_json())
        last, count = record.id, count + 1
    end = orjson.dumps({"has_more": has_more, "next": last if has_more else None}).decode()
    sys.stdout.write(f"],{end[1:]}\n")


def _print_record(record: Record) -> None:
    cells = {name: value for name, value in record_cells(record).items() if name not in _IN_TABLES}
    print_rows(
        (Column("field"), Column("value", is_text=True)), [(name, show_cell(value)) for name, value in cells.items()]
    )
    calls = [
        (
            call.target,
            call.outcome,
            f"{call.seconds:.3f}",
            f"{call.images}/{call.n}",
            _show_usd(call.usd),
            call.state,
            show_usd(call.disputed),
            call.id,
        )
        for call in record.calls
    ]
    print_rows([Column(name, name in _NUMBERS, name == "id") for name in _CALLS], calls)
    if record.passed_by:
        print_rows(
            (Column("not asked"), Column("why", is_text=True)), [(one.target, one.reason) for one in record.passed_by]
        )


async def _cells_of(records: AsyncIterator[Record]) -> AsyncIterator[Cells]:
    async for record in records:
        yield record_cells(record)


def _show_record(record: Record, calendar: Calendar) -> tuple[str, ...]:
    status = f"{record.status} {record.error or ''}".strip()
    if record.repeats > 1:
        status = f"{status}, {record.repeats} times"
    notes = (("joined", record.is_joined), ("presumed", record.is_presumed), ("disputed", record.price_disputed > 0))
    status = ", ".join([status, *(name for name, is_true in notes if is_true)])
    return (
        calendar.show_recent(record.time) if sys.stdout.isatty() else calendar.show_instant(record.time),
        record.task or record.id,
        record.key_name,
        record.team or "-",
        record.model or "-",
        " ".join(record.upstreams) or "-",
        " ".join(dict.fromkeys(record.sizes_made)) or "-",
        f"{record.n_delivered}/{record.n_asked}",
        _show_usd(record.price_settled),
        f"{record.seconds:.1f}",
        status,
    )


def _show_usd(micro: int | None) -> str:
    return "-" if micro is None else show_usd(micro)
