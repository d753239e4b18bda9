"""Logs: one JSON object a line, or columns on a terminal, written by a thread of its own.

No log call gets a prompt or a picture. This module hides secrets in every line, those of libraries included.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer

from gateway.net.outside_text import Mask

# httpx and similar libraries log whole URLs at INFO, with their signatures; uvicorn logs every start and stop.
_QUIET = ("uvicorn.error", "httpx", "httpcore", "asyncio", "PIL", "python_multipart")


@contextmanager
def logging_to(stream: TextIO = sys.stderr, level: str = "info", mask: Mask | None = None) -> Iterator[None]:
    """During the context, write this process's log lines from `level` on to `stream`, without the secrets of `mask`.

    Replaces the root logger's handlers. At the end of the context the log has no output.
    """
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    output = logging.StreamHandler(stream)
    output.setFormatter(_formatter(mask or Mask(), is_terminal=stream.isatty()))
    root = logging.getLogger()
    # A write may block on a full pipe, so the event loop only puts a record into a queue.
    entrance = logging.handlers.QueueHandler(lines)
    entrance.setFormatter(logging.Formatter("%(message)s"))
    entrance.prepare = lambda record: record  # type: ignore[method-assign] (the default formats, and loses structure)
    listener = logging.handlers.QueueListener(lines, output)
    root.handlers[:] = [entrance]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*_shared(), _hold_exception, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    listener.start()
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        listener.stop()
        root.handlers.clear()


def write_event(text: str, level: str = "warning", stream: TextIO | None = None) -> None:
    """Write an event of a process that has no log: a sentence on a terminal, elsewhere one JSON object a line."""
    output = sys.stderr if stream is None else stream
    if output.isatty():
        line = f"imagegate: {text}"
    else:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = orjson.dumps({"event": text, "level": level, "timestamp": now}).decode()
    # A closed terminal, or a pipe without a reader, must not end a gateway that others use.
    with suppress(OSError):
        output.write(Mask().hide_secrets(line) + "\n")
        output.flush()


def _hold_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace `exc_info=True` by the exception itself: the writing thread has no current exception."""
    if event.get("exc_info") is True:
        event["exc_info"] = sys.exc_info()
    return event


def _shared() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _formatter(mask: Mask, *, is_terminal: bool) -> logging.Formatter:
    # Without the values of variables, since some are prompts and keys.
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    described = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    render: list[Any] = [plain] if is_terminal else [described, structlog.processors.JSONRenderer()]

    def hide(_: Any, __: str, line: Any) -> str:
        return mask.hide_secrets(line)

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render, hide],
    )
