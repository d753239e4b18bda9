"""Keys and teams by their names: every command takes a key's name, and says which name it does not know."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from tests.conftest import Valkey
from tests.support.processes import clean_environment
from tests.support.shell import Shell

pytestmark = pytest.mark.quiet_store

TAKES_KEY = [
    ("keys", "show", "{key}"),
    ("keys", "change", "{key}", "--max-n", "2"),
    ("keys", "rotate", "{key}"),
    ("keys", "webhook-secret", "{key}"),
    ("keys", "disable", "{key}"),
    ("keys", "enable", "{key}"),
    ("keys", "delete", "{key}"),
    ("limits", "set", "--key", "{key}", "--usd-day", "1"),
    ("limits", "unset", "--key", "{key}", "usd-day"),
    ("limits", "show", "--key", "{key}"),
    ("credit", "--key", "{key}", "--usd", "1", "--reason", "x"),
    ("usage", "--key", "{key}"),
    ("history", "--key", "{key}"),
    ("webhooks", "--key", "{key}"),
    ("changes", "--subject", "{key}"),
]


def _fill(words: tuple[str, ...], key: str) -> list[str]:
    return [word.format(key=key) for word in words]


@pytest.mark.parametrize("words", TAKES_KEY, ids=lambda words: " ".join(words))
def test_key_goes_by_name_and_id(shell: Shell, words: tuple[str, ...]) -> None:
    """A command does the same for a key's name as for its id."""
    keys = {name: shell.ask("keys", "create", name)["id"] for name in ("ana", "bob")}
    for key in ("ana", keys["bob"]):
        done = shell.type(*_fill(words, key))
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize("words", TAKES_KEY[:-1], ids=lambda words: " ".join(words))
def test_unknown_name_has_a_suggestion(shell: Shell, words: tuple[str, ...]) -> None:
    """A mistyped name is refused with the name that may be meant, and the command that lists them."""
    shell.ask("keys", "create", "marketing")
    done = shell.type(*_fill(words, "marketin"))
    assert done.exit_code == 1
    assert "No key is named 'marketin'; did you mean 'marketing'?" in done.stderr
    assert "imagegate keys list" in done.stderr


def test_ambiguous_name_lists_ids(shell: Shell) -> None:
    """A name that two keys have is refused with their ids."""
    ids = [shell.ask("keys", "create", "ana")["id"] for _ in range(2)]
    done = shell.type("keys", "disable", "ana")
    assert done.exit_code == 1
    assert all(one in done.stderr for one in ids)


NEW = "imagegate: Note: 'dezign' is a new team; did you mean 'design'?"
UNKNOWN = "imagegate: No key and no limit has the team 'dezign'; did you mean 'design'?"

TAKES_TEAM = [
    (("limits", "set", "--team", "dezign", "--usd-day", "1"), NEW),
    (("limits", "unset", "--team", "dezign", "usd-day"), UNKNOWN),
    (("limits", "show", "--team", "dezign"), UNKNOWN),
    (("keys", "create", "eva", "--team", "dezign"), NEW),
    (("keys", "list", "--team", "dezign"), UNKNOWN),
    (("keys", "change", "ana", "--team", "dezign"), NEW),
    (("credit", "--team", "dezign", "--usd", "1", "--reason", "x"), UNKNOWN),
    (("usage", "--team", "dezign"), UNKNOWN),
    (("history", "--team", "dezign"), UNKNOWN),
]


def test_first_team_is_noted(shell: Shell) -> None:
    """The first key of the first team gets a note that is no failure."""
    said = shell.type("keys", "create", "ana", "--team", "design").stderr
    assert said.startswith("imagegate: Note: 'design' is a new team.\n")


@pytest.mark.parametrize(("words", "remark"), TAKES_TEAM, ids=lambda words: " ".join(words[:2]))
def test_unknown_team_is_remarked(shell: Shell, words: tuple[str, ...], remark: str) -> None:
    """A team that nothing has yet is taken, since it may be new, with a remark on stderr; a known one gets none."""
    for name in ("ana", "bob"):
        shell.ask("keys", "create", name, "--team", "design")
    done = shell.type(*words)
    assert done.exit_code == 0, done.output
    assert remark in done.stderr
    known = shell.type(*[word.replace("dezign", "design") for word in words])
    assert "'design'" not in known.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("keys", "rotate", "ana"), "The old key works until 20"),
        (("keys", "rotate", "ana", "--grace", "0"), "The old key counts no more."),
        (("keys", "webhook-secret", "ana", "--rotate"), "The old secret signs messages too until 20"),
    ],
)
def test_rotation_says_what_becomes_of_the_old_one(shell: Shell, words: tuple[str, ...], text: str) -> None:
    """After a rotation a note says until when the former secret counts; stdout has the new one alone."""
    shell.ask("keys", "create", "ana")
    done = shell.type(*words)
    assert text in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_deletions_answer_as_json(shell: Shell) -> None:
    """A deletion with --json prints the document of the admin API."""
    key = shell.ask("keys", "create", "ana")["id"]
    assert shell.ask("keys", "delete", "ana") == {"id": key, "deleted": True}
    shell.ask("operators", "create", "eva")
    assert shell.ask("operators", "delete", "eva") == {"id": "eva", "deleted": True}


def _answer(valkey: Valkey, env: dict[str, str], word: str, *words: str) -> tuple[int, str]:
    """Type a command on a terminal, and answer its question."""
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *words],
        env=clean_environment(**env),
        stdin=writer,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(reader, f"{word}\n".encode())
    _, told = process.communicate(timeout=60)
    os.close(writer)
    os.close(reader)
    return process.returncode, told


def test_deletion_asks_at_a_terminal(shell: Shell, valkey: Valkey) -> None:
    """At a terminal a deletion asks first, and `n` changes nothing; a script, and --yes, are not asked."""
    shell.ask("keys", "create", "ana", "--team", "design")
    code, told = _answer(valkey, shell.env, "n", "keys", "delete", "ana")
    assert "Delete the key ana (key_" in told
    assert (code, [one["name"] for one in shell.ask("keys", "list")["data"]]) == (1, ["ana"])
    assert "Nothing was changed." in told
    assert _answer(valkey, shell.env, "y", "keys", "delete", "ana")[0] == 0
    assert shell.ask("keys", "list")["data"] == []
