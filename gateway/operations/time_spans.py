"""The time span of a report: `since` and `until` as operators write them."""

from __future__ import annotations

import re
import time

from gateway import errors
from gateway.history.history import DAY
from gateway.operations.stores import Stores
from gateway.store.windows import Calendar

FORMS = "a date, an ISO 8601 instant, or a time ago such as `90m`, `36h`, `7d` or `4w`"

_DAYS_AGO = re.compile(r"[0-9]+[dw]")


def open_calendar(stores: Stores) -> Calendar:
    """The calendar of the catalogue's time zone."""
    return Calendar(stores.document.accounting.time_zone)


def read_span(stores: Stores, since: str, until: str | None) -> tuple[int, int]:
    """Return the first µs of the span, and the µs after its last one. An `until` of None includes this instant.

    A time without an offset is in the catalogue's time zone. Raises InvalidValue.
    """
    calendar, now = open_calendar(stores), time.time_ns() // 1000
    first = _read(calendar, since, now, "since")
    last = now + 1 if until is None else _read(calendar, until, now, "until")
    if last <= first:
        raise errors.InvalidValue("`until` must be after `since`.", param="until")
    return first, last


def read_days(stores: Stores, since: str, until: str | None) -> tuple[int, int]:
    """Return both ends as `read_span` does, for sums of whole days: a `since` in days or weeks begins 24 hours later.

    So `7d` is today and the six days before, since a span of seven days would touch eight. Raises InvalidValue.
    """
    first, last = read_span(stores, since, until)
    return (first + DAY if _DAYS_AGO.fullmatch(since) else first), last


def _read(calendar: Calendar, text: str, now: int, param: str) -> int:
    try:
        return max(0, calendar.read_instant(text, now))
    except (ValueError, OverflowError) as error:
        raise errors.InvalidValue(f"`{param}` must be {FORMS}.", param=param) from error
