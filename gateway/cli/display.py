"""How commands show answers: a table on a terminal, lines with tabs for other programs, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.history.export import Cells, csv_line


@dataclass(frozen=True, slots=True)
class Column:
    """One column; numbers are aligned to the right. Details are left out where the terminal is too narrow."""

    name: str
    is_number: bool = False
    is_detail: bool = False


def print_json(answer: BaseModel, *, exclude_none: bool = False) -> None:
    """Print the document that the admin API answers for the same thing."""
    typer.echo(answer.model_dump_json(exclude_none=exclude_none))


def print_rows(columns: Sequence[Column], rows: Iterable[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """Print a table on a terminal, else lines with tabs, without the total."""
    if not sys.stdout.isatty():
        for row in ([column.name for column in columns], *rows):
            typer.echo("\t".join(_plain(cell) for cell in row))
        return
    console, cells = Console(), [[_plain(cell) for cell in row] for row in rows]
    shown = _fit(columns, [[column.name for column in columns], *cells], console.width)
    table = Table(show_footer=total is not None)
    for index in shown:
        column, footer = columns[index], Text(total[index] if total else "")
        # Folded, not cut: a part of an id is no use.
        table.add_column(column.name, footer, justify="right" if column.is_number else "left", overflow="fold")
    for row in cells:
        # Text, since a caller's words may look like rich's markup.
        table.add_row(*(Text(row[index]) for index in shown))
    console.print(table)


def print_csv(columns: Sequence[str], rows: Iterable[Cells]) -> None:
    """Print CSV by RFC 4180."""
    # Not echo: it would end lines as the terminal does, and CSV has line ends of its own.
    sys.stdout.write(csv_line(columns))
    for row in rows:
        sys.stdout.write(csv_line(row[column] for column in columns))


def show_cell(cell: object) -> str:
    """A value of a row as a table shows it."""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return "-" if cell in (None, "") else str(cell)


def show_moment(moment: datetime | None) -> str:
    """A date and a time to the minute; `-` for none."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def _fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns that fit: details are dropped, from the right, until the rest has room."""
    shown = list(range(len(columns)))
    needed = {index: max(len(row[index]) for row in rows) + 3 for index in shown}
    for index in reversed(range(len(columns))):
        if sum(needed[one] for one in shown) + 1 <= width:
            break
        if columns[index].is_detail:
            shown.remove(index)
    return shown


def _plain(cell: str) -> str:
    """A cell without the characters that would move the cursor or the next cell."""
    return "".join(char if char.isprintable() else "?" for char in cell)
