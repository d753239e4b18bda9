"""Logs: one JSON object a line, or columns on a terminal, written by a thread of its own.

No log call gets a prompt or a picture. This module hides secrets in every line, those of libraries included.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, TextIO

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer
from typing_extensions import override

from gateway.net.outside_text import Mask

# httpx and similar libraries log whole URLs at INFO, with their signatures; uvicorn logs every start and stop.
_QUIET = ("uvicorn.error", "httpx", "httpcore", "asyncio", "PIL", "python_multipart")

_GATHER_S = 0.05
"""Seconds in which lines gather before they are written together: a wake-up of the thread costs more than a line."""

_AS_TEXT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
"""Values that are written as their `repr`, as every other value is that JSON does not know."""

_Facts = MutableMapping[str, Any]


@contextmanager
def logging_to(stream: TextIO = sys.stderr, level: str = "info", mask: Mask | None = None) -> Iterator[None]:
    """During the context, write this process's log lines from `level` on to `stream`, without the secrets of `mask`.

    Replaces the root logger's handlers. At the end of the context the log has no output.
    """
    output = _Output(stream, mask or Mask())
    root = logging.getLogger()
    root.handlers[:] = [_Entrance(output)]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _hold_exception,
            output.put,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    output.start()
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        output.stop()
        root.handlers.clear()


def write_event(text: str, level: str = "warning", stream: TextIO | None = None) -> None:
    """Write an event of a process that has no log: a sentence on a terminal, elsewhere one JSON object a line."""
    output = sys.stderr if stream is None else stream
    if output.isatty():
        line = f"imagegate: {text}"
    else:
        line = orjson.dumps({"event": text, "level": level, "timestamp": _now()}).decode()
    # A closed terminal, or a pipe without a reader, must not end a gateway that others use.
    with suppress(OSError):
        output.write(Mask().hide_secrets(line) + "\n")
        output.flush()


class _Output:
    """A thread that makes lines of facts and writes them: a write may block on a full pipe."""

    def __init__(self, stream: TextIO, mask: Mask) -> None:
        self._stream = stream
        self._mask = mask
        self._render = _render_columns() if stream.isatty() else _render_json
        self._lines: SimpleQueue[_Facts | None] = SimpleQueue()
        self._is_ending = Event()
        self._thread = Thread(target=self._write_lines, name="log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write all lines, and end the thread."""
        self._is_ending.set()
        self._lines.put(None)
        self._thread.join()

    def put(self, _: Any, __: str, facts: _Facts) -> str:
        """Take the facts of a line. The last of structlog's processors."""
        if not self._is_ending.is_set():
            self._lines.put(facts)
        return ""

    def _write_lines(self) -> None:
        while True:
            batch = [self._lines.get()]
            self._is_ending.wait(_GATHER_S)
            with suppress(Empty):
                while True:
                    batch.append(self._lines.get_nowait())
            text = "".join(f"{self._describe(facts)}\n" for facts in batch if facts is not None)
            # Nobody reads the log any more: the gateway goes on.
            with suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()
            if None in batch:
                return

    def _describe(self, facts: _Facts) -> str:
        try:
            return self._mask.hide_secrets(self._render(facts))
        except Exception as error:  # noqa: BLE001 (the `repr` of a value may raise anything; the thread lives on)
            return _render_json({"event": "a log line is lost", "error": type(error).__name__, "timestamp": _now()})


class _Entrance(logging.Handler):
    """Takes the lines of libraries, which log by the standard library."""

    def __init__(self, output: _Output) -> None:
        super().__init__()
        self._output = output

    @override
    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        facts: dict[str, Any] = {"event": record.getMessage(), "level": level, "timestamp": _now()}
        if record.exc_info:
            facts["exc_info"] = record.exc_info
        if record.stack_info:
            facts["stack"] = record.stack_info
        self._output.put(None, level, facts)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _hold_exception(_: Any, __: str, facts: _Facts) -> _Facts:
    """Replace `exc_info=True` by the exception itself: the writing thread has no current exception."""
    if facts.get("exc_info") is True:
        facts["exc_info"] = sys.exc_info()
    return facts


# Without the values of variables, since some are prompts and keys.
_describe_exception = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def _render_json(facts: _Facts) -> str:
    if "exc_info" in facts:
        facts = _describe_exception(None, "", facts)
    # The other encoder takes what this one refuses, and escapes characters outside ASCII: some would break a line.
    with suppress(TypeError):
        text = orjson.dumps(facts, repr, _AS_TEXT).decode()
        if text.isascii():
            return text
    return json.dumps(facts, default=repr)


def _render_columns() -> Callable[[_Facts], str]:
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return lambda facts: console(None, "", facts)
