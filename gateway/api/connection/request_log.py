"""The log line of a request."""

from __future__ import annotations

import time
from typing import Any

import structlog
from starlette.types import Scope

from gateway import errors
from gateway.history.record import Record
from gateway.tasks.wait import TaskWait

_LONGEST = 200
"""Most characters of a caller's text in a log line."""

_log = structlog.get_logger(__name__)


def log_request(scope: Scope, status: int, started: float, *, is_whole: bool) -> None:
    """Write the log line of a request, except of one to `/healthz` or `/readyz`. Unknown facts are left out.

    `started` is the start of the request by `time.perf_counter`. If `is_whole` is false, a request with a
    CallerConnection counts as disconnected.
    """
    if scope["path"] in ("/healthz", "/readyz"):
        return
    state: dict[str, Any] = scope["state"]
    key, note, presence = (state.get(name) for name in ("key", "note", "presence"))
    task = _describe_task(presence.waiting, note.record) if presence is not None and note is not None else {}
    facts: dict[str, Any] = {
        "method": scope["method"],
        "path": _make_printable(scope["path"]),
        "status": status,
        "error": state.get("error_code") or task.pop("error", None),
        "actor": state.get("actor"),
        "key": key.id if key is not None else None,
        "key_name": key.name if key is not None else None,
        "team": key.team if key is not None else None,
        "model": _make_printable(note.model) if note is not None and note.model else None,
        **task,
        "disconnected": True if presence is not None and not is_whole else None,
        "seconds": round(time.perf_counter() - started, 3),
    }
    write = getattr(_log, _find_level(status, facts["error"]))
    write("request", **{name: value for name, value in facts.items() if value is not None})


def _describe_task(waiting: TaskWait | None, own: Record | None) -> dict[str, Any]:
    """The task of a request; after its end also its upstreams, calls, images, cost (µ$) and error.

    `own` is the request's record if it began the task in this process.
    """
    if waiting is None:
        return {}
    facts: dict[str, Any] = {"task": waiting.task, "joined": waiting.is_joined or None}
    end = None if waiting.record is None else waiting.record.end
    if own is not None and not waiting.is_joined:
        upstreams, calls, images, cost = own.upstreams, len(own.calls), own.n_delivered, own.price_settled
    elif waiting.record is not None and end is not None:
        upstreams, calls, images, cost = end.upstreams, end.calls, len(waiting.record.images), end.spent
    else:
        return facts
    error = errors.read_error(end.error).code if end is not None and end.error else None
    more = {"upstream": ",".join(upstreams) or None, "calls": calls, "images": images, "micro_usd": cost}
    return facts | more | {"error": error}


def _find_level(status: int, code: str | None) -> str:
    """The level of a request's line: `warning` for 424, 504 and pauses, `error` for others from 500 on, else `info`."""
    if code == errors.Paused.code or status in (errors.UpstreamFailed.status, errors.TaskStillRunning.status):
        return "warning"
    return "error" if status >= errors.InternalError.status else "info"


def _make_printable(text: str) -> str:
    """A caller's text, cut after 200 characters, with `?` for each character that is not printable."""
    text = text[:_LONGEST]
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
