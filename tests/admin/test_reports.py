"""Usage, history and changes as an operator reads them: filtered, paged, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

import pytest

from gateway.admin.shapes import NewLimits
from gateway.catalogue.document import Accounting
from gateway.history.changes import Change
from gateway.history.export import SUM_COLUMNS, record_json
from gateway.history.history import History
from gateway.history.usage import DIMENSIONS
from gateway.money.limits import LIMITS
from gateway.operations.changes import MadeChange
from gateway.operations.history import RecordedCall, RequestRecord
from gateway.operations.limits import LimitValues
from gateway.operations.usage import UsageRow
from tests.support.gateways import Gateways
from tests.support.histories import make_call, make_record, open_books
from tests.support.ledgers import DAY, SECOND
from tests.support.operator_client import Office, open_office

NOW = time.time_ns() // 1_000_000 * 1000


@pytest.fixture
async def history(office: Office) -> AsyncIterator[History]:
    """What requests leave their records in."""
    async with open_books(office.gateway.store_url, Accounting(), NOW) as books:
        yield books.history


def read_csv(answer: Any) -> list[dict[str, str]]:
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(answer.text)))


async def fill(history: History) -> None:
    """Three requests today by two teams, one of them refused, and one a day earlier."""
    await history.write(make_record(NOW - SECOND, team="design", calls=(make_call(1), make_call(2, "apiany", usd=5))))
    await history.write(make_record(NOW - 2 * SECOND, team="design", status=429, error="insufficient_quota"))
    await history.write(make_record(NOW - 3 * SECOND, team="=sales", calls=(make_call(3, usd=1_000_000),)))
    await history.write(make_record(NOW - DAY, team="design", calls=(make_call(4),)))


async def test_usage_is_grouped_and_exact(office: Office, history: History) -> None:
    """Sums by any columns, to the micro-dollar; the total is the sum of the rows."""
    await fill(history)
    report = office.get("/usage", by=["team"])
    assert report["by"] == ["team"]
    assert report["rows"] == [
        {"team": "=sales", "requests": 1, "images": 1, "errors": 0, "usd": "1.000000", "usd_disputed": "0.000000"},
        {"team": "design", "requests": 3, "images": 3, "errors": 1, "usd": "0.080005", "usd_disputed": "0.000000"},
    ]
    assert report["total"] == {"requests": 4, "images": 4, "errors": 1, "usd": "1.080005", "usd_disputed": "0.000000"}
    assert office.get("/usage", team="design", upstream="apiany")["total"]["usd"] == "0.000005"
    assert len(office.get("/usage", by=["day", "team"])["rows"]) == 3


async def test_usage_comes_as_csv(office: Office, history: History) -> None:
    """The same as a file for a spreadsheet, in which no name becomes a formula."""
    await fill(history)
    rows = read_csv(office.ask("GET", "/usage", params={"by": ["team"], "format": "csv"}))
    assert [(row["team"], row["usd"]) for row in rows] == [("'=sales", "1.000000"), ("design", "0.080005")]


async def test_history_is_filtered_and_paged(office: Office, history: History) -> None:
    """Requests come newest first, in pages without a gap, by any of their facts."""
    await fill(history)
    first = office.get("/history", team="design", most=2)
    assert [row["status"] for row in first["data"]] == [200, 429]
    assert first["has_more"]
    second = office.get("/history", team="design", most=2, after=first["next"])
    assert [row["usd_settled"] for row in second["data"]] == ["0.040000"]
    assert not second["has_more"]
    assert len(office.get("/history", status=429)["data"]) == 1
    assert len(office.get("/history", since="5m")["data"]) == 3
    assert office.refuse("GET", "/history", params={"after": "x"}) == (400, "invalid_value", "after")


async def test_one_request_is_shown(office: Office, history: History) -> None:
    """One request is shown with all its calls; another id is a 404."""
    await fill(history)
    row = office.get("/history", upstream="apiany")["data"][0]
    assert office.get(f"/history/{row['id']}") == row
    assert [(call["upstream"], call["usd"]) for call in row["calls"]] == [
        ("anyfast", "0.040000"),
        ("apiany", "0.000005"),
    ]
    assert row["prompt"] is None
    assert office.refuse("GET", "/history/rec_nothing") == (404, "record_not_found", "record_id")


async def test_history_comes_as_csv(office: Office, history: History) -> None:
    """All rows at once as a file, whatever a page would hold."""
    await fill(history)
    rows = read_csv(office.ask("GET", "/history", params={"format": "csv", "most": 1}))
    assert [row["team"] for row in rows] == ["design", "design", "'=sales", "design"]


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"since": "yesterday"}, "since"),
        ({"since": "9999-99-99"}, "since"),
        ({"until": "1d", "since": "1h"}, "until"),
        ({"by": "colour"}, "by.0"),
        ({"by": ["day"] * 6}, "by"),
        ({"format": "xml"}, "format"),
        ({"teem": "design"}, "teem"),
    ],
)
def test_wrong_question_names_its_part(office: Office, params: dict[str, Any], param: str) -> None:
    """A filter that cannot be, or that nobody knows, is a 400 that names it, and never a report of something else."""
    status, _, named = office.refuse("GET", "/usage", params=params)
    assert (status, named) == (400, param)


@pytest.mark.parametrize(
    "since", ["2d", "48h", "2020-01-01", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00+02:00", "0001-01-01T00:00+14:00"]
)
def test_span_may_be_written_in_many_ways(office: Office, since: str) -> None:
    """An instant, a date, or a time ago."""
    assert office.get("/usage", since=since)["total"]["requests"] == 0


def test_every_change_is_logged(office: Office) -> None:
    """Whatever the admin API changes is in the log: who, what, from where, before and after, and no secret."""
    eva = office.hire("eva", "admin")
    key = eva.post("/keys", name="ana", limits={"usd_total": "1"})
    eva.patch(f"/keys/{key['id']}", name="anna", enabled=True)
    turned = office.post(f"/keys/{key['id']}/rotate")
    office.put("/limits/teams/design", images_day=5)
    office.put("/limits/teams/design", images_day=5)
    office.post("/credits", scope="everyone", usd="-1", reason="why")
    office.delete(f"/keys/{key['id']}")
    office.delete("/operators/eva")
    answer = office.ask("GET", "/changes")
    for secret in (eva.token, key["key"], turned["key"]):
        assert secret not in answer.text
    rows = answer.json()["data"]
    assert [(row["actor"], row["action"], row["subject"]) for row in reversed(rows)] == [
        ("admin-token", "operator.create", "operator:eva"),
        ("operator:eva", "key.create", key["id"]),
        ("operator:eva", "key.change", key["id"]),
        ("admin-token", "key.rotate", key["id"]),
        ("admin-token", "limits.set", "team:design"),
        ("admin-token", "credit.make", "everyone"),
        ("admin-token", "key.delete", key["id"]),
        ("admin-token", "operator.delete", "operator:eva"),
    ]
    assert {row["address"] for row in rows} == {"127.0.0.1"}
    changed = next(row for row in rows if row["action"] == "key.change")
    assert (changed["before"], changed["after"]) == ({"name": "ana"}, {"name": "anna"})
    limited = next(row for row in rows if row["action"] == "limits.set")
    assert (limited["before"], limited["after"]) == ({"images_day": None}, {"images_day": 5})
    assert [row["action"] for row in office.get("/changes", actor="operator:eva", most=1)["data"]] == ["key.change"]
    assert office.get("/changes", subject="team:design")["has_more"] is False


def test_nothing_answers_without_redis(gateways: Gateways) -> None:
    """While Redis is away every answer is a 503 that says so, and the admin token still tells who asks."""
    office = open_office(gateways)
    viewer = office.hire("ana")
    with gateways._valkey.paused():
        assert office.get("/me")["role"] == "admin"
        assert office.refuse("GET", "/keys")[:2] == (503, "quota_store_unavailable")
        assert viewer.refuse("GET", "/me")[:2] == (503, "quota_store_unavailable")


def test_no_fact_is_left_out() -> None:
    """The answers have all that the records, the changes and the ledger have: a fact that is added is told here too."""
    record = make_record(NOW, calls=(make_call(1),))
    told = record_json(record)
    assert set(RequestRecord.model_fields) == set(told)
    assert set(RecordedCall.model_fields) == set(told["calls"][0])
    assert set(MadeChange.model_fields) == {one.name for one in fields(Change)}
    assert set(LimitValues.model_fields) == set(NewLimits.model_fields) == set(LIMITS)
    assert {*SUM_COLUMNS, *DIMENSIONS, "key_name"} == set(UsageRow.model_fields)
