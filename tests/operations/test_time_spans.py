"""The span of a report, as operators write it: one parser for the command line and the admin API."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.catalogue.document import Accounting
from gateway.errors import InvalidValue
from gateway.operations.stores import Stores
from gateway.operations.time_spans import read_days, read_span
from gateway.store.windows import Calendar
from tests.support.gateways import Gateways
from tests.support.ledgers import DAY, SECOND
from tests.support.operator_client import Office, open_office
from tests.support.shell import Shell

STORES = cast(Stores, SimpleNamespace(document=SimpleNamespace(accounting=Accounting(time_zone="Europe/Berlin"))))


@pytest.fixture
def office(gateways: Gateways) -> Office:
    return open_office(gateways)


@pytest.mark.parametrize(
    ("since", "ago"), [("90m", 5400 * SECOND), ("36h", 129_600 * SECOND), ("7d", 7 * DAY), ("4w", 28 * DAY)]
)
def test_time_ago_is_read(since: str, ago: int) -> None:
    """Every documented unit is so long before now, and now itself is in the span."""
    before = time.time_ns() // 1000
    first, last = read_span(STORES, since, None)
    assert 0 <= first + ago - before < SECOND * 5
    assert first + ago < last


@pytest.mark.parametrize(("since", "days"), [("1d", 1), ("7d", 7), ("1w", 7), ("2w", 14), ("0d", 0)])
def test_whole_days_end_today(since: str, days: int) -> None:
    """`1d` is today, `7d` and `1w` are today and the six days before."""
    if days:
        first, last = read_days(STORES, since, None)
        assert len(Calendar("Europe/Berlin").name_days(first, last)) == days


@pytest.mark.parametrize(
    ("since", "until", "param"),
    [
        *(("yesterday", None, "since"), ("1y", None, "since"), ("", None, "since"), ("2026-13-01", None, "since")),
        *(("7d", "soon", "until"), ("1h", "1d", "until"), ("2026-11-04", "2026-11-04", "until")),
    ],
)
def test_wrong_time_is_refused(since: str, until: str | None, param: str) -> None:
    """A time that cannot be read, or an end before the beginning, is refused by its name."""
    with pytest.raises(InvalidValue) as refused:
        read_span(STORES, since, until)
    assert refused.value.param == param


@pytest.mark.parametrize("since", ["1d", "1w", "24h", "1440m"])
def test_today_is_in_the_report(office: Office, shell: Shell, since: str) -> None:
    """A request of a moment ago is in the sums of every span, by the API and by the command."""
    shell.env["GATEWAY_KEY_PEPPER"] = "p" * 32
    shell.env["GATEWAY_CONFIG"] = str(office.gateway.settings.config)
    assert office.gateway.generate().status_code == 200
    office.gateway.settle()
    totals: list[Any] = [office.get("/usage", since=since)["total"], shell.ask("usage", "--since", since)["total"]]
    assert totals[0] == totals[1]
    assert totals[0]["requests"] == 1
    assert float(totals[0]["usd"]) > 0
