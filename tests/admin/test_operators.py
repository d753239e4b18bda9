"""Operators: tokens given and taken, shown once, stored nowhere."""

from __future__ import annotations

from gateway.store.client import StoreClient
from tests.support.operator_client import Office


def test_operator_is_listed_without_token(office: Office) -> None:
    """A token is shown once; the list shows how it begins, and the role."""
    made = office.post("/operators", name="ana@example.org", role="admin")
    (row,) = office.get("/operators")["data"]
    assert row == {name: value for name, value in made.items() if name != "token"}
    assert made["token"].startswith(row["hint"])
    assert len(row["hint"]) == 8


def test_name_is_taken_once(office: Office) -> None:
    """Two operators of one name could not be told apart in the log of changes."""
    office.hire("ana")
    assert office.refuse("POST", "/operators", json={"name": "ana"}) == (400, "invalid_value", "name")
    assert office.refuse("POST", "/operators", json={"name": "a b"}) == (400, "invalid_value", "name")
    assert office.refuse("POST", "/operators", json={"name": "eva", "role": "root"})[2] == "role"


def test_unknown_operator_cannot_go(office: Office) -> None:
    """Deleting who is not there is a 404."""
    assert office.refuse("DELETE", "/operators/nobody") == (404, "operator_not_found", "name")


async def test_token_is_stored_nowhere(office: Office, redis: StoreClient) -> None:
    """Nothing in Redis holds the token: a stolen dump opens no door."""
    token = office.hire("ana").token
    rows = [f"{name}{await redis.hgetall(name)}" for name in await redis.keys("*operator*")]
    assert len(rows) == 2
    assert not [row for row in rows if token[4:] in row]
