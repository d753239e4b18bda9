"""Tables on a terminal: no id is folded at any width, nothing is left out in silence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import changes, history, keys, upstreams, webhooks
from gateway.cli.display import Column, print_rows
from gateway.ids import new_id


class Terminal(StringIO):
    """A terminal of some columns."""

    def isatty(self) -> bool:
        return True


def shown(
    monkeypatch: pytest.MonkeyPatch, width: int, columns: Sequence[Column], rows: Sequence[Sequence[str]]
) -> tuple[str, str]:
    """What a terminal of this width shows, and what is said beside the table."""
    out, err = Terminal(), StringIO()
    monkeypatch.setenv("COLUMNS", str(width))
    with redirect_stdout(out), redirect_stderr(err):
        print_rows(columns, rows)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()), err.getvalue()


TASK, KEY, MESSAGE = new_id("task"), new_id("key"), new_id("msg")
TIME = "2026-11-04 12:00:00"
URL = "https://receiver.example.com/hooks/images/of/the/design/team"

TABLES = {
    "keys list": (keys._TABLE, (KEY, "ana", "design", "igw_ab12…", "gpt-image-2", TIME, TIME, "enabled"), (KEY,)),
    "history": (
        history._TABLE,
        (TIME, TASK, "ana", "design", "gpt-image-2", "anyfast", "1024x1024", "1/1", "0.030000", "12.5", "200"),
        (TASK,),
    ),
    "webhooks": (
        webhooks._COLUMNS,
        (MESSAGE, "waiting", "3", "status 500", TASK, KEY, TIME, TIME, URL),
        (MESSAGE,),
    ),
    "changes": (
        [Column(name, is_detail=name in changes._DETAILS, is_text=name in changes._TEXTS) for name in changes._COLUMNS],
        (TIME, "cli:root", "limits.set", "team:design", '{"usd_day":"1.000000"}', '{"usd_day":"2.000000"}', "10.0.0.1"),
        (),
    ),
    "upstreams": (
        upstreams._COLUMNS,
        ("anyfast/main", "ok", "-", "0 of 5", "0.000000", "-", "12 s ago", "high/1K 20.1", "made size 3"),
        ("anyfast/main",),
    ),
}


def test_history_keeps_upstreams_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns the history shows time, id, upstreams and cost; a column without any value goes before those."""
    row = ("20:32:51", TASK, "ana", "-", "gpt-image-2", "anyfast", "-", "1/1", "0.030000", "12.5", "200")
    table, _ = shown(monkeypatch, 80, history._TABLE, [row])
    assert all(name in table for name in ("20:32:51", TASK, "anyfast", "0.030000"))
    _, said = shown(monkeypatch, 120, history._TABLE, [row])
    assert "too narrow for: team, size." in said


@pytest.mark.parametrize("width", [60, 80, 100, 132, 250])
@pytest.mark.parametrize("name", TABLES)
def test_no_id_is_folded(monkeypatch: pytest.MonkeyPatch, name: str, width: int) -> None:
    """At 60 columns and more every shown id is whole, the table fits, and columns that are missing are named."""
    columns, row, ids = TABLES[name]
    table, said = shown(monkeypatch, width, columns, [row])
    assert all(len(line) <= width for line in table.splitlines())
    assert all(one in table for one in ids)
    for cell, column in zip(row, columns, strict=True):
        assert column.name.split()[0] in table or column.name in said
        if cell.startswith(("task_", "key_", "msg_")) and column.name in table:
            assert cell in table
    assert ("too narrow" in said) == (said != "")


def test_wide_terminal_shows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is room, every column is there and no note."""
    for columns, row, _ in TABLES.values():
        table, said = shown(monkeypatch, 400, columns, [row])
        assert said == ""
        assert all(cell in table for cell in row)


CELLS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=40)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=3), st.integers(45, 120))
def test_words_stay_whole(rows: list[tuple[str, str, str]], width: int) -> None:
    """Whatever the cells and the width: a cell of one word is shown whole, or its column is named as missing."""
    with pytest.MonkeyPatch.context() as patch:
        table, said = shown(patch, width, [Column("A"), Column("B", is_detail=True), Column("C")], rows)
    for index, name in enumerate("ABC"):
        if f"{name}" in said.removeprefix("imagegate: This terminal is too narrow for"):
            continue
        assert all(row[index] in table for row in rows)
