"""Calendar windows: the day, the week and the month of an instant, in the operator's time zone.

The scripts check the boundaries and know no time zones. This module never reads a clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MICROSECONDS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def read_duration(text: str) -> timedelta | None:
    """Return the duration that a text such as `90m`, `24h`, `7d` or `4w` means; None for any other text."""
    found = _DURATION.fullmatch(text)
    return None if found is None else int(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True, slots=True)
class Window:
    """One part of the calendar: from `start` to just before `end`, in µs since 1970."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Windows:
    """The three windows of one instant."""

    day: Window
    week: Window
    month: Window

    def arguments(self) -> list[str]:
        """Return the nine words that a script takes: name, start and end of the day, of the week and of the month."""
        return [
            word
            for window in (self.day, self.week, self.month)
            for word in (window.name, str(window.start), str(window.end))
        ]


class Calendar:
    """The calendar of one zone, such as `UTC` or `Europe/Berlin`. Raises ZoneInfoNotFoundError for an unknown name."""

    def __init__(self, zone: str = "UTC") -> None:
        self._zone = ZoneInfo(zone)
        self._last: Windows | None = None

    def name_windows(self, at: int) -> Windows:
        """Return the windows of an instant in µs since 1970. Weeks are ISO 8601's: they begin on Monday."""
        # Nearly every instant is in the day of the one before.
        last = self._last
        if last is None or not last.day.start <= at < last.day.end:
            last = self._last = self._name_windows(at)
        return last

    def _name_windows(self, at: int) -> Windows:
        # Whole seconds and the rest separately: a float of µs would round.
        seconds, rest = divmod(at, MICROSECONDS)
        today = (datetime.fromtimestamp(seconds, self._zone) + timedelta(microseconds=rest)).date()
        monday = today - timedelta(days=today.weekday())
        first = today.replace(day=1)
        year, week, _ = today.isocalendar()
        return Windows(
            day=self._window(f"{today:%Y-%m-%d}", today, today + timedelta(days=1)),
            week=self._window(f"{year:04d}-W{week:02d}", monday, monday + timedelta(days=7)),
            month=self._window(f"{today:%Y-%m}", first, (first + timedelta(days=31)).replace(day=1)),
        )

    def name_days(self, since: int, until: int) -> list[Window]:
        """Return the days that the span from `since` to just before `until` (µs) touches, the last day first."""
        days: list[Window] = []
        at = until - 1
        while at >= since:
            days.append(self.name_windows(at).day)
            at = days[-1].start - 1
        return days

    def read_instant(self, text: str, now: int) -> int:
        """Parse an instant to µs: `90m`, `24h`, `7d` or `4w` before `now` (µs), or ISO 8601 as in `2026-11-04T12:00`.

        Without an offset it is in the zone; a date is its midnight. Raises ValueError with the right forms.
        """
        if (ago := read_duration(text)) is not None:
            return now - ago // timedelta(microseconds=1)
        try:
            instant = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no time; write 24h or 7d for a duration until now, or 2026-11-04") from error
        instant = instant if instant.tzinfo else instant.replace(tzinfo=self._zone)
        return (instant - _EPOCH) // timedelta(microseconds=1)

    def show_instant(self, at: int) -> str:
        """Return an instant in the zone, to the second, for people: `2026-11-04 12:00:00`."""
        return f"{datetime.fromtimestamp(at // MICROSECONDS, self._zone):%Y-%m-%d %H:%M:%S}"

    def show_recent(self, at: int) -> str:
        """Return an instant as `show_instant` does, and one of today without its date: `12:00:00`."""
        day, _, time = self.show_instant(at).partition(" ")
        return time if datetime.now(self._zone).date().isoformat() == day else f"{day} {time}"

    def _window(self, name: str, first: date, after: date) -> Window:
        return Window(name, self._midnight(first), self._midnight(after))

    def _midnight(self, day: date) -> int:
        # Where clocks skip or repeat midnight, `fold=0` is the instant at which the day begins.
        began = datetime(day.year, day.month, day.day, tzinfo=self._zone, fold=0)
        return (began - _EPOCH) // timedelta(microseconds=1)
