"""Records and sums as rows for other programs: CSV in the form of RFC 4180, and one JSON object a line.

Dollars are decimal text with six digits, times are ISO 8601 in UTC. New columns come last.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from gateway.dollars import show_usd
from gateway.history.record import Record
from gateway.history.usage import Dimension, Row, UsageReport

Cell = str | int | float | Decimal | bool | None
Cells = Mapping[str, Cell]

RECORD_COLUMNS = (
    "time",
    "id",
    "request",
    "task",
    "is_joined",
    "key",
    "key_name",
    "team",
    "end_user",
    "operation",
    "model",
    "upstreams",
    "calls",
    "size_asked",
    "sizes_made",
    "quality_asked",
    "quality_sent",
    "n_asked",
    "n_delivered",
    "usd_held",
    "usd_settled",
    "is_presumed",
    "status",
    "error",
    "repeats",
    "seconds",
    "prompt",
    "strategy",
    "rule",
    "passed_by",
    "usd_disputed",
)
SUM_COLUMNS = ("requests", "images", "errors", "usd", "usd_disputed")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PIECE = 64 * 1024
# A spreadsheet takes these for the beginning of a formula, and would run a caller's text on the operator's machine.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def usage_columns(by: Sequence[Dimension]) -> tuple[str, ...]:
    """Return the columns of a report: its dimensions, the key's name after its id, the sums."""
    dimensions = [column for one in by for column in ((one, "key_name") if one == "key" else (one,))]
    return (*dimensions, *SUM_COLUMNS)


def usage_cells(report: UsageReport, key_names: Mapping[str, str]) -> list[Cells]:
    """Return the rows of a report, without its total."""
    return [_usage_row(report.by, row, key_names) for row in report.rows]


def usage_json(report: UsageReport, key_names: Mapping[str, str]) -> dict[str, Any]:
    """Return a report as one JSON object: its rows and their total."""
    return {
        "by": list(report.by),
        "rows": [to_json(cells) for cells in usage_cells(report, key_names)],
        "total": to_json(_usage_row((), Row((), report.total), {})),
    }


def record_cells(record: Record) -> Cells:
    """Return a record as one flat row; its calls are one text, with `TARGET OUTCOME SECONDS` for each."""
    calls = "; ".join(f"{call.target} {call.outcome} {call.seconds:.3f}" for call in record.calls)
    values: dict[str, Cell] = {
        **{name: getattr(record, name) for name in RECORD_COLUMNS if name in Record.model_fields},
        "time": show_time(record.time),
        "upstreams": " ".join(record.upstreams),
        "calls": calls,
        "sizes_made": " ".join(record.sizes_made),
        "usd_held": _dollars(record.price_held),
        "usd_settled": _dollars(record.price_settled),
        "is_presumed": record.is_presumed,
        "usd_disputed": _dollars(record.price_disputed),
        "passed_by": "; ".join(f"{one.target}: {one.reason}" for one in record.passed_by),
    }
    return {name: values[name] for name in RECORD_COLUMNS}


def record_json(record: Record) -> dict[str, Any]:
    """Return a record as a JSON object, with its calls as objects."""
    calls = [
        call.model_dump(mode="json", exclude={"disputed"})
        | {"usd": None if call.usd is None else show_usd(call.usd), "usd_disputed": show_usd(call.disputed)}
        for call in record.calls
    ]
    more = {
        "upstreams": list(record.upstreams),
        "calls": calls,
        "sizes_made": list(record.sizes_made),
        "passed_by": [one.model_dump() for one in record.passed_by],
    }
    return to_json(record_cells(record)) | more


def to_json(cells: Cells) -> dict[str, Any]:
    """Return a row as a JSON object. Dollars stay text, since readers would round a number."""
    return {name: f"{cell:f}" if isinstance(cell, Decimal) else cell for name, cell in cells.items()}


def csv_line(cells: Iterable[Cell]) -> str:
    """Return one line of CSV with its line end. A text that looks like a formula gets a leading `'`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([_to_text(cell) for cell in cells])
    return text.getvalue()


def json_line(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value).decode() + "\n"


async def stream_csv(columns: Sequence[str], rows: AsyncIterable[Cells]) -> AsyncIterator[str]:
    """Yield a header and a line for each row, in pieces of about 64 KB; one piece is in memory at a time."""
    piece = csv_line(columns)
    async for row in rows:
        piece += csv_line(row[column] for column in columns)
        if len(piece) >= _PIECE:
            yield piece
            piece = ""
    yield piece


def show_time(at: int) -> str:
    """Return an instant in µs as ISO 8601, to the millisecond: `2026-11-04T12:00:00.000Z`."""
    instant = _EPOCH + timedelta(microseconds=at)
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{instant.microsecond // 1000:03d}Z"


def _usage_row(by: Sequence[Dimension], row: Row, key_names: Mapping[str, str]) -> Cells:
    cells: dict[str, Cell] = {}
    for dimension, value in zip(by, row.group, strict=True):
        cells[dimension] = value
        if dimension == "key":
            cells["key_name"] = key_names.get(value, "")
    sums = row.sums
    return cells | {
        "requests": sums.requests,
        "images": sums.images,
        "errors": sums.errors,
        "usd": _dollars(sums.usd),
        "usd_disputed": _dollars(sums.disputed),
    }


def _dollars(micro: int | None) -> Decimal | None:
    return None if micro is None else Decimal(micro).scaleb(-6)


def _to_text(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return str(cell).lower()
        case Decimal():
            return f"{cell:f}"
        case str():
            return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) else cell
        case _:
            return str(cell)
