"""The facts of an error in an upstream's answer, in each form that vendors and their frameworks write. Pure.

Every text is cleaned of secrets and inner addresses.
"""

from __future__ import annotations

from typing import Any

from gateway.net.outside_text import Mask

MOST_MESSAGE = 2000
"""The most characters of a vendor's message that an error keeps. The caller may read them."""

_REASONS = ("message", "detail", "error_message", "error_description", "error_msg", "msg", "title", "errors", "reason")
_MOST_REASONS = 5

ErrorFacts = tuple[str | None, str | None, str, str | None]
"""Code, type, message and param of an error."""


def find_error(document: Any, mask: Mask) -> ErrorFacts | None:
    """The facts of the `error` in an answer, an object or a text; None when there is none."""
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, str) and error:
        return None, None, mask.clean(error, MOST_MESSAGE), None
    if not isinstance(error, dict) or not error:
        return None
    return _read_facts(error, error.get("message") or "", mask)


def find_reason(document: Any, mask: Mask) -> ErrorFacts | None:
    """The facts of an error without an `error` field: FastAPI's `detail`, a bare `message`, RFC 9457's, and similar.

    None if the answer has none of them.
    """
    if not isinstance(document, dict):
        return None
    told = next((document[name] for name in _REASONS if document.get(name)), None)
    if isinstance(told, list):
        # A list of faults, each with its words.
        words = [one.get("msg") or one.get("message") or one if isinstance(one, dict) else one for one in told]
        told = "; ".join(map(_show, words[:_MOST_REASONS]))
    elif isinstance(told, dict):
        return _read_facts(told, told.get("message") or told.get("msg") or told, mask)
    return None if told is None else _read_facts(document, told, mask)


def _read_facts(fields: dict[str, Any], message: Any, mask: Mask) -> ErrorFacts:
    code, kind, param = (
        None if (value := fields.get(name)) in (None, "") else mask.clean(_show(value), 100)
        # Relays of this family send numbers and nulls as codes too.
        for name in ("code", "type", "param")
    )
    return code, kind, mask.clean(_show(message), MOST_MESSAGE), param


def _show(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
