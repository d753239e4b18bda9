"""The grid of outcomes: whatever becomes of a paid POST, the first or a second, no picture is bought twice.

Every row of the table of failures, at an upstream that answers at once and at one with tasks, judged by the vendor's
book.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from gateway.errors import read_error
from gateway.money.ledger_results import Spent
from tests.support.gateways import Gateway, Gateways, error_of
from tests.support.ledgers import is_soak
from tests.support.outcomes import OTHER, ROWS, UPSTREAM, Row, assert_accounted, forget_health, kept, open_grid, play

ROUNDS = 50 if is_soak() else 1
GRID = [pytest.param(row, kind, id=f"{row.name} ({kind})") for row in ROWS for kind in row.kinds]
AGAIN = [
    pytest.param(row, kind, id=f"{row.name} ({kind})")
    for number, row in enumerate(ROWS)
    for kind in row.kinds
    # What cannot be reached is asked again at once, which `test_dispatch` shows. Each row at one of the kinds is enough
    # for every day: the rows behind a first refusal by another upstream are all here as well.
    if row.fault and (is_soak() or (not row.is_slow and kind == row.kinds[number % len(row.kinds)]))
]


def rounds(gateways: Gateways, row: Row) -> Iterator[tuple[Gateway, Spent]]:
    """A gateway that knows nothing of its upstreams' health, and what was spent so far; many times in the long run."""
    for _ in range(ROUNDS):
        gateway = open_grid(gateways, is_slow=row.is_slow)
        gateway.settle()
        gateway.simulator.reset()
        forget_health(gateway)
        yield gateway, gateway.spent()


def assert_told(answer: httpx.Response, row: Row) -> None:
    """The caller gets the error that the row says."""
    assert (answer.status_code, error_of(answer)["code"]) == (row.status, row.code), answer.text
    assert answer.headers.get("x-should-retry") == row.should_retry
    assert answer.headers["x-gateway-task"]


def seen(gateway: Gateway) -> list[str]:
    """Where paid POSTs arrived, in order."""
    return [one["upstream"] for one in gateway.simulator.paid()]


@pytest.mark.parametrize(("row", "kind"), GRID)
def test_failure_alone_is_told(gateways: Gateways, row: Row, kind: str) -> None:
    """With no other upstream the caller gets the error of the failure, and the POST was not sent again."""
    for gateway, before in rounds(gateways, row):
        row.lay(gateway.simulator, UPSTREAM[kind])
        answer = play(gateway, row, kind, "alone")
        assert_told(answer, row)
        wait = answer.headers.get("retry-after")
        assert (None if wait is None else int(wait)) == row.retry_after
        assert len(seen(gateway)) == row.arrivals
        assert len(kept(gateway)) == row.accepted
        record = gateway.read_task(answer.headers["x-gateway-task"])
        assert (record["status"], read_error(record["error"]).code) == ("failed", row.code)
        assert_accounted(gateway, before, answer.headers["x-gateway-task"])


@pytest.mark.parametrize(("row", "kind"), GRID)
def test_next_upstream_only_on_proof(gateways: Gateways, row: Row, kind: str) -> None:
    """Another upstream is asked only where it is proven that the first one did nothing."""
    first, other = UPSTREAM[kind], UPSTREAM[OTHER[kind]]
    for gateway, before in rounds(gateways, row):
        row.lay(gateway.simulator, first)
        answer = play(gateway, row, kind, "first")
        if row.goes_on:
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-gateway-upstream"] == other
            assert seen(gateway) == [*[first] * row.arrivals, other]
            assert [purchase["upstream"] for purchase in kept(gateway)] == [other]
        else:
            assert_told(answer, row)
            assert seen(gateway) == [first]
            assert len(kept(gateway)) == row.accepted
        assert_accounted(gateway, before, answer.headers["x-gateway-task"])


@pytest.mark.parametrize(("row", "kind"), GRID)
def test_second_upstream_is_judged_alike(gateways: Gateways, row: Row, kind: str) -> None:
    """A failure of the second upstream, after the first one refused with proof, means what it means at the first."""
    first, second = UPSTREAM[OTHER[kind]], UPSTREAM[kind]
    for gateway, before in rounds(gateways, row):
        gateway.simulator.fault("status", status=500, upstream=first)
        row.lay(gateway.simulator, second)
        answer = play(gateway, row, kind, "second")
        assert_told(answer, row)
        assert seen(gateway) == [first, *[second] * row.arrivals]
        assert len(kept(gateway)) == row.accepted
        assert_accounted(gateway, before, answer.headers["x-gateway-task"])


@pytest.mark.parametrize(("row", "kind"), AGAIN)
def test_same_upstream_again_is_judged_alike(gateways: Gateways, row: Row, kind: str) -> None:
    """A failure of the second call to one upstream, which had asked for a moment, means what it means at the first."""
    name = UPSTREAM[kind]
    for gateway, before in rounds(gateways, row):
        gateway.simulator.fault("status", status=429, retry_after=0, upstream=name)
        row.lay(gateway.simulator, name, is_second=True)
        answer = play(gateway, row, kind, "alone")
        assert_told(answer, row)
        assert seen(gateway) == [name, name]
        assert len(kept(gateway)) == row.accepted
        assert_accounted(gateway, before, answer.headers["x-gateway-task"])
