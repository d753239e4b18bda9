"""From when to when a report is asked for: query values that are an instant, or a time before now."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from gateway import errors

_MICROSECONDS = 1_000_000
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_AGO = re.compile(r"([0-9]{1,5})([mhdw])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(3000, 1, 1, tzinfo=UTC)

_FORMS = "an ISO 8601 instant or date in UTC, or a time ago such as `36h`, `7d`, `4w`"

Since = Annotated[str | None, Field(max_length=40, description=f"From when: {_FORMS}.")]
Until = Annotated[str | None, Field(max_length=40, description=f"Until just before when, in the same form: {_FORMS}.")]


def read_span(since: str | None, until: str | None, default: str) -> tuple[int, int]:
    """Both ends in µs; without an end it ends now. Raises InvalidValue."""
    now = time.time_ns() // 1000
    first = _read(since or default, now, "since")
    last = now if until is None else _read(until, now, "until")
    if last <= first:
        raise errors.InvalidValue("`until` must be after `since`.", param="until")
    return first, last


def _read(text: str, now: int, param: str) -> int:
    if found := _AGO.fullmatch(text):
        return max(0, now - int(found[1]) * _UNITS[found[2]] * _MICROSECONDS)
    try:
        instant = datetime.fromisoformat(text)
        # A time without a zone is UTC's.
        instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise errors.InvalidValue(f"`{param}` must be {_FORMS}.", param=param) from None
    if not _EPOCH <= instant < _LATEST:
        raise errors.InvalidValue(f"`{param}` must be a time between 1970 and 3000.", param=param)
    return round(instant.timestamp() * _MICROSECONDS)
