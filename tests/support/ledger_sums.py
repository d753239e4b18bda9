"""What is always true of the ledger, looked at after each step: sums, journal and tasks are what the model says."""

from __future__ import annotations

from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from tests.support.ledger_model import AMOUNTS, Model, scopes
from tests.support.ledgers import Store, make_id

KEYS = {1: "", 2: "design", 3: "design"}
RISES = ("held", "void", "presumed", "posted")


class Checked(RuleBasedStateMachine):
    """A machine whose `store` must always agree with its `model`."""

    store: Store
    model: Model

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, str] = {}

    @invariant()
    def sums_agree(self) -> None:
        rows = self.store.read()
        assert all(name.startswith("{igw}:") for name in rows)  # L12
        windows = {
            (name.removeprefix("{igw}:window:").rsplit(":", 1)[0], name.rsplit(":", 1)[1]): _ints(row)
            for name, row in rows.items()
            if name.startswith("{igw}:window:")
        }
        for place, sums in self.model.totals().items():
            held = windows.get(place, {})
            assert {name: held.get(name, 0) for name in AMOUNTS} == sums, place  # L2, L3, L8
            assert held.get("usd_held", 0) >= 0 <= held.get("images_held", 0)  # L5
        folded = self.model.totals(folded_only=True)
        for place, row in windows.items():
            base = folded.get(place, {})
            assert {name: row.get(f"folded:{name}", 0) for name in AMOUNTS} == {
                name: base.get(name, 0) for name in AMOUNTS
            }, place
        self._journal_agrees(rows, windows)
        self._tasks_agree(rows)

    def _journal_agrees(self, rows: dict[str, Any], windows: dict[tuple[str, str], dict[str, int]]) -> None:
        """L6: what is in the journal and what was trimmed from it is what there is."""
        told = {place: {name: row.get(f"trimmed:{name}", 0) for name in AMOUNTS} for place, row in windows.items()}
        for entry in rows.get("{igw}:journal", []):
            for _, scope in scopes(entry["key"], entry["team"]):
                for window in (entry["day"], entry["week"], entry["month"], "total"):
                    for name in AMOUNTS:
                        told[scope, window][name] += int(entry.get(name, 0))
        for place, row in windows.items():
            assert told[place] == {name: row.get(name, 0) for name in AMOUNTS}, place

    def _tasks_agree(self, rows: dict[str, Any]) -> None:
        for scope in ("everyone", "team:design", *(f"key:{make_id('key', number)}" for number in KEYS)):
            assert _ints(rows.get(f"{{igw}}:running:{scope}", {})) == self.model.running(scope)
        holds = {name.rsplit(":", 1)[1] for name in rows if name.startswith("{igw}:hold:")}
        assert holds == {name for name, task in self.model.tasks.items() if not task.folded}
        over = {name for name, task in self.model.tasks.items() if task.is_over}
        doubtful = {name for name in over if self.model.tasks[name].is_doubtful}
        for index, members in {"open": holds - over, "ended": over - doubtful, "doubtful": doubtful}.items():
            assert {name for name, _ in rows.get(f"{{igw}}:{index}", [])} == members & holds, index
        for task in holds:
            row = rows[f"{{igw}}:hold:{task}"]
            outstanding: list[str] = []
            for field, value in row.items():
                if field.startswith("call:"):
                    state, slots = value.split()[0], value.split()[4]
                    assert RISES.index(state) >= RISES.index(self.seen.get(field, "held"))  # L4
                    self.seen[field] = state
                    outstanding += slots.split(",") if state == "held" else []
            assert len(outstanding) == len(set(outstanding))  # L9


def _ints(row: dict[str, str]) -> dict[str, int]:
    return {field: int(value) for field, value in row.items()}
