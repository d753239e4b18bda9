"""`imagegate pause`, `resume` and their like: typed, printed, and seen in `check`, `quote` and the lists."""

from __future__ import annotations

import pytest

from tests.support.plans import KEYS
from tests.support.shell import Shell


def test_upstream_is_paused_and_resumed(shell: Shell) -> None:
    """The command prints the pause with its end; the table has the state until `resume`, and both are logged."""
    done = shell.type("upstreams", "pause", "apiany", "--for", "2h")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("upstream:apiany is paused since 20")
    table = shell.type("upstreams")
    rows = [line.split("\t") for line in table.stdout.splitlines()]
    assert [row[:2] for row in rows if row[0] == "apiany/main"] == [["apiany/main", "paused"]]
    assert "Note: upstream:apiany is paused since" in table.stderr
    assert shell.type("upstreams", "resume", "apiany").stdout == "upstream:apiany is resumed.\n"
    assert {one["state"] for one in shell.ask("upstreams")["data"]} == {"ok"}
    assert [one[1:] for one in shell.log()] == [("upstream.pause", "apiany"), ("upstream.resume", "apiany")]


def test_team_is_paused_and_resumed(shell: Shell) -> None:
    """A team that nobody has named yet can be paused, with a remark; the list of teams shows its end."""
    done = shell.type("teams", "pause", "design")
    assert "No key and no limit has the team 'design'" in done.stderr
    assert done.stdout.endswith("until it is resumed.\n")
    assert shell.type("teams").stdout.splitlines()[1].split("\t")[::6] == ["design", "it is resumed"]
    assert shell.type("teams", "resume", "design").stdout == "team:design is resumed.\n"
    assert shell.ask("teams")["data"] == []


def test_resume_names_what_stays(shell: Shell) -> None:
    """The end of everything's pause leaves the others, and says so; a second end says that there was none."""
    for words in (("pause", "--everything"), ("teams", "pause", "design")):
        assert shell.type(*words).exit_code == 0
    done = shell.type("resume", "--everything")
    assert done.stdout == "everything is resumed.\n"
    assert "Note: team:design is paused since" in done.stderr
    assert shell.type("resume", "--everything").stdout == "everything was not paused.\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("pause",), "give --everything"),
        (("resume",), "give --everything"),
        (("pause", "--everything", "--for", "soon"), "right is 45m, 12h or 2d"),
        (("pause", "--everything", "--for", "0m"), "right is 45m, 12h or 2d"),
        (("pause", "--everything", "--for", "400d"), "right is 45m, 12h or 2d"),
        (("upstreams", "pause", "unheard-of"), "anyfast, anyfast-c, apiany"),
        (("upstreams", "--json", "pause", "apiany"), "write the options after `pause`"),
        (("teams", "pause", " "), "1 to 128 bytes"),
    ],
    ids=str,
)
def test_wrong_words_pause_nothing(shell: Shell, words: tuple[str, ...], text: str) -> None:
    """What is not clear is refused with what would be right."""
    done = shell.type(*words)
    assert done.exit_code != 0
    assert text in " ".join(done.output.replace("│", " ").split())
    assert shell.log() == []


def test_check_notes_every_pause(shell: Shell) -> None:
    """`check` has a note for each pause, and `--strict` allows them."""
    for words in (("pause", "--everything"), ("upstreams", "pause", "apiany", "--for", "45m")):
        assert shell.type(*words).exit_code == 0
    found = [one for one in shell.ask("check")["findings"] if one["kind"] == "paused"]
    assert [(one["level"], one["message"].partition(" is paused")[0]) for one in found] == [
        ("note", "everything"),
        ("note", "upstream:apiany"),
    ]


def test_quote_shows_the_pause(shell: Shell) -> None:
    """The plan has the paused upstream as skipped, and while everything is paused the refusal that requests get."""
    shell.env |= KEYS
    assert shell.type("upstreams", "pause", "apiany").exit_code == 0
    plan = shell.ask("quote")
    assert ("apiany/main", "an operator paused it") in [(one["target"], one["reason"]) for one in plan["rejections"]]
    assert plan["refusal"] is None
    assert shell.type("teams", "pause", "design").exit_code == 0
    assert shell.ask("quote")["refusal"] is None
    refused = shell.ask("quote", "--team", "design")
    assert refused["refusal"]["code"] == "paused"
    assert refused["choices"]
    assert "An operator paused this key's team" in shell.type("quote", "--team", "design").stderr
