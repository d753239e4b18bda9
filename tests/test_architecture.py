"""Files and functions stay short enough to be read in one go. What may import what is import-linter's business."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("gateway", "tests", "bench", "scripts") for path in (ROOT / folder).rglob("*.py"))

MAX_FILE = 400
MAX_FUNCTION = 60

LONGER: dict[str, int] = {}
"""Today's exceptions, as `file` or `file:function` with its lines. Entries may shrink or go; none may be added."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lengths(path: Path) -> dict[str, int]:
    """Lines of a file and of each of its functions."""
    text = path.read_text(encoding="utf-8")
    found = {name(path): len(text.splitlines())}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            key = f"{name(path)}:{node.name}"
            found[key] = max(found.get(key, 0), (node.end_lineno or 0) - node.lineno + 1)
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_code_stays_readable(path: Path) -> None:
    """A file has one idea and a function one concern, so neither grows past a page or a few."""
    limits = {what: LONGER.get(what, MAX_FUNCTION if ":" in what else MAX_FILE) for what in lengths(path)}
    assert {what: lines for what, lines in lengths(path).items() if lines > limits[what]} == {}


def test_exceptions_only_shrink() -> None:
    """An exception that is no longer needed, or too generous, leaves the list."""
    today = {what: lines for path in FILES for what, lines in lengths(path).items()}
    assert {what: today.get(what, 0) for what in LONGER} == LONGER
    assert len(FILES) > 50
