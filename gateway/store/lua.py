"""Lua scripts: read from `scripts/`, and joined with their shared part and their owner's names in Redis.

A script's text begins with a version, so that two releases side by side each run their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files

from gateway.store import names

VERSION = 1
"""The version of the stored fields. Raise it when the meaning of one changes."""

SHARED = "lib"
LEDGER = "money.ledger"


@dataclass(frozen=True, slots=True)
class Script:
    """One script, and its SHA-1 digest, by which a server runs it once it has its text."""

    name: str
    text: str
    digest: str


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
    return {name: _join(name, shared, body) for name, body in sources.items() if name != SHARED}


def _join(name: str, shared: str, body: str) -> Script:
    text = f"-- imagegate {VERSION} {name}\n{shared}\n{body}"
    # EVALSHA names a script by its SHA-1; nothing depends on the strength of the hash.
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _list_names(owners: Collection[str]) -> str:
    pairs = (f"{name.stem.replace('-', '_')} = '{name()}'" for name in names.NAMES if name.owner in owners)
    return f"local NAME = {{{', '.join(pairs)}}}"
