"""Callers' keys over the admin API: made, shown, changed, rotated, deleted."""

from __future__ import annotations

import pytest

from tests.support.gateways import OFFICIAL, TASKS, Gateway, small
from tests.support.operator_client import Office


def works(gateway: Gateway, secret: str) -> int:
    """The status of a request with a key."""
    return gateway.client.get("/v1/models", headers={"authorization": f"Bearer {secret}"}).status_code


def test_made_key_works_at_once(office: Office) -> None:
    """A key made here is shown once and opens the image routes, within what it may."""
    made = office.post("/keys", name="ana", team="design", models=[OFFICIAL], metadata={"cost centre": "7"})
    headers = {"authorization": f"Bearer {made['key']}"}
    assert office.gateway.client.post("/v1/images/generations", json=small(), headers=headers).status_code == 200
    assert office.gateway.client.post("/v1/images/generations", json=small(model=TASKS), headers=headers).is_error
    shown = office.get(f"/keys/{made['id']}")
    assert "key" not in shown
    assert (shown["name"], shown["team"], shown["metadata"]) == ("ana", "design", {"cost centre": "7"})


def test_list_is_filtered_and_paged(office: Office) -> None:
    """A long list comes in pages, without a gap or a repetition; filters hold across them."""
    mine = [office.post("/keys", name=f"k{number}", team="design")["id"] for number in range(5)]
    office.post("/keys", name="other", team="sales")
    office.patch(f"/keys/{mine[2]}", enabled=False)
    first = office.get("/keys", team="design", most=3)
    assert [row["id"] for row in first["data"]] == mine[:3]
    assert first["has_more"]
    second = office.get("/keys", team="design", most=3, after=first["next"])
    assert [row["id"] for row in second["data"]] == mine[3:]
    assert (second["has_more"], second["next"]) == (False, None)
    assert [row["id"] for row in office.get("/keys", enabled="false")["data"]] == [mine[2]]
    assert office.refuse("GET", "/keys", params={"most": 0}) == (400, "invalid_value", "most")


def test_change_keeps_what_is_not_named(office: Office) -> None:
    """Fields that a change does not name stay as they are; null lifts a restriction."""
    made = office.post("/keys", name="ana", max_n=2, max_quality="low")
    changed = office.patch(f"/keys/{made['id']}", max_n=None, name="eva")
    assert (changed["name"], changed["max_n"], changed["max_quality"]) == ("eva", None, "low")
    assert office.patch(f"/keys/{made['id']}") == changed


def test_disabled_key_is_refused(office: Office) -> None:
    """A key that is disabled here stops working, and works again once enabled."""
    made = office.post("/keys", name="ana")
    office.patch(f"/keys/{made['id']}", enabled=False)
    assert works(office.gateway, made["key"]) == 403
    office.patch(f"/keys/{made['id']}", enabled=True)
    assert works(office.gateway, made["key"]) == 200


@pytest.mark.parametrize(("grace", "former"), [({}, 200), ({"grace_s": 0}, 401)])
def test_rotated_key_gets_a_new_secret(office: Office, grace: dict[str, int], former: int) -> None:
    """A rotation gives the same key another secret; the former one works for the grace time."""
    made = office.post("/keys", name="ana")
    turned = office.post(f"/keys/{made['id']}/rotate", **grace)
    assert turned["id"] == made["id"]
    assert works(office.gateway, turned["key"]) == 200
    assert works(office.gateway, made["key"]) == former


def test_deleted_key_is_gone(office: Office) -> None:
    """A key that was deleted neither works nor can be shown."""
    made = office.post("/keys", name="ana")
    assert office.delete(f"/keys/{made['id']}") == {"id": made["id"], "deleted": True}
    assert works(office.gateway, made["key"]) == 401
    assert office.refuse("GET", f"/keys/{made['id']}") == (404, "key_not_found", "key_id")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")],
)
def test_unknown_key_is_told(office: Office, method: str, path: str) -> None:
    """An id that no key has is a 404 with its own code."""
    body = {} if method in ("PATCH", "POST") else None
    assert office.refuse(method, f"/keys/key_nothing{path}", json=body) == (404, "key_not_found", "key_id")
