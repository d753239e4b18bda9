"""Credits and live holds: exact, made once, told everywhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.store.client import StoreClient
from tests.support.gateways import wait_until
from tests.support.operator_client import Office


def spent(office: Office, path: str) -> str:
    """The dollars that a key or a team has spent in total."""
    return next(row["usd_posted"] for row in office.get(path)["spent"] if row["window"] == "total")


async def test_credit_reaches_every_total(office: Office, redis: StoreClient) -> None:
    """A credit to a key moves its own totals, its team's and everyone's, with its reason in journal and usage."""
    key = office.post("/keys", name="ana", team="design", limits={"usd_total": "1"})["id"]
    made = office.post("/credits", scope=key, usd="-0.25", reason="a lost picture")
    assert (made["scope"], made["usd"], made["reason"]) == (key, "-0.250000", "a lost picture")
    assert spent(office, f"/keys/{key}") == spent(office, "/teams/design") == "-0.250000"
    assert office.get(f"/keys/{key}")["standing"][0]["left"] == "1.250000"
    journal = [fields for _, fields in await redis.xrange("{igw}:journal")]
    assert [(row["change"], row["reason"]) for row in journal] == [(made["id"], "a lost picture")]
    (row,) = office.get("/usage", by=["upstream", "key"], key=key)["rows"]
    assert (row["upstream"], row["usd"], row["requests"], row["key_name"]) == ("(credit)", "-0.250000", 0, "ana")


def test_repeated_credit_counts_once(office: Office) -> None:
    """A credit with an id of the operator's own counts once; the same id for another one is refused."""
    office.put("/limits/teams/design", images_day=1)
    at = (datetime.now(UTC) - timedelta(days=40)).isoformat()
    body = {"scope": "team:design", "usd": "2", "reason": "invoice 7", "id": "invoice-7", "at": at}
    assert office.post("/credits", **body) == office.post("/credits", **body)
    assert spent(office, "/teams/design") == "2.000000"
    assert {row["window"]: row["usd_posted"] for row in office.get("/teams/design")["spent"]}["month"] == "0.000000"
    body["usd"] = "3"
    assert office.refuse("POST", "/credits", json=body) == (422, "idempotency_mismatch", "id")
    assert office.get("/usage", since="60d", team="design")["total"]["usd"] == "2.000000"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"scope": "key_nothing"}, (404, "key_not_found", "key_id")),
        ({"scope": "team:"}, (400, "invalid_value", "scope")),
        ({"scope": "teams"}, (400, "invalid_value", "scope")),
        ({"usd": "0"}, (400, "invalid_value", "usd")),
        ({"usd": -1}, (400, "invalid_value", "usd")),
        ({"reason": ""}, (400, "invalid_value", "reason")),
        ({"at": "2020-01-01T00:00:00Z"}, (400, "invalid_value", "at")),
        ({"at": "2999-01-01T00:00:00Z"}, (400, "invalid_value", "at")),
        ({"at": "2026-01-01T00:00:00"}, (400, "invalid_value", "at")),
    ],
)
def test_wrong_credit_is_refused(office: Office, change: dict[str, Any], expected: tuple[int, str, str]) -> None:
    """A correction that cannot be is refused, and nothing is booked."""
    body = {"scope": "everyone", "usd": "1", "reason": "why"} | change
    assert office.refuse("POST", "/credits", json=body) == expected
    assert office.get("/usage")["total"]["usd"] == "0.000000"


def test_running_task_is_seen_holding(office: Office) -> None:
    """While a picture is made, its task is among the holds, with its calls; afterwards it is not."""
    gateway = office.gateway
    gateway.simulator.fault("delay", seconds=0.5)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gateway.generate, n=2)
        (hold,) = wait_until(lambda: [row for row in office.get("/holds")["data"] if row["calls"]], "a held call")
        assert asked.result().status_code == 200
    assert gateway.record is not None
    assert (hold["key"], hold["team"], hold["state"]) == (gateway.record.id, None, "open")
    assert (hold["images"], hold["free"], hold["images_held"]) == (2, 0, 2)
    (call,) = hold["calls"]
    assert (call["state"], call["slots"]) == ("held", 2)
    assert 0 < float(call["usd"]) <= float(hold["usd_held"])
    wait_until(lambda: not office.get("/holds")["data"], "the end of the hold")


async def test_damage_is_told(office: Office, redis: StoreClient) -> None:
    """An audit finds nothing in a ledger that is right, and tells what was damaged, in dollars, repairing nothing."""
    gateway = office.gateway
    assert gateway.generate().status_code == 200
    gateway.settle()
    sound = office.get("/audit")
    assert (sound["tasks"], sound["differences"], sound["spending_closed"]) == (1, [], False)
    spent_usd = next(row for row in office.get(f"/keys/{gateway.record.id}")["spent"] if row["window"] == "total")
    await redis.hincrby(f"{{igw}}:window:key:{gateway.record.id}:total", "usd_posted", 1)
    for _ in range(2):
        (found,) = office.get("/audit")["differences"]
        assert found["name"] == "usd_posted"
        assert found["right"] == spent_usd["usd_posted"]
        assert float(found["found"]) > float(found["right"])
