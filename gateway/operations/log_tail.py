"""The end of a log file of JSON lines, with the facts that can quote nobody: names, codes, ids and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import orjson

MOST_BYTES = 2_000_000
MOST_LINES = 2_000

_FIELDS = frozenset(
    {
        *("timestamp", "level", "log_level", "logger", "request", "method", "status", "error", "key", "task", "call"),
        *("upstream", "calls", "images", "seconds", "joined", "disconnected", "verdict", "reason"),
        *("tasks", "posts", "worker", "workers", "outbox", "step", "waiting"),
    }
)
_TOKEN = re.compile(r"[\w.:/,+-]{1,120}")
"""The form of ids, codes, labels and times. A longer text, or one with spaces, is left out."""

_EVENT_LENGTH = 200


def read_log_tail(path: Path) -> dict[str, Any]:
    """Return the last lines of a log as JSON values, oldest first, and the number of lines that are left out.

    A line that is no JSON object with an event is left out as a whole. Raises OSError.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MOST_BYTES))
        # The first of them may be the rest of a line.
        lines = file.read(MOST_BYTES).splitlines()[-MOST_LINES:]
    found = [_read_line(line) for line in lines]
    kept = [one for one in found if one is not None]
    return {"lines": kept, "left_out": len(found) - len(kept)}


def _read_line(line: bytes) -> dict[str, Any] | None:
    try:
        facts = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(facts, dict) or not isinstance(event := cast(dict[str, Any], facts).get("event"), str):
        return None
    return {"event": event[:_EVENT_LENGTH], **dict(_keep_facts(cast(dict[str, Any], facts)))}


def _keep_facts(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if name in _FIELDS and (
            isinstance(value, bool | int | float) or (isinstance(value, str) and _TOKEN.fullmatch(value))
        ):
            yield name, value
        elif name == "exception" and isinstance(value, list):
            yield name, [_describe_exception(one) for one in cast(list[Any], value) if isinstance(one, dict)]


def _describe_exception(one: dict[str, Any]) -> dict[str, Any]:
    """The type of an exception and the places that it passed, without its text."""
    frames = [each for each in one.get("frames", ()) if isinstance(each, dict)]
    places = [
        f"{Path(str(each.get('filename', ''))).name} {each.get('name')} line {each.get('lineno')}" for each in frames
    ]
    return {"type": str(one.get("exc_type", "")), "frames": places}
