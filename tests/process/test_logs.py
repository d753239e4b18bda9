"""`gateway.process.logs`: lines that machines can read, without a secret."""

import io
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from gateway.callers.key_store import make_secret
from gateway.net.outside_text import Mask
from gateway.process.logs import logging_to, write_event

SECRET = make_secret()


def lines_of(speak: Callable[[], None], level: str = "info") -> list[dict[str, object]]:
    stream = io.StringIO()
    with logging_to(stream, level):
        speak()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_objects() -> None:
    """Off a terminal every line is one JSON object with its time, level and facts."""
    (line,) = lines_of(lambda: structlog.get_logger("x").warning("call failed", upstream="apiany", n=3))
    assert line["event"] == "call failed"
    assert line["level"] == "warning"
    assert (line["upstream"], line["n"]) == ("apiany", 3)
    assert str(line["timestamp"]).endswith("Z")


def test_other_libraries_are_included() -> None:
    """What other libraries say by the standard library becomes the same kind of line."""
    (line,) = lines_of(lambda: logging.getLogger("some.library").error("died: %s", "why"))
    assert line["event"] == "died: why"


def test_exceptions_stay_on_one_line() -> None:
    """A traceback is part of its line's object."""

    def fail() -> None:
        try:
            raise ValueError("no")
        except ValueError:
            structlog.get_logger("x").exception("broke")

    (line,) = lines_of(fail)
    assert "ValueError" in json.dumps(line["exception"])


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["collected", "terminal"])
def test_exceptions_tell_no_values(stream: io.StringIO) -> None:
    """A traceback names lines and not what variables held; a key in its message is cut out."""

    def fail(prompt: str) -> None:
        try:
            raise ValueError(f"no such key: {SECRET}")
        except ValueError:
            structlog.get_logger("x").exception("broke")

    with logging_to(stream):
        fail("a cat " + "in a hat")
    assert "in fail" in stream.getvalue() or '"name":"fail"' in stream.getvalue()
    assert "in a hat" not in stream.getvalue()
    assert SECRET not in stream.getvalue()


@pytest.mark.parametrize("secret", [make_secret(), "sk-proj-abcdefghijklmnopqrstuvwxyz"], ids=["ours", "theirs"])
def test_secrets_are_cut_out(secret: str) -> None:
    """A key in anybody's message does not reach the log."""
    text = json.dumps(lines_of(lambda: logging.getLogger("other").warning("sent Authorization: Bearer %s", secret)))
    assert secret not in text
    assert "Bearer ***" in text


def test_known_secrets_are_cut_out() -> None:
    """A secret of this process reaches no line, whatever its form, and the line stays JSON."""
    secret = 'vk_9f/Q2hX7"LmT4'
    stream = io.StringIO()
    with logging_to(stream, mask=Mask([secret])):
        structlog.get_logger("x").warning("call failed", code=secret, more={"url": f"/x?k={secret}"})
        logging.getLogger("other").warning("sent %r", secret.encode().hex())
    for line in stream.getvalue().splitlines():
        assert "***" in json.dumps(json.loads(line))
    assert "9f" not in stream.getvalue().partition("timestamp")[0].replace("%", "")
    assert secret not in stream.getvalue()
    assert json.dumps(secret)[1:-1] not in stream.getvalue()
    assert secret.encode().hex() not in stream.getvalue()


def test_level_holds_lines_back() -> None:
    """Lines below the level, and other libraries' chatter, are not written."""
    said = lines_of(lambda: logging.getLogger("httpx").info("GET https://x/?sig=1"))
    assert said == []
    assert lines_of(lambda: structlog.get_logger("x").info("a"), "warning") == []


def test_event_outside_the_log_is_a_line_of_it() -> None:
    """A process without a log of its own writes lines of the same form, without a secret."""
    stream = io.StringIO()
    write_event(f"Worker 1 ended\nwith {SECRET}", stream=stream)
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert set(line) == {"event", "level", "timestamp"}
    assert (line["level"], str(line["timestamp"])[-1]) == ("warning", "Z")
    assert SECRET not in line["event"]


def test_event_on_a_terminal_is_a_sentence() -> None:
    """A person at a terminal reads the command's name and the sentence."""
    stream = Terminal()
    write_event("Worker 1 ended", stream=stream)
    assert stream.getvalue() == "imagegate: Worker 1 ended\n"


def test_closed_output_is_no_fault() -> None:
    """Nobody reads the log any more: the gateway goes on."""
    full = Path("/dev/full").open("w")  # noqa: SIM115 (to close it fails too)
    write_event("Worker 1 ended", stream=full)
    with pytest.raises(OSError, match="No space"):
        full.close()


def test_warnings_of_libraries_are_lines() -> None:
    """A warning of Python, which would be plain text, is a JSON line."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        (line,) = lines_of(lambda: warnings.warn("old", stacklevel=1))
    assert "old" in str(line["event"])


class Unspeakable:
    """A value that cannot be written."""

    def __repr__(self) -> str:
        raise ValueError("no text")


def test_value_without_text_costs_only_its_line() -> None:
    """A line that cannot be made is replaced by one that says so, and the log goes on."""

    def speak() -> None:
        log = structlog.get_logger("x")
        log.info("first", value=Unspeakable())
        log.info("second", value={1, 2}, number=2**80)

    first, second = lines_of(speak)
    assert (first["event"], first["error"]) == ("a log line is lost", "ValueError")
    assert (second["event"], second["value"], second["number"]) == ("second", "{1, 2}", 2**80)


def test_no_character_breaks_a_line() -> None:
    """A line holds ASCII alone: some characters end a line for one reader and not for another."""
    stream = io.StringIO()
    with logging_to(stream):
        structlog.get_logger("x").warning("a\u2028b\u0085\nc", name="\u00e9\ud800")
    (line,) = stream.getvalue().splitlines()
    assert line.isascii()
    assert (json.loads(line)["event"], json.loads(line)["name"]) == ("a\u2028b\u0085\nc", "\u00e9\ud800")
