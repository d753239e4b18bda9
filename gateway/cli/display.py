"""The output of commands: a table on a terminal, lines with tabs for other programs, CSV, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.output import say
from gateway.history.export import Cells, csv_line

_FOLDED = 16
"""The least width of a column of texts that may be folded anywhere."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. Numbers are aligned to the right.

    A narrow terminal wraps cells at spaces. It wraps the cells of an `is_text` column anywhere. If that is not enough,
    whole columns are left out, but never the first. The `is_detail` columns go first: those without any value, then
    those of least `worth`, and of equals the rightmost. Then the other columns go, from the right.
    """

    name: str
    is_number: bool = False
    is_detail: bool = False
    is_text: bool = False
    worth: int = 0


def print_json(answer: BaseModel, *, exclude_none: bool = False) -> None:
    """Print one model as one line of JSON, in the admin API's form; `exclude_none` leaves out fields that are None."""
    typer.echo(answer.model_dump_json(exclude_none=exclude_none))


def print_rows(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    total: Sequence[str] | None = None,
    remedy: str = "--json shows everything.",
) -> None:
    """Print a table on a terminal; elsewhere lines with tabs, the columns' names first, without the total.

    A terminal that is too narrow for all columns gets a line on stderr with the others' names and the `remedy`.
    """
    if not sys.stdout.isatty():
        for row in ([column.name for column in columns], *rows):
            typer.echo("\t".join(_plain(cell) for cell in row))
        return
    console, cells = Console(), [[_plain(cell) for cell in row] for row in rows]
    widths = _fit(columns, [[column.name for column in columns], *cells, *([total] if total else [])], console.width)
    table = Table(show_footer=total is not None)
    for index, width in widths.items():
        column, footer = columns[index], Text(total[index] if total else "")
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(column.name, footer, justify=justify, overflow="fold", width=width)
    for row in cells:
        # Text, since a caller's words may look like rich's markup.
        table.add_row(*(Text(row[index]) for index in widths))
    console.print(table)
    if missing := [column.name for index, column in enumerate(columns) if index not in widths]:
        say(f"This terminal is too narrow for: {', '.join(missing)}. {remedy}")


def print_csv(columns: Sequence[str], rows: Iterable[Cells]) -> None:
    """Print CSV as in RFC 4180, with the columns' names in the first line."""
    # Not echo: it would end lines as the terminal does, and CSV has line ends of its own.
    sys.stdout.write(csv_line(columns))
    for row in rows:
        sys.stdout.write(csv_line(row[column] for column in columns))


def show_cell(cell: object) -> str:
    """A value as a table shows it: `yes` or `no` for a bool, `-` for None and the empty text."""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return "-" if cell in (None, "") else str(cell)


def show_moment(moment: datetime | None) -> str:
    """A date and a time to the minute; `-` for none."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def _fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> dict[int, int]:
    """The indexes of the columns that fit, with their widths. Only an `is_text` column may fold a word or an id."""
    full = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    least = [
        min(full[index], _FOLDED) if column.is_text else max(len(word) for row in rows for word in _words(row[index]))
        for index, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    details = [index for index in reversed(shown) if columns[index].is_detail]
    details.sort(key=lambda index: (any(row[index] != "-" for row in rows[1:]), columns[index].worth))
    # The first column names the row.
    for index in (*details, *(index for index in reversed(shown[1:]) if not columns[index].is_detail)):
        if _sum_widths(least, shown) <= width:
            break
        shown.remove(index)
    spare = max(0, width - _sum_widths(least, shown))
    widths = dict[int, int]()
    # The columns with the smallest needs first, so that none takes what others could use.
    for number, index in enumerate(sorted(shown, key=lambda one: full[one] - least[one])):
        extra = min(full[index] - least[index], spare // (len(shown) - number))
        widths[index] = least[index] + extra
        spare -= extra
    return {index: widths[index] for index in shown}


def _sum_widths(widths: Sequence[int], shown: Sequence[int]) -> int:
    """The width of a table: each column has a space on both sides and a line."""
    return sum(widths[index] + 3 for index in shown) + 1


def _words(text: str) -> list[str]:
    return text.split() or [""]


def _plain(cell: str) -> str:
    """A cell with `?` for each character that is not printable: it could move the cursor or the next cell."""
    return "".join(char if char.isprintable() else "?" for char in cell)
