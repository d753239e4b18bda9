"""Pauses over the admin API: begun, listed and ended, each with its line in the log of changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.operator_client import Office


def shown(office: Office) -> dict[str, str | None]:
    """The present pauses, with their ends."""
    return {one["scope"]: one["until"] for one in office.get("/pauses")["data"]}


@pytest.mark.parametrize(
    ("path", "scope", "action", "subject"),
    [
        ("everything", "everything", "everything", "everything"),
        ("teams/design/web", "team:design/web", "team", "team:design/web"),
        ("upstreams/anyfast", "upstream:anyfast", "upstream", "anyfast"),
    ],
)
def test_pause_is_begun_and_ended(office: Office, path: str, scope: str, action: str, subject: str) -> None:
    """A pause is in the list until it is ended, and the log of changes has both."""
    made = office.put(f"/pauses/{path}")
    assert (made["scope"], made["until"]) == (scope, None)
    assert shown(office) == {scope: None}
    assert office.delete(f"/pauses/{path}") == {"id": scope, "deleted": True}
    assert shown(office) == {}
    ended, begun = (one for one in office.get("/changes")["data"] if one["subject"] == subject)
    assert (begun["action"], begun["before"], begun["after"]) == (
        f"{action}.pause",
        None,
        {"since": made["since"], "until": None},
    )
    assert (ended["action"], ended["before"], ended["after"]) == (
        f"{action}.resume",
        {"since": made["since"], "until": None},
        None,
    )


def test_end_is_told_and_moved(office: Office) -> None:
    """`for_s` sets the end from now; a second pause moves it, and keeps the beginning."""
    first = office.put("/pauses/everything", for_s=3600)
    assert first["until"] is not None
    second = office.put("/pauses/everything", for_s=None)
    assert (second["since"], second["until"]) == (first["since"], None)
    change = office.get("/changes")["data"][0]
    assert (change["before"], change["after"]) == ({"until": first["until"]}, {"until": None})


def test_end_of_nothing_changes_nothing(office: Office) -> None:
    """To end what is not paused succeeds, and leaves no line."""
    assert office.delete("/pauses/everything") == {"id": "everything", "deleted": True}
    assert office.get("/changes")["data"] == []


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("upstreams/unheard-of", {}, 404, "upstream_not_found", "upstream"),
        ("upstreams/anyfast/main", {}, 404, "upstream_not_found", "upstream"),
        ("everything", {"for_s": 0}, 400, "invalid_value", "for_s"),
        ("everything", {"for_s": 366 * 86_400 + 1}, 400, "invalid_value", "for_s"),
        ("everything", {"for_s": "2h"}, 400, "invalid_value", "for_s"),
        ("everything", {"until": "2030-01-01"}, 400, "unknown_parameter", "until"),
    ],
    ids=str,
)
def test_wrong_pause_is_refused(
    office: Office, path: str, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    """What is not there, or no time, pauses nothing."""
    assert office.refuse("PUT", f"/pauses/{path}", json=body) == (status, code, param)
    assert shown(office) == {}


def test_state_and_team_show_the_pause(office: Office) -> None:
    """The list of upstreams has the state with the time that is left; the team has its pause, though it has no key."""
    office.put("/pauses/upstreams/anyfast", for_s=600)
    made = office.put("/pauses/teams/design")
    states = {one["label"]: (one["state"], one["seconds"]) for one in office.get("/upstreams")["data"]}
    assert states["anyfast-c/main"] == ("ok", 0)
    assert states["anyfast/main"][0] == "paused"
    assert 590 < states["anyfast/main"][1] <= 600
    assert office.get("/teams/design")["pause"] == made
    assert [(one["name"], one["keys"], one["pause"]) for one in office.get("/teams")["data"]] == [("design", 0, made)]
