"""`imagegate upstreams`: the shared state of every credential, shown and reset from the shell."""

from __future__ import annotations

from gateway.healthrules import HealthRules
from gateway.store.batcher import Batcher
from gateway.store.targets import Caps, Report, TargetStore
from tests.conftest import Valkey
from tests.shell import Shell


async def refuse(url: str) -> None:
    """Have the store know that one credential is refused."""
    batcher = Batcher(url)
    store, permit = TargetStore(batcher), "permit_1"
    assert await store.take("apiany/main", permit, 15, Caps()) is None
    await store.finish("apiany/main", permit, Report("none", cool=300, why="credential"), HealthRules())
    await store.note_check("apiany/main", balance="1234.5")
    await batcher.aclose()


async def test_state_is_shown_and_reset(shell: Shell, valkey: Valkey) -> None:
    """Every credential of the catalogue has a row; a reset is made, and written into the log of changes."""
    await refuse(valkey.url)
    shown = {one["label"]: one for one in shell.ask("upstreams")}
    assert list(shown) == ["anyfast/main", "anyfast-c/main", "apiany/main"]
    assert (shown["apiany/main"]["state"], shown["apiany/main"]["balance"]) == ("refused", "1234.5")
    assert shown["anyfast/main"]["state"] == "ok"
    table = [line.split("\t") for line in shell.type("upstreams").stdout.splitlines()]
    assert table[0][:4] == ["upstream", "state", "for", "in flight"]
    assert table[3][:2] == ["apiany/main", "refused"]
    after = {one["label"]: one["state"] for one in shell.ask("upstreams", "--reset", "apiany/main")}
    assert after["apiany/main"] == "ok"
    (change,) = shell.ask("changes")
    assert (change["action"], change["subject"]) == ("upstream.reset", "apiany/main")


def test_unknown_label_is_refused(shell: Shell) -> None:
    """A name that is not in the catalogue is refused with those that are."""
    done = shell.type("upstreams", "--reset", "apiany")
    assert done.exit_code == 2
    assert "apiany/main" in done.output
