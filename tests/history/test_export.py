"""Rows for other programs: nothing is lost or rounded on the way, and no cell is a formula."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.history.export import (
    RECORD_COLUMNS,
    Cells,
    csv_line,
    json_line,
    record_cells,
    record_json,
    show_time,
    stream_csv,
    usage_cells,
    usage_columns,
    usage_json,
)
from gateway.history.record import Record, Sums
from gateway.history.usage import Row, UsageReport
from tests.support.histories import NOON, make_call, make_record, records
from tests.support.ledgers import make_id

texts = st.text(st.characters(codec="utf-8"))


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@given(st.lists(texts, min_size=1))
def test_any_text_comes_back(cells: list[str]) -> None:
    """Commas, quotes, line ends and NULs in a cell do not move what follows; only a mark before formulas is added."""
    (row,) = csv.reader(io.StringIO(csv_line(["first", *cells]), newline=""))
    assert [cell.removeprefix("'") for cell in row[1:]] == [cell.removeprefix("'") for cell in cells]


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")', " =1", "\n=1", "＝1"]
)
def test_formula_is_text(text: str) -> None:
    """What a caller typed is never run by the spreadsheet in which an operator opens it."""
    (row,) = csv.reader(io.StringIO(csv_line([text]), newline=""))
    assert row == [f"'{text}"]


def test_dollars_are_whole_digits() -> None:
    """Dollars have six digits and no exponent, and a negative amount stays a number."""
    amounts = [Decimal(micro).scaleb(-6) for micro in (0, 1, -50_000, 2**53 - 1)]
    assert csv_line(amounts) == "0.000000,0.000001,-0.050000,9007199254.740991\r\n"


@given(st.lists(records, max_size=5))
def test_records_keep_what_they_say(made: list[Record]) -> None:
    """Each record is a line of CSV and one of JSON with the same values."""
    lines = csv_line(RECORD_COLUMNS) + "".join(csv_line(record_cells(record).values()) for record in made)
    rows = read_csv(lines)
    assert len(rows) == len(made)
    for row, record in zip(rows, made, strict=True):
        told = json.loads(json_line(record_json(record)))
        assert tuple(row) == tuple(told) == RECORD_COLUMNS
        assert (row["id"], row["key"], row["status"]) == (record.id, record.key, str(record.status))
        assert row["usd_settled"] == (told["usd_settled"] or "")
        settled = record.price_settled
        assert row["usd_settled"] == ("" if settled is None else f"{Decimal(settled).scaleb(-6):f}")
        assert [call["id"] for call in told["calls"]] == [call.id for call in record.calls]


async def test_many_rows_come_in_pieces() -> None:
    """An export of any length is handed on in pieces, the header once and first."""

    async def rows():
        for number in range(5000):
            yield record_cells(make_record(NOON, key_name=f"ana {number}", calls=(make_call(),)))

    pieces = [piece async for piece in stream_csv(RECORD_COLUMNS, rows())]
    assert len(pieces) > 10
    assert max(map(len, pieces)) < 70_000
    found = read_csv("".join(pieces))
    assert [row["key_name"] for row in found] == [f"ana {number}" for number in range(5000)]


async def test_empty_export_has_its_header() -> None:
    """An export of nothing still says what it would have held."""

    async def nothing():
        for cells in list[Cells]():
            yield cells

    assert [piece async for piece in stream_csv(("a", "b"), nothing())] == ["a,b\r\n"]


def test_report_names_its_keys() -> None:
    """A report shows each key's name beside its id, and the total by itself."""
    rows = (
        Row((make_id("key", 1), "anyfast"), Sums(3, 2, 1, 80_000, 7)),
        Row((make_id("key", 2), "(credit)"), Sums(usd=-5)),
    )
    report = UsageReport(("key", "upstream"), rows, Sums(3, 2, 1, 79_995, 7))
    assert usage_columns(report.by) == (
        "key",
        "key_name",
        "upstream",
        "requests",
        "images",
        "errors",
        "usd",
        "usd_disputed",
    )
    first, second = usage_cells(report, {make_id("key", 1): "ana"})
    assert tuple(first) == usage_columns(report.by)
    assert (first["key_name"], second["key_name"]) == ("ana", "")
    told = usage_json(report, {})
    assert told["total"] == {"requests": 3, "images": 2, "errors": 1, "usd": "0.079995", "usd_disputed": "0.000007"}
    assert told["rows"][1]["usd"] == "-0.000005"


def test_time_is_utc() -> None:
    """Times are ISO 8601 in UTC, to the millisecond."""
    assert show_time(1_793_793_600_123_456) == "2026-11-04T12:00:00.123Z"
