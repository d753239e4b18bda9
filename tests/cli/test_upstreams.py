"""`imagegate upstreams`: the shared state of every credential, shown and reset from the shell."""

from __future__ import annotations

import asyncio

from gateway.catalogue.upstream import HealthRules
from gateway.health.condition import Caps
from gateway.health.drift import DriftBook
from gateway.health.health import CallReport, TargetStore
from gateway.store.client import CommandQueue, connect
from tests.conftest import Valkey
from tests.support.shell import Shell


async def refuse(url: str) -> None:
    """Have the store know that one credential is rejected."""
    command_queue = CommandQueue(url)
    store, permit = TargetStore(command_queue), "permit_1"
    assert await store.take("apiany/main", permit, 15, Caps()) is None
    await store.finish("apiany/main", permit, CallReport("none", cool=300, why="credential"), HealthRules())
    await store.note_check("apiany/main", balance="1234.5")
    await command_queue.aclose()
    redis = connect(url)
    book = DriftBook(redis)
    book.note("apiany", "refused", "quality")
    async with asyncio.timeout(5):
        while book.outbox.waiting:
            await asyncio.sleep(0.01)
    await redis.aclose()


async def test_state_is_shown_and_reset(shell: Shell, valkey: Valkey) -> None:
    """Every credential of the catalogue has a row; a reset is made, and written into the log of changes."""
    await refuse(valkey.url)
    shown = {one["label"]: one for one in shell.ask("upstreams")["data"]}
    assert list(shown) == ["anyfast/main", "anyfast-c/main", "apiany/main"]
    assert (shown["apiany/main"]["state"], shown["apiany/main"]["balance"]) == ("credential_rejected", "1234.5")
    assert shown["anyfast/main"]["state"] == "ok"
    (drift,) = shown["apiany/main"]["drift"]
    assert (drift["kind"], drift["what"], drift["count"]) == ("refused", "quality", 1)
    assert shown["anyfast/main"]["drift"] == []
    table = [line.split("\t") for line in shell.type("upstreams").stdout.splitlines()]
    assert table[0][:4] == ["upstream", "state", "time left", "in flight"]
    assert table[3][:2] == ["apiany/main", "credential rejected"]
    after = {one["label"]: one["state"] for one in shell.ask("upstreams", "--reset", "apiany/main")["data"]}
    assert after["apiany/main"] == "ok"
    (change,) = shell.ask("changes")["data"]
    assert (change["action"], change["subject"]) == ("upstream.reset", "apiany/main")


async def test_drift_is_cleared(shell: Shell, valkey: Valkey) -> None:
    """Once the catalogue is right, what was counted of an upstream is forgotten, and who did it is written down."""
    await refuse(valkey.url)
    after = {one["label"]: one for one in shell.ask("upstreams", "--clear-drift", "apiany")["data"]}
    assert after["apiany/main"]["drift"] == []
    assert after["apiany/main"]["state"] == "credential_rejected"
    (change,) = shell.ask("changes")["data"]
    assert (change["action"], change["subject"]) == ("upstream.clear_drift", "apiany")
    assert change["before"] == {"refused quality": 1}
    wrong = shell.type("upstreams", "--clear-drift", "apiany/main")
    assert wrong.exit_code == 1
    assert "anyfast, anyfast-c, apiany" in wrong.output


def test_unknown_label_is_refused(shell: Shell) -> None:
    """A name that is not in the catalogue is refused with those that are."""
    done = shell.type("upstreams", "--reset", "apiany")
    assert done.exit_code == 1
    assert "apiany/main" in done.output
