"""`imagegate credit`, `holds` and `teams`: corrections, what is held, and what teams spent."""

import asyncio

import pytest

from gateway.ids import new_id
from gateway.money.ledger_results import Opening
from tests.support.shell import Shell
from tests.support.store_reader import read_usage, with_ledger

pytestmark = pytest.mark.quiet_store


def test_credit_makes_room_at_once(shell: Shell) -> None:
    """Money that is given back is left again in every limit, and stands in usage and the log of changes."""
    key_id = shell.ask("keys", "create", "ana", "--team", "design", "--usd-total", "1.50")["id"]
    shell.ask("limits", "set", "--team", "design", "--usd-day", "2")
    shell.ask("credit", "--key", key_id, "--usd", "1", "--reason", "a bill that came late")
    made = shell.ask("credit", "--key", key_id, "--usd", "-0.25", "--reason", "the picture never came")
    assert (made["scope"], made["usd"]) == (key_id, "-0.250000")
    left = {one["limit"]: one["left"] for one in shell.ask("limits", "show", "--key", key_id)["standing"]}
    assert left == {"usd_total": "0.750000", "usd_day": "1.250000"}
    assert asyncio.run(read_usage(shell.url, "upstream")).total.usd == 750_000
    assert [action for _, action, _ in shell.log()][-2:] == ["credit.make", "credit.make"]
    assert shell.type("audit").exit_code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--usd", "1", "--reason", "x"), "--key KEY, --team NAME or --everyone"),
        (("--everyone", "--usd", "0", "--reason", "x"), "more or less than nothing"),
        (("--everyone", "--usd", "1,5", "--reason", "x"), "after the point: 1.50"),
        (("--everyone", "--usd", "1"), "--reason"),
    ],
)
def test_wrong_credit_is_refused(shell: Shell, words: tuple[str, ...], told: str) -> None:
    """What cannot be meant is refused, and nothing is booked."""
    typed = shell.type("credit", *words)
    assert typed.exit_code == 2
    assert told in " ".join(typed.output.replace("│", " ").split())
    assert shell.log() == []


def test_unknown_key_gets_no_credit(shell: Shell) -> None:
    """A correction of a key that does not exist is refused."""
    assert shell.type("credit", "--key", "key_none", "--usd", "1", "--reason", "x").exit_code == 1


def test_holds_are_shown(shell: Shell) -> None:
    """What a running task holds is shown with the states of its calls; what is over is not."""
    task = new_id("task")
    opening = Opening(
        task=task, key=new_id("key"), fingerprint="0" * 64, price=30_000, images=2, worker=new_id("worker"), team="a"
    )
    asyncio.run(with_ledger(shell.url, lambda ledger: ledger.open(opening)))
    (held,) = shell.ask("holds")["data"]
    assert (held["task"], held["team"], held["usd_held"], held["calls"]) == (task, "a", "0.060000", [])
    assert shell.type("holds").stdout.splitlines()[1].endswith("\t2\t0.060000\tnone yet")
    asyncio.run(with_ledger(shell.url, lambda ledger: ledger.close(task, 1)))
    assert shell.ask("holds")["data"] == []


def test_teams_are_named_by_keys_and_limits(shell: Shell) -> None:
    """Every team is shown that a key or a limit names, with its keys and its spending."""
    shell.ask("keys", "create", "ana", "--team", "design")
    shell.ask("limits", "set", "--team", "sales", "--usd-day", "2")
    shell.ask("credit", "--team", "sales", "--usd", "0.5", "--reason", "x")
    assert [(one["name"], one["keys"]) for one in shell.ask("teams")["data"]] == [("design", 1), ("sales", 0)]
    head, *rows = (line.split("\t") for line in shell.type("teams").stdout.splitlines())
    shown = [dict(zip(head, row, strict=True)) for row in rows]
    found = {one["team"]: (one["keys"], one["usd total"], one["usd day"]) for one in shown}
    assert found == {"design": ("1", "0.000000", "0.000000"), "sales": ("0", "0.500000", "0.500000")}
