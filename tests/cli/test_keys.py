"""`imagegate keys`: what is typed is what the store holds, what cannot be meant is refused by its option's name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.store.client import StoreClient
from tests.support.shell import Shell


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "--name"),
        (("ana", "--name", "bob"), "--name"),
        ((" ana",), "--name"),
        (("ana", "--model", "gpt-image-9"), "--models"),
        (("ana", "--upstream", "nowhere"), "--upstreams"),
        (("ana", "--max-quality", "best"), "--max-quality"),
        (("ana", "--max-pixels", "1"), "--max-pixels"),
        (("ana", "--max-n", "11"), "--max-n"),
        (("ana", "--expires", "soon"), "--expires"),
        (("ana", "--expires", "2020-01-01"), "--expires"),
        (("ana", "--address", "home"), "--address"),
        (("ana", "--meta", "x"), "--meta"),
        (("ana", "--usd-total", "1e3"), "--usd-total"),
        (("ana", "--usd-total", "-1"), "--usd-total"),
        (("ana", "--images-per-minute", "0"), "--images-per-minute"),
        (("ana", "--images-day", "9999999999999"), "--images-day"),
    ],
    ids=str,
)
def test_wrong_option_makes_no_key(shell: Shell, words: tuple[str, ...], named: str) -> None:
    """What cannot be meant is refused by the option's name, and no key is made."""
    done = shell.type("keys", "create", *words)
    assert done.exit_code == 2, done.output
    assert f"Invalid value for {named}" in done.output
    assert shell.ask("keys", "list")["data"] == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--expires", "tomorrow"), "'tomorrow' is no time; write a span from now such as 30d"),
        (("--max-quality", "best"), "'best' is no quality; it is one of low, medium, high"),
        (("--max-n", "11"), "11 is not allowed; write a number of 1 to 10"),
        (("--max-pixels", "1"), "1 is not allowed; write a number of 655360 or more"),
        (("--usd-month", "$20"), "'$20' is not an amount in dollars; write digits"),
        (("--address", "home"), "'home' is not an address; write 203.0.113.7"),
        (("--webhook", "example.com"), "must be a web address, such as https://"),
    ],
    ids=lambda one: str(one[0]),
)
def test_wrong_option_says_what_is_right(shell: Shell, words: tuple[str, ...], text: str) -> None:
    """A refused option says what was typed and what would be right, in words of ours."""
    done = shell.type("keys", "create", "ana", *words)
    assert done.exit_code == 2
    assert text in done.output


def test_key_ends_after_its_span(shell: Shell) -> None:
    """`--expires 30d` is thirty days from now."""
    ends = datetime.fromisoformat(shell.ask("keys", "create", "ana", "--expires", "30d")["expires"])
    assert timedelta(days=29, hours=23) < ends - datetime.now(UTC) <= timedelta(days=30)


def test_change_sets_and_clears(shell: Shell) -> None:
    """A change sets what it names, takes away what it clears, and leaves the rest."""
    key_id = shell.ask("keys", "create", "ana", "--team", "design", "--max-n", "2", "--meta", "a=b")["id"]
    words = ("--name", "eva", "--max-quality", "low", "--clear", "max-n", "--clear", "metadata", "--may-pin-upstream")
    changed = shell.ask("keys", "change", key_id, *words)
    assert (changed["name"], changed["team"], changed["max_quality"]) == ("eva", "design", "low")
    assert (changed["max_n"], changed["metadata"], changed["may_pin_upstream"]) == (None, {}, True)
    assert shell.ask("keys", "change", key_id, "--may-not-pin-upstream")["may_pin_upstream"] is False
    refused = shell.type("keys", "change", key_id, "--clear", "name")
    assert (refused.exit_code, "'name' is none of team" in refused.output) == (2, True)


def test_rotation_prints_the_new_key(shell: Shell) -> None:
    """A rotation prints a new key, the old one works for its grace time, and `--grace 0` ends it."""
    made = shell.ask("keys", "create", "ana", "--usd-total", "1")
    rotated = shell.ask("keys", "rotate", made["id"])
    assert shell.is_known(made["key"])
    assert shell.is_known(rotated["key"])
    last = shell.type("keys", "rotate", made["id"], "--grace", "0").stdout.strip()
    assert [shell.is_known(key) for key in (made["key"], rotated["key"], last)] == [False, False, True]
    assert shell.ask("keys", "show", made["id"])["limits"]["usd_total"] == "1.000000"
    assert shell.type("keys", "rotate", made["id"], "--grace", "1y").exit_code == 2


def test_list_can_be_one_team(shell: Shell) -> None:
    """`--team` shows that team's keys alone; an expired key is shown as such."""
    shell.ask("keys", "create", "ana", "--team", "design")
    shell.ask("keys", "create", "bob", "--team", "sales")
    assert [key["name"] for key in shell.ask("keys", "list", "--team", "sales")["data"]] == ["bob"]


def test_deleted_key_leaves_no_limit(shell: Shell) -> None:
    """A deletion takes the key's limits along, so that nothing of it stays but what it spent."""
    key_id = shell.ask("keys", "create", "ana", "--usd-total", "1")["id"]
    assert shell.type("keys", "delete", key_id).exit_code == 0

    async def find(redis: StoreClient) -> list[str]:
        return [name async for name in redis.scan_iter("*") if key_id in name]

    assert shell.look(find) == []


def test_changes_are_written_down(shell: Shell) -> None:
    """The log says who typed what, of every command that changes a key."""
    key_id = shell.ask("keys", "create", "ana")["id"]
    for words in (("change", "--max-n", "1"), ("rotate",), ("disable",), ("enable",), ("delete",)):
        assert shell.type("keys", words[0], key_id, *words[1:]).exit_code == 0
    log = shell.log()
    assert [action for _, action, _ in log] == [
        "key.create",
        "key.change",
        "key.rotate",
        "key.change",
        "key.change",
        "key.delete",
    ]
    assert {subject for _, _, subject in log} == {key_id}
    assert all(actor.startswith("cli:") for actor, _, _ in log)
