"""`imagegate usage`, `history` and `changes`: what was spent and by whom, request by request, and who changed what.

Reads the store itself, whether or not a gateway runs; registered by `cli`. Never changes anything.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from time import time_ns
from typing import Annotated, cast

import orjson
import typer

from gateway.cli.store import AsJson, Column, DataDir, OpenedStore, print_rows, with_store
from gateway.dollars import show_usd
from gateway.history.changes import Change
from gateway.history.export import (
    RECORD_COLUMNS,
    SUM_COLUMNS,
    Cells,
    change_json,
    csv_line,
    json_line,
    record_cells,
    record_json,
    stream_csv,
    usage_cells,
    usage_columns,
    usage_json,
)
from gateway.history.history import DAY, RecordFilter
from gateway.history.record import Record
from gateway.history.usage import DIMENSIONS, Dimension, Only, UsageReport
from gateway.process.settings import StartRefused
from gateway.store.windows import Calendar

_HISTORY = ("time", "id", "key", "team", "model", "upstreams", "size", "images", "usd", "seconds", "status")
_DETAILS = {"key", "team", "model", "size", "seconds"}
_IN_TABLES = {"calls", "passed_by"}
"""What of one record is shown in tables of its own."""

_TABLE = 50
_ALL = 2**62
_NUMBERS = {*SUM_COLUMNS, "seconds", "images"}
_CHANGES = ("time", "actor", "action", "subject", "before", "after", "address")

AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
SinceOption = Annotated[str, typer.Option(help="From when on: 24h or 7d ago, or a date as in 2026-11-04.")]
UntilOption = Annotated[str | None, typer.Option(help="Until just before; now if not said.", show_default=False)]
Key = Annotated[str | None, typer.Option(help="Only of this key, by its id or its name.", show_default=False)]
TeamOption = Annotated[
    str | None, typer.Option(help="Only of this team; an empty one: of keys without.", show_default=False)
]
ModelOption = Annotated[
    str | None, typer.Option(help="Only of this model, by the name that was sent.", show_default=False)
]
UpstreamOption = Annotated[str | None, typer.Option(help="Only where this upstream was called.", show_default=False)]
MostOption = Annotated[
    int | None, typer.Option(min=1, help="How many to show; 50 in a table, otherwise all.", show_default=False)
]


class NoSuchTime(StartRefused):
    """A time that was typed cannot be read."""


class NoSuchRecord(StartRefused):
    """No record has this id."""


class NoSuchName(StartRefused):
    """No key, or more than one, has the name that was typed."""


def usage(  # noqa: PLR0913 (each option is a parameter)
    by: Annotated[list[str] | None, typer.Option(help="Group by this; give it again for more.")] = None,
    since: SinceOption = "7d",
    until: UntilOption = None,
    key: Key = None,
    team: TeamOption = None,
    model: ModelOption = None,
    upstream: UpstreamOption = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show what was spent, in whole days: 7d is today and the six days before.

    \b
    imagegate usage --by team
    imagegate usage --by day --by key --since 2026-11-01 --csv > november.csv
    """
    dimensions = _read_dimensions(by or ["day"])
    _refuse_both(as_json, as_csv)

    async def read(store: OpenedStore) -> tuple[UsageReport, dict[str, str]]:
        now = time_ns() // 1000
        # Whole days are summed, and today is one of them: 7d would touch eight.
        start = _read_time(store.calendar, since, now) + (DAY if since.endswith("d") else 0)
        end = now + 1 if until is None else _read_time(store.calendar, until, now)
        names = {record.id: record.name for record in await store.keys.list()}
        only = Only(key=_find_key(key, names), team=team, model=model, upstream=upstream)
        return await store.usage.sum(start, end, dimensions, only), names

    report, names = with_store(data_dir, read)
    if as_json:
        typer.echo(orjson.dumps(usage_json(report, names)).decode())
        return
    columns, rows = usage_columns(dimensions), usage_cells(report, names)
    if as_csv:
        _print_csv(columns, rows)
        return
    total = [*("" for _ in columns[: -len(SUM_COLUMNS)]), *_show_sums(report)]
    if len(total) > len(SUM_COLUMNS):
        total[0] = "total"
    print_rows([Column(name, name in _NUMBERS) for name in columns], [_show_cells(row) for row in rows], total)


def history(  # noqa: PLR0913 (each option is a parameter)
    identifier: Annotated[
        str | None, typer.Argument(metavar="ID", help="One record, by its id or its task's, with all that it holds.")
    ] = None,
    since: SinceOption = "24h",
    until: UntilOption = None,
    key: Key = None,
    team: TeamOption = None,
    model: ModelOption = None,
    upstream: UpstreamOption = None,
    status: Annotated[int | None, typer.Option(help="Only answered with this status.", show_default=False)] = None,
    request: Annotated[str | None, typer.Option(help="Only of this request id.", show_default=False)] = None,
    most: MostOption = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show requests, newest first.

    \b
    imagegate history --team design --since 7d
    imagegate history --status 429 --json
    imagegate history task_01k…
    """
    _refuse_both(as_json, as_csv)
    if identifier is not None:
        _print_record(identifier, data_dir, as_json=as_json, as_csv=as_csv)
        return

    async def show(store: OpenedStore) -> None:
        now = time_ns() // 1000
        names = {record.id: record.name for record in await store.keys.list()} if key else {}
        wanted = RecordFilter(
            since=_read_time(store.calendar, since, now),
            until=now + 1 if until is None else _read_time(store.calendar, until, now),
            key=_find_key(key, names),
            team=team,
            model=model,
            upstream=upstream,
            status=status,
            request=request,
        )
        records = _first(store.history.stream(wanted), _how_many(most, is_table=not as_json and not as_csv))
        if as_json:
            async for record in records:
                typer.echo(json_line(record_json(record)), nl=False)
        elif as_csv:
            async for piece in stream_csv(RECORD_COLUMNS, _cells_of(records)):
                sys.stdout.write(piece)
        else:
            rows = [_show_record(record, store.calendar) async for record in records]
            print_rows([Column(name, name in _NUMBERS, name in _DETAILS) for name in _HISTORY], rows)

    with_store(data_dir, show)


def changes(
    since: SinceOption = "30d",
    subject: Annotated[str | None, typer.Option(help="Only of this key, team or operator.", show_default=False)] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this operator.", show_default=False)] = None,
    most: MostOption = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, newest first."""

    async def read(store: OpenedStore) -> tuple[list[Change], Calendar]:
        start = _read_time(store.calendar, since, time_ns() // 1000)
        how_many = _how_many(most, is_table=not as_json)
        return await store.changes.read(start, subject, actor, how_many), store.calendar

    found, calendar = with_store(data_dir, read)
    if as_json:
        typer.echo(orjson.dumps([change_json(change) for change in found]).decode())
        return
    rows = [
        (
            calendar.show_instant(change.time),
            change.actor,
            change.action,
            change.subject,
            _show_fields(change.before),
            _show_fields(change.after),
            change.address or "-",
        )
        for change in found
    ]
    print_rows([Column(name, is_detail=name in ("before", "address")) for name in _CHANGES], rows)


def _print_record(identifier: str, data_dir: Path | None, *, as_json: bool, as_csv: bool) -> None:
    async def read(store: OpenedStore) -> Record | None:
        return await store.history.show(identifier)

    record = with_store(data_dir, read)
    if record is None:
        raise NoSuchRecord(f"No record has the id {identifier!r}; it may be over (`accounting.history_days`).")
    if as_csv:
        _print_csv(RECORD_COLUMNS, [record_cells(record)])
        return
    if as_json:
        typer.echo(json_line(record_json(record)), nl=False)
        return
    cells = {name: value for name, value in record_cells(record).items() if name not in _IN_TABLES}
    print_rows((Column("field"), Column("value")), [(name, _show_cell(value)) for name, value in cells.items()])
    columns = ("upstream", "outcome", "seconds", "images", "usd", "state", "id")
    calls = [
        (
            call.target,
            call.outcome,
            f"{call.seconds:.3f}",
            f"{call.images}/{call.n}",
            _show_usd(call.usd),
            call.state,
            call.id,
        )
        for call in record.calls
    ]
    print_rows([Column(name, name in _NUMBERS, name == "id") for name in columns], calls)
    if record.passed_by:
        print_rows((Column("not asked"), Column("why")), [(one.target, one.reason) for one in record.passed_by])


def _how_many(most: int | None, *, is_table: bool) -> int:
    """What another program reads is whole, unless it asked for less."""
    return most or (_TABLE if is_table else _ALL)


async def _cells_of(records: AsyncIterator[Record]) -> AsyncIterator[Cells]:
    async for record in records:
        yield record_cells(record)


async def _first(records: AsyncIterator[Record], most: int) -> AsyncIterator[Record]:
    count = 0
    async for record in records:
        yield record
        count += 1
        if count == most:
            return


def _read_dimensions(words: list[str]) -> tuple[Dimension, ...]:
    chosen = list(dict.fromkeys(part for word in words for part in word.split(",")))
    for word in chosen:
        if word not in DIMENSIONS:
            raise typer.BadParameter(f"{word!r} is none of {', '.join(DIMENSIONS)}", param_hint="--by")
    return cast(tuple[Dimension, ...], tuple(chosen))


def _refuse_both(as_json: bool, as_csv: bool) -> None:
    if as_json and as_csv:
        raise typer.BadParameter("choose --json or --csv")


def _read_time(calendar: Calendar, text: str, now: int) -> int:
    try:
        return calendar.read_instant(text, now)
    except (ValueError, OverflowError) as error:
        raise NoSuchTime(str(error)) from error


def _find_key(text: str | None, names: dict[str, str]) -> str | None:
    """A key's id as it was typed, or by the key's name."""
    if text is None or text.startswith("key_"):
        return text
    ids = [key_id for key_id, name in names.items() if name == text]
    if len(ids) != 1:
        many = f"{len(ids)} keys are" if ids else "No key is"
        raise NoSuchName(f"{many} named {text!r}; give the key's id, as `imagegate keys list` shows it")
    return ids[0]


def _print_csv(columns: Sequence[str], rows: Sequence[Cells]) -> None:
    # Not echo: it would end lines as the terminal does, where CSV has its own ends.
    sys.stdout.write(csv_line(columns))
    for row in rows:
        sys.stdout.write(csv_line(row[column] for column in columns))


def _show_sums(report: UsageReport) -> list[str]:
    total = report.total
    return [str(total.requests), str(total.images), str(total.errors), show_usd(total.usd)]


def _show_cells(cells: Cells) -> list[str]:
    return [_show_cell(cell) for cell in cells.values()]


def _show_cell(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return "-" if cell in (None, "") else str(cell)


def _show_record(record: Record, calendar: Calendar) -> tuple[str, ...]:
    status = f"{record.status} {record.error or ''}".strip()
    if record.repeats > 1:
        status = f"{status}, {record.repeats} times"
    if record.is_joined:
        status = f"{status}, joined"
    return (
        calendar.show_instant(record.time),
        record.task or record.id,
        record.key_name,
        record.team or "-",
        record.model or "-",
        " ".join(record.upstreams) or "-",
        " ".join(dict.fromkeys(record.sizes_made)) or "-",
        f"{record.n_delivered}/{record.n_asked}",
        _show_usd(record.price_settled),
        f"{record.seconds:.1f}",
        f"{status}, presumed" if record.is_presumed else status,
    )


def _show_usd(micro: int | None) -> str:
    return "-" if micro is None else show_usd(micro)


def _show_fields(fields: dict[str, object] | None) -> str:
    return "-" if fields is None else orjson.dumps(fields).decode()
