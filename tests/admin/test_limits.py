"""Limits over the admin API: replaced as a whole, exact to the micro-dollar, held from the next request on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.operator_client import Office

NONE: dict[str, Any] = dict.fromkeys(
    [
        *("usd_total", "usd_month", "usd_week", "usd_day", "images_month", "images_day"),
        *("concurrent_requests", "requests_minute", "images_minute"),
    ]
)


def paths(office: Office) -> dict[str, str]:
    """Where each kind of scope has its limits."""
    key = office.post("/keys", name="ana", team="design")["id"]
    return {"everyone": "/limits/everyone", "team:a team/x": "/limits/teams/a team/x", key: f"/limits/keys/{key}"}


def test_put_replaces_all(office: Office) -> None:
    """A scope has exactly the limits that were put, however often; what is not named is none."""
    for scope, path in paths(office).items():
        assert office.get(path) == {"scope": scope, "limits": NONE, "standing": []}
        first = {"usd_total": "1.5", "images_minute": 5, "usd_day": "0.000001"}
        told = {"scope": scope, "limits": NONE | {"usd_total": "1.500000", "images_minute": 5, "usd_day": "0.000001"}}
        for _ in range(2):
            answer = office.put(path, **first)
            assert {one["limit"] for one in answer.pop("standing")} == set(first)
            assert answer == told
        assert office.put(path, usd_total="2", usd_day=None)["limits"] == NONE | {"usd_total": "2.000000"}
        assert office.delete(path)["limits"] == NONE
        assert office.get(path)["limits"] == NONE


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"usd_total": 1.5}, "usd_total"),
        ({"usd_total": "1.0000001"}, "usd_total"),
        ({"usd_total": "-1"}, "usd_total"),
        ({"usd_total": "1e3"}, "usd_total"),
        ({"usd_total": "9" * 30}, "usd_total"),
        ({"images_day": "5"}, "images_day"),
        ({"images_day": -1}, "images_day"),
        ({"images_day": 1.0}, "images_day"),
        ({"images_minute": 0}, "images_minute"),
        ({"requests_minute": 10**9}, "requests_minute"),
        ({"usd_year": "1"}, "usd_year"),
    ],
)
def test_wrong_limit_changes_nothing(office: Office, body: dict[str, Any], param: str) -> None:
    """A limit that cannot be is a 400 that names it, and the others stay as they were."""
    office.put("/limits/everyone", images_day=7)
    status, _, named = office.refuse("PUT", "/limits/everyone", json=body | {"images_month": 3})
    assert (status, named) == (400, param)
    assert office.get("/limits/everyone")["limits"] == NONE | {"images_day": 7}


@pytest.mark.parametrize(
    ("team", "param"), [("%20x", "team"), ("é" * 65, "team"), ("x%20", "team"), ("x%00", None), ("%0A", None)]
)
def test_impossible_team_is_refused(office: Office, team: str, param: str | None) -> None:
    """A name that no team can have is a 400; a control character makes the whole URL wrong."""
    assert office.refuse("GET", f"/limits/teams/{team}") == (400, "invalid_value", param)


def test_limit_holds_for_the_next_request(office: Office) -> None:
    """A key that was made with a limit is held to it, and its standing says how it stands."""
    made = office.post("/keys", name="ana", team="design", limits={"images_day": 1})
    office.put("/limits/teams/design", images_day=10)
    headers = {"authorization": f"Bearer {made['key']}"}
    body = {"model": "anyfast/gpt-image-2", "prompt": "a cat", "size": "1024x640"}
    ends = [office.gateway.client.post("/v1/images/generations", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in ends] == [200, 429]
    office.gateway.settle()
    shown = office.get(f"/keys/{made['id']}")
    assert shown["limits"] == NONE | {"images_day": 1}
    stands = {(row["scope"], row["limit"]): (row["used"], row["left"]) for row in shown["standing"]}
    assert stands == {("key", "images_day"): (1, 0), ("team", "images_day"): (1, 9)}
    assert {row["window"]: row["images_posted"] for row in shown["spent"]} == dict.fromkeys(
        ("total", "month", "week", "day"), 1
    )


def test_key_without_its_limits_is_none(office: Office) -> None:
    """A key whose limits are wrong is not made."""
    before = len(office.get("/keys")["data"])
    body = {"name": "ana", "limits": {"usd_total": "1,50"}}
    assert office.refuse("POST", "/keys", json=body) == (400, "invalid_value", "limits.usd_total")
    assert len(office.get("/keys")["data"]) == before


def test_team_is_what_a_key_or_a_limit_names(office: Office) -> None:
    """Teams are listed by name, in pages, with their keys and limits; others are a 404."""
    for _ in range(2):
        office.post("/keys", name="k", team="design")
    office.put("/limits/teams/a/b", usd_month="3")
    listed = office.get("/teams")
    assert [(row["name"], row["keys"], row["limits"]["usd_month"]) for row in listed["data"]] == [
        ("a/b", 0, "3.000000"),
        ("design", 2, None),
    ]
    first = office.get("/teams", most=1)
    assert (first["has_more"], first["next"]) == (True, "a/b")
    assert [row["name"] for row in office.get("/teams", most=1, after="a/b")["data"]] == ["design"]
    shown = office.get("/teams/a/b")
    assert shown["standing"][0] | {"resets": None} == {
        "limit": "usd_month",
        "scope": "team",
        "ceiling": "3.000000",
        "used": "0.000000",
        "left": "3.000000",
        "resets": None,
    }
    assert shown["standing"][0]["resets"].endswith("T00:00:00.000Z")
    assert office.refuse("GET", "/teams/nobody") == (404, "team_not_found", "team")
