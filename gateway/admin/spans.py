"""From when to when a report is asked for: query values that are an instant, or a time before now."""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import Field

from gateway import errors
from gateway.services import Services
from gateway.store.windows import Calendar

_FORMS = "a date, an ISO 8601 instant, or a time ago such as `36h` or `7d`"

Since = Annotated[str | None, Field(max_length=40, description=f"From when: {_FORMS}.")]
Until = Annotated[str | None, Field(max_length=40, description=f"Until just before when: {_FORMS}. Not said: now.")]


def read_span(services: Services, since: str | None, until: str | None, default: str) -> tuple[int, int]:
    """Both ends in µs. What has no offset is in the configured time zone. Raises InvalidValue."""
    calendar, now = Calendar(services.catalogue.document.accounting.time_zone), time.time_ns() // 1000
    first = _read(calendar, since or default, now, "since")
    last = now if until is None else _read(calendar, until, now, "until")
    if last <= first:
        raise errors.InvalidValue("`until` must be after `since`.", param="until")
    return first, last


def _read(calendar: Calendar, text: str, now: int, param: str) -> int:
    try:
        return max(0, calendar.read_instant(text, now))
    except (ValueError, OverflowError) as error:
        raise errors.InvalidValue(f"`{param}` must be {_FORMS}.", param=param) from error
