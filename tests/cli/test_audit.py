"""`imagegate audit`: tells what differs, repairs it when told to, and takes a store that was put back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.ids import new_id
from gateway.money.ledger_results import Opening
from tests.conftest import Valkey
from tests.support.ledgers import make_ledger
from tests.support.processes import imagegate
from tests.support.shell import Shell

pytestmark = pytest.mark.quiet_store

TOTAL = "{igw}:window:everyone:total"


async def spend(valkey: Valkey) -> None:
    """One image for 4.2 cents."""
    ledger, command_queue = make_ledger(valkey.url, None)
    task, call = new_id("task"), new_id("call")
    await ledger.open(Opening(task, new_id("key"), "f" * 64, 42_000, 1, new_id("worker")))
    await ledger.mark_sent(task, call, [0], 42_000, 1)
    await ledger.post(task, call, 42_000, 1)
    await ledger.close(task, 1)
    await command_queue.aclose()


def test_nothing_differs(shell: Shell) -> None:
    """A ledger that is right has exit code 0, also an empty one."""
    assert shell.ask("audit")["differences"] == []
    done = shell.type("audit")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "all agree" in done.stderr


def test_difference_is_told_and_repaired(shell: Shell, valkey: Valkey) -> None:
    """A wrong total is shown in dollars with what it must be; --apply repairs it, and the log says who did."""
    shell.look(lambda _: spend(valkey))
    shell.look(lambda redis: redis.hset(TOTAL, "usd_posted", 1))
    done = shell.type("audit")
    assert done.exit_code == 1
    assert "--apply" in done.stderr
    head, row = (line.split("\t") for line in done.stdout.splitlines())
    assert dict(zip(head, row, strict=True)) == {
        "kind": "sum",
        "place": "everyone total",
        "name": "usd_posted",
        "found": "0.000001",
        "tasks": "0.042000",
        "journal": "0.042000",
        "right": "0.042000",
    }
    found = json.loads(shell.type("audit", "--json").stdout)
    assert (len(found["differences"]), "repaired" in found) == (1, False)
    repaired = shell.ask("audit", "--apply")
    assert repaired["differences"] == found["differences"]
    assert shell.ask("audit")["differences"] == []
    assert shell.look(lambda redis: redis.hget(TOTAL, "usd_posted")) == "42000"
    assert [(action, subject) for _, action, subject in shell.log()] == [("ledger.repair", "ledger")]


def test_damaged_text_is_shown(shell: Shell, valkey: Valkey) -> None:
    """What is no number any more is shown as it is."""
    shell.look(lambda _: spend(valkey))
    shell.look(lambda redis: redis.hset(TOTAL, "usd_held", "x\ty"))
    assert "x?y" in shell.type("audit").stdout
    assert shell.ask("audit", "--apply")["repaired"]
    assert shell.ask("audit")["differences"] == []


def test_acceptance_is_written_down(shell: Shell) -> None:
    """--accept begins a new epoch, which the log of changes has."""
    accepted = shell.ask("audit", "--accept")["accepted"]
    assert shell.look(lambda redis: redis.get("{igw}:epoch")).startswith(f"{accepted} accepted ")
    assert [(action, subject) for _, action, subject in shell.log()] == [("ledger.accept", "ledger")]


@pytest.mark.parametrize("epoch", [None, "epoch_" + "1" * 26 + " created 5"])
def test_mark_of_lost_store_is_reported(shell: Shell, epoch: str | None) -> None:
    """A store that a gateway has marked as lost has exit code 1 and says so, though all sums agree, until accepted."""
    shell.look(lambda redis: redis.set("{igw}:lost", "" if epoch is None else epoch.partition(" ")[0]))
    if epoch is not None:
        shell.look(lambda redis: redis.set("{igw}:epoch", epoch))
    done = shell.type("audit")
    assert (done.exit_code, "emptied or restored" in done.stderr) == (1, True)
    assert shell.ask("audit", "--accept")["spending_closed"] is False
    assert shell.type("audit").exit_code == 0


def test_folder_tells_of_lost_store(tmp_path: Path) -> None:
    """A data folder whose store is another one has exit code 1 until that is accepted; no gateway need run."""
    data = tmp_path / "data"
    where = ("--data-dir", str(data))
    (data / "valkey").mkdir(parents=True)
    assert imagegate("audit", "--accept", *where).returncode == 0
    kept = (data / "ledger.id").read_text()
    (data / "ledger.id").write_text("epoch_" + "0" * 26 + " created 1")
    lost = imagegate("audit", "--json", *where)
    assert (lost.returncode, json.loads(lost.stdout)["spending_closed"]) == (1, True)
    assert imagegate("audit", "--accept", *where).returncode == 0
    assert (data / "ledger.id").read_text() != kept
    assert imagegate("audit", *where).returncode == 0
