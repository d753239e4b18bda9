"""What a caller is told about its own key."""

from gateway.money.ledger_results import Scope
from tests.support.gateways import VARIANT, Gateway


def test_key_sees_limits_and_spending(gateway: Gateway) -> None:
    """A key is told its own limits and its team's, what is left of each, and what it spent; nobody else's."""
    record, secret = gateway.new_key(team="design")
    own = {"authorization": f"Bearer {secret}"}
    gateway.set_limit("usd_total", 100_000, Scope(key=record.id))
    gateway.set_limit("images_day", 5, Scope(team="design"))
    gateway.set_limit("usd_month", 999_000_000, Scope())
    assert gateway.generate(own, model=VARIANT).status_code == 200
    assert gateway.generate(model=VARIANT).status_code == 200
    told = gateway.client.get("/v1/key", headers=own)
    body = told.json()
    assert (body["object"], body["id"], body["team"]) == ("key", record.id, "design")
    by_name = {(one["limit"], one["scope"]): one for one in body["limits"]}
    assert set(by_name) == {("usd_total", "key"), ("images_day", "team")}
    assert by_name["usd_total", "key"] == {
        "limit": "usd_total",
        "scope": "key",
        "ceiling": "0.100000",
        "used": "0.030000",
        "left": "0.070000",
        "resets": None,
    }
    images = by_name["images_day", "team"]
    assert (images["ceiling"], images["used"], images["left"]) == (5, 1, 4)
    assert images["resets"].endswith("T00:00:00Z")
    spent = {one["window"]: one for one in body["spent"]}
    assert set(spent) == {"total", "month", "week", "day"}
    assert spent["total"] == {"window": "total", "usd": "0.030000", "usd_held": "0.000000", "images": 1}
    assert secret not in told.text
    assert "metadata" not in body


def test_key_is_asked_for(gateway: Gateway) -> None:
    """Without a key there is nothing to tell."""
    assert gateway.client.get("/v1/key").status_code == 401
