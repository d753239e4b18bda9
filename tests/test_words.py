"""Words: the code, its messages and the documents use plain English and the field's standard terms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

BANNED = {
    "whom|who(m|so)?ever": "name the person or the thing",
    "hardly|thrice|alas|save for|in vain|in one breath|outdo(es)?": "plain English",
    "for want of": "without, not configured",
    "left alone": "circuit open",
    "braked": "paused by the spend limit",
    "(told|tells?) of|(is|are|was|were|be|been|not|and) told": "reported, notified",
    "hang(s|ing)?[ -]up|hung up|callers? (has |have )?left": "the caller disconnected",
    "(bad|refused) credentials?": "credential rejected",
    "knock(s|ed|ing)?": "retry",
    "bur(y|ies|ied)": "expire",
    "heirs?|inherit(s|ance)?": "adopter, adopt",
    "caretak(er|ing)": "health checks",
    "darkroom": "picture converter",
    "lifelines?": "worker lock",
    "(money|store|ledger) (is )?away": "the ledger is unavailable",
}
"""Words that no docstring, comment, message or page may contain, and better ones."""

PROSE = re.compile(rf"\b(?:{'|'.join(f'(?P<w{at}>{words})' for at, words in enumerate(BANNED))})\b")

BEGINNINGS = re.compile(r"(What|Whatever|Who|Whose|Which|Whether)\b")
"""Words that begin no docstring: begin with a noun, a verb or `True when`."""

USERS = re.compile(
    r"\b(Used|Called|Asked|Read|Made|Opened|Begun|Added|Run|Handed|Imported) by (`|the |every |all |each )"
)
"""No docstring says which modules use a module."""

METAPHOR = re.compile(
    r"(?:^|_)(?:batcher|bury|buried|caretaker|crowd|darkroom|doubting|ear|heirs?|headroom|knock|lifelines?|outwait|pulse"
    r"|tally|twin|whom|witness|see_off|let_in)(?:_|$)"
)
"""Words that no module, class, function, argument, variable or attribute has in its name."""

NAMES = re.compile(r"\b(?:def|class) (\w+)|\b([A-Za-z_]\w+)(?= ?[:=][^=])")
"""Names that are defined, annotated or assigned."""

EXCEPTIONS: dict[str, int] = {
    # A word of the store, from which the state is read.
    "gateway/health/health.py": 1,
}
"""The number of findings that a file may still have. It may only shrink."""


def test_words_are_plain() -> None:
    """No file has more findings than before, and no exception is larger than needed."""
    found = {name: hits for name, hits in read_all() if len(hits) != EXCEPTIONS.get(name, 0)}
    found |= {name: [] for name in EXCEPTIONS if not (ROOT / name).exists()}
    lines = [f'    "{name}": {len(hits)},  # {"; ".join(hits)}' for name, hits in found.items()]
    assert not found, "write these in plain words; where there are fewer than before, lower the number:\n" + "\n".join(
        lines
    )


def read_all() -> Iterator[tuple[str, list[str]]]:
    """Each file that the rules are for, and its findings."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for path in (*sorted((ROOT / "gateway").rglob("*.py")), *sorted((ROOT / "gateway").rglob("*.lua")), *pages):
        text = path.read_text(encoding="utf-8")
        words = [f"{match[0]!r} ({better(match)})" for match in PROSE.finditer(read_prose(path.suffix, text))]
        found = [*search_names(path.stem, text), *words] if path.suffix == ".py" else words
        yield path.relative_to(ROOT).as_posix(), found


def better(match: re.Match[str]) -> str:
    return list(BANNED.values())[int((match.lastgroup or "w0")[1:])]


def read_prose(suffix: str, text: str) -> str:
    """A page, or the code with its docstrings, comments and messages, without names in backticks; lower case."""
    if suffix == ".lua":
        text = " ".join(re.findall(r"(?m)(?:^|\s)-- (.*)$", text))
    elif suffix == ".md":
        text = re.sub(r"(?ms)^```.*?^```|\]\([^)\s]*\)", " ", text)
    else:
        # Comments and messages that go on in the next line.
        text = re.sub(r"(?m)^\s*# ?|\"\n\s*f?\"", " ", text)
    return " ".join(re.sub(r"`[^`\n]*`", " ", text).lower().split())


def search_names(stem: str, text: str) -> Iterator[str]:
    """What is wrong with the names and the docstrings of a module."""
    for docstring in re.findall(r'(?ms)^\s*"""(.*?)"""', text):
        if match := BEGINNINGS.match(docstring):
            yield f"docstring begins with {match[0]}"
        yield from (f"{match[0]!r} in a docstring" for match in USERS.finditer(docstring))
    names = {stem} | {first or second for first, second in NAMES.findall(text)}
    for name in sorted(names):
        if METAPHOR.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()):
            yield f"name {name}"
