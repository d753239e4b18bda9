"""`imagegate limits`: set, shown with what is left, and taken away, of a key, a team and everyone."""

from typing import Any

import pytest

from tests.support.shell import Shell


def in_force(shown: Any) -> dict[str, Any]:
    return {name: value for name, value in shown["limits"].items() if value is not None}


def test_limits_are_set_one_by_one(shell: Shell) -> None:
    """A limit that is set stands beside those that were, and one that is taken away leaves the others."""
    key_id = shell.ask("keys", "create", "ana", "--usd-total", "1.50")["id"]
    set_ = shell.ask("limits", "set", "--key", key_id, "--images-per-minute", "5")
    assert set_["scope"] == key_id
    assert in_force(set_) == {"usd_total": "1.500000", "images_minute": 5}
    assert in_force(shell.ask("limits", "unset", "--key", key_id, "usd-total")) == {"images_minute": 5}
    assert in_force(shell.ask("limits", "unset", "--key", key_id, "images_minute")) == {}


def test_all_that_hold_are_shown(shell: Shell) -> None:
    """Of a key its own limits, its team's and everyone's are shown, with what is used and left."""
    key_id = shell.ask("keys", "create", "ana", "--team", "design", "--usd-total", "1.50")["id"]
    shell.ask("limits", "set", "--team", "design", "--images-day", "10")
    shell.ask("limits", "set", "--everyone", "--requests-per-minute", "60")
    shown = shell.ask("limits", "show", "--key", key_id)
    standing = shown["standing"]
    assert [(one["scope"], one["limit"], one["ceiling"], one["used"], one["left"]) for one in standing] == [
        ("key", "usd_total", "1.500000", "0.000000", "1.500000"),
        ("team", "images_day", 10, 0, 10),
        ("everyone", "requests_minute", 60, 0, 60),
    ]
    assert [one["limit"] for one in shell.ask("limits", "show", "--everyone")["standing"]] == ["requests_minute"]
    table = shell.type("limits", "show", "--team", "design").stdout.splitlines()
    assert table[0].split("\t") == ["scope", "limit", "at most", "used", "left", "resets"]
    assert table[1].split("\t")[:5] == ["team", "images_day", "10", "0", "10"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("set", "--usd-day", "1"), "--key KEY, --team NAME or --everyone"),
        (("set", "--everyone", "--team", "design", "--usd-day", "1"), "--key KEY, --team NAME or --everyone"),
        (("set", "--everyone"), "at least one limit"),
        (("set", "--everyone", "--usd-day", "one"), "--usd-day"),
        (("unset", "--everyone", "usd-year"), "there are usd-total"),
    ],
    ids=str,
)
def test_unclear_command_changes_nothing(shell: Shell, words: tuple[str, ...], told: str) -> None:
    """A command that does not say whose limit, or which, is refused with what would be right."""
    done = shell.type("limits", *words)
    assert done.exit_code == 2
    assert told in done.output
    assert in_force(shell.ask("limits", "show", "--everyone")) == {}


def test_limit_needs_its_key(shell: Shell) -> None:
    """A limit of a key that does not exist is refused, since it would hold nobody."""
    for words in (("set", "--usd-day", "1"), ("show",), ("unset", "usd-day")):
        done = shell.type("limits", words[0], "--key", "key_nope", *words[1:])
        assert (done.exit_code, "There is no key of this id" in done.output) == (1, True)


def test_changes_are_written_down(shell: Shell) -> None:
    """The log says who changed whose limits."""
    shell.ask("limits", "set", "--team", "design", "--usd-day", "1")
    shell.ask("limits", "unset", "--team", "design", "usd-day")
    assert [(action, subject) for _, action, subject in shell.log()] == [("limits.set", "team:design")] * 2
