"""The little Markdown that the documents use: headings, tables, code and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_RULE = re.compile(r"^\|[\s:|-]+\|$")


@dataclass(frozen=True)
class Table:
    """One table: the heading above it, its columns, and its rows by column."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Page:
    """One document."""

    path: Path
    text: str

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """Every fenced block: its language and its text."""
        return _FENCE.findall(self.text)

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def spans(self) -> list[str]:
        """Every text between single backticks, outside of fenced blocks."""
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    @property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    @property
    def headings(self) -> list[str]:
        return _HEADING.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """The headings as GitHub names them in links."""
        plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in self.headings)
        return {name.strip().replace(" ", "-") for name in plain}

    @property
    def tables(self) -> list[Table]:
        return list(self._find_tables())

    def table(self, first_column: str) -> Table:
        """The only table whose first column has this name."""
        found = [table for table in self.tables if table.columns[0] == first_column]
        assert len(found) == 1, f"{self.path.name} has {len(found)} tables that begin with a column `{first_column}`"
        return found[0]

    def _find_tables(self) -> Iterator[Table]:
        heading, block = "", list[list[str]]()
        for line in [*self.prose.splitlines(), ""]:
            if line.startswith("|"):
                if not _RULE.match(line):
                    block.append([cell.strip() for cell in line.strip("|").split("|")])
                continue
            if block:
                columns, *rows = block
                assert all(len(row) == len(columns) for row in rows), f"{self.path.name}: uneven table at {columns}"
                yield Table(heading, tuple(columns), tuple(dict(zip(columns, row, strict=True)) for row in rows))
                block = []
            if match := _HEADING.match(line):
                heading = match[1]


def read(path: Path) -> Page:
    return Page(path, path.read_text(encoding="utf-8"))


def code(cell: str) -> list[str]:
    """The texts between backticks in one cell."""
    return re.findall(r"`([^`]+)`", cell)
