"""Lua scripts: read from `scripts/`, and joined with their shared part and their owner's names in Redis.

A script's text begins with a version, so that two releases side by side each run their own.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.resources import files

from gateway.store import names

VERSION = 1
"""The version of the stored fields. Raise it when the meaning of one changes."""

SHARED = "lib"
LEDGER = "money.ledger"


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its `body`, behind what it uses of the part that it shares with its folder.

    A server that has its text runs it by its SHA-1 `digest`.
    """

    name: str
    shared: str
    body: str
    text: str = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        text = f"-- imagegate {VERSION} {self.name}\n{_select(self.shared, self.body)}{self.body}"
        object.__setattr__(self, "text", text)
        # EVALSHA names a script by its SHA-1; nothing depends on the strength of the hash.
        object.__setattr__(self, "digest", hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def read_sources(*inner: str) -> dict[str, str]:
    """Return the text of every `.lua` file in `scripts/`, or in a folder inside it, by its name without the ending."""
    folder = files("gateway.store").joinpath("scripts", *inner)
    return {
        entry.name.removesuffix(".lua"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".lua")
    }


def join_scripts(sources: Mapping[str, str], *owners: str) -> dict[str, Script]:
    """Return complete scripts, by name. Each has the Redis names of `owners`; without owners, those of the ledger."""
    shared = f"{_list_names(owners or (LEDGER,))}\n{sources.get(SHARED, '')}"
    return {name: Script(name, shared, body) for name, body in sources.items() if name != SHARED}


@functools.lru_cache(maxsize=100)
def chain_scripts(steps: tuple[Script, ...]) -> Script:
    """One script that runs several in turn. Steps of one folder share its part, and so the tasks that they have read.

    Its arguments are, for each step: the number of the step's arguments, the first word of an answer after which the
    next step runs ("" for any answer), and the arguments. It answers a list of the answers. A step that fails answers
    `error` and its text. The writes of the other steps stay.
    """
    families: dict[str, list[str]] = {}
    for number, step in enumerate(steps, 1):
        families.setdefault(step.shared, []).append(f"STEPS[{number}] = function()\n{step.body}\nend")
    joined = {shared: "\n".join(bodies) for shared, bodies in families.items()}
    parts = [f"do\n{_select(shared, bodies)}{bodies}\nend" for shared, bodies in joined.items()]
    return Script(" ".join(step.name for step in steps), _CHAIN_HEAD, "\n".join((*parts, _CHAIN_END)))


_DEFINITION = re.compile(r"^local (?:function )?(\w+(?:, \w+)*)", re.MULTILINE)
_WORD = re.compile(r"\w+")
_COMMENT = re.compile(r"--.*")


def _select(shared: str, body: str) -> str:
    """Return the definitions of a shared part that a body uses, with those that they use themselves.

    The server makes each of them anew for each run of the script. A definition begins with `local` at the begin of a
    line, and ends before the next one.
    """
    begins = list(_DEFINITION.finditer(shared))
    ends = [begin.start() for begin in begins[1:]] + [len(shared)]
    words, used = set(_WORD.findall(body)), list[str]()
    for begin, end in reversed(list(zip(begins, ends, strict=True))):
        if not words.isdisjoint(begin[1].split(", ")):
            text = _COMMENT.sub("", shared[begin.start() : end])
            words.update(_WORD.findall(text))
            used.append(text.rstrip() + "\n")
    return "".join(reversed(used))


_CHAIN_HEAD = "local ARGV, STEPS = ARGV, {}"
_CHAIN_END = """
local all, first, answers = ARGV, 1, {}
for number, step in ipairs(STEPS) do
  local count, wanted = tonumber(all[first]), all[first + 1]
  ARGV = {unpack(all, first + 2, first + 1 + count)}
  first = first + 2 + count
  local is_good, answer = pcall(step)
  if not is_good then answer = {'error', tostring(type(answer) == 'table' and answer.err or answer)} end
  answers[number] = answer
  if wanted ~= '' and answer[1] ~= wanted then break end
end
return answers
"""


def _list_names(owners: Collection[str]) -> str:
    pairs = (f"{name.stem.replace('-', '_')} = '{name()}'" for name in names.NAMES if name.owner in owners)
    return f"local NAME = {{{', '.join(pairs)}}}"
