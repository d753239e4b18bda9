"""Small mistakes in Lua scripts, one at a time: a turned comparison, a number one off, a statement left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_SWAPS = {
    "==": ("~=",),
    "~=": ("==",),
    "<": ("<=",),
    "<=": ("<",),
    ">": (">=",),
    ">=": (">",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "and": ("or",),
    "or": ("and",),
    "not": ("",),
    "true": ("false",),
    "false": ("true",),
    "min": ("max",),
    "max": ("min",),
    "ceil": ("floor",),
    "floor": ("ceil",),
}

_TOKEN = re.compile(
    r"(?P<comment>--[^\n]*)"
    r"|(?P<text>'(?:\\.|[^'\\\n])*')"
    r"|(?P<number>\b\d+\b)"
    r"|(?P<word>\b[A-Za-z_]\w*\b)"
    r"|(?P<sign>==|~=|<=|>=|\.\.|[<>+*-])"
)

_STATEMENT = re.compile(
    r"^\s*(redis\.call\(|write_slot\(|write_call\(|book\(|index_ended\(|count_running\(|keep_windows\(|note_call\("
    r"|add_\w+\(|invalid\(|if [^\n]* end$|return [^\n]*$|[\w.\[\], ]+ = [^\n]*$)"
)
_OPENS = re.compile(r"\b(function|do|then|repeat)\b")
_ENDS = re.compile(r"\b(end|until)\b")


@dataclass(frozen=True, slots=True)
class Mutation:
    """One mistake: the file, the number of its line from 1, the right line and the wrong one."""

    file: str
    number: int
    right: str
    wrong: str

    @property
    def name(self) -> str:
        """A name that stays while other lines change."""
        return f"{self.file}: {self.right.strip()} -> {self.wrong.strip() or '(left out)'}"

    def apply(self, text: str) -> str:
        lines = text.split("\n")
        assert lines[self.number - 1] == self.right, self
        lines[self.number - 1] = self.wrong
        return "\n".join(lines)


def list_mutations(sources: Mapping[str, str]) -> list[Mutation]:
    """Every mistake in these scripts, by file and line; each name once."""
    found = {one.name: one for file, text in sorted(sources.items()) for one in _list_of(file, text)}
    return list(found.values())


def _list_of(file: str, text: str) -> Iterator[Mutation]:
    for number, line in enumerate(text.split("\n"), 1):
        for wrong in _list_wrong(line):
            if wrong != line:
                yield Mutation(file, number, line, wrong)


def _list_wrong(line: str) -> Iterator[str]:
    for token in _TOKEN.finditer(line):
        if token.lastgroup == "comment":
            break
        if token.lastgroup == "number":
            # The place of an argument is no number that anybody reckons with.
            is_place = line.endswith("ARGV[", 0, token.start())
            neighbours = (str(int(token[0]) + 1), str(max(0, int(token[0]) - 1)))
            replacements: tuple[str, ...] = () if is_place else neighbours
        else:
            replacements = () if token.lastgroup == "text" else _SWAPS.get(token[0], ())
        for replacement in replacements:
            yield line[: token.start()] + replacement + line[token.end() :]
    if _is_statement(line):
        yield re.match(r"\s*", line)[0]  # type: ignore[index] (it always matches)


def _is_statement(line: str) -> bool:
    """True when the line is a whole statement, so that the script is still one without it."""
    code = _TOKEN.sub(lambda token: "" if token.lastgroup in ("comment", "text") else token[0], line).rstrip()
    is_whole = code.count("(") == code.count(")") and code.count("{") == code.count("}")
    is_closed = len(_OPENS.findall(code)) == len(_ENDS.findall(code)) and not code.endswith(("=", ",", "and", "or"))
    is_declared = code.lstrip().startswith("local ")
    return bool(_STATEMENT.match(line)) and is_whole and is_closed and not is_declared
