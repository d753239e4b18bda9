"""The code stays easy to find one's way in: short files, few folders, and names that mean one thing each.

import-linter holds the rules of what may import what.
"""

import ast
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("gateway", "tests", "bench", "scripts") for path in (ROOT / folder).rglob("*.py"))

MAX_FILE = 400
MAX_FUNCTION = 60
MAX_FOLDERS = 22
MAX_TOP_FILES = 8
MAX_LAYERS = 15

NOUNS_IN_ING = {"pricing", "routing", "housekeeping"}
"""Names in -ing that are nouns of the field."""

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


def test_code_stays_readable() -> None:
    """A file has at most 400 lines and a function 60, but for the exceptions, which only shrink."""
    today = {what: lines for path in FILES for what, lines in lengths(path).items()}
    longer = {what: lines for what, lines in today.items() if lines > (MAX_FUNCTION if ":" in what else MAX_FILE)}
    assert longer == LONGER
    assert len(FILES) > 50


def modules() -> list[Path]:
    """Every module of the gateway itself; the simulator stands alone."""
    return [path for path in FILES if path.is_relative_to(ROOT / "gateway") and "simulator" not in path.parts]


def test_top_level_is_seen_at_a_glance() -> None:
    """`ls gateway` shows at most 22 folders beside the simulator, and 8 files."""
    top = {path.relative_to(ROOT / "gateway").parts[0] for path in FILES if path.is_relative_to(ROOT / "gateway")}
    files = {one for one in top if one.endswith(".py")}
    folders = top - files - {"simulator"}
    assert len(folders) <= MAX_FOLDERS, sorted(folders)
    assert len(files) <= MAX_TOP_FILES, sorted(files)


def test_layers_fit_on_a_page() -> None:
    """The order of the layers is a list of at most 15 lines, and no circle is allowed at any depth."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {each["type"]: each for each in project["tool"]["importlinter"]["contracts"]}
    assert len(contracts["layers"]["layers"]) <= MAX_LAYERS
    assert contracts["layers"]["exhaustive"] is True
    assert contracts["acyclic_siblings"]["ancestors"] == ["gateway"]


def test_class_names_mean_one_thing() -> None:
    """No public class of the gateway shares its name with another class or type."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name(path))
    assert {one: found for one, found in places.items() if len(found) > 1} == {}
    assert len(places) > 200


def test_modules_are_nouns() -> None:
    """No gerund names a module, but for the few that are the field's own nouns."""
    stems = {part for path in modules() for part in path.relative_to(ROOT / "gateway").with_suffix("").parts}
    assert {stem for stem in stems if stem.endswith("ing")} <= NOUNS_IN_ING
