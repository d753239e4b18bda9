"""Calendar windows: one zone's days, weeks and months touch without a gap, also where clocks jump."""

from datetime import date, timedelta
from zoneinfo import ZoneInfoNotFoundError

import pytest

from gateway.store.windows import Calendar
from tests.support.ledgers import DAY, HOUR, SECOND, at


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-28", 24), ("2026-03-29", 23), ("2026-03-30", 24), ("2026-10-25", 25), ("2026-10-26", 24)],
)
def test_day_has_its_hours(day: str, hours: int) -> None:
    """The day on which Berlin's clocks change is an hour shorter or longer."""
    window = Calendar("Europe/Berlin").name_windows(at(f"{day}T12:00:00")).day
    assert (window.name, window.start, window.end - window.start) == (day, at(f"{day}T00:00:00"), hours * HOUR)


@pytest.mark.parametrize(
    "zone",
    ["UTC", "Europe/Berlin", "America/Havana", "Africa/Cairo", "Asia/Kathmandu", "Pacific/Chatham", "America/Santiago"],
)
def test_windows_touch_without_gap(zone: str) -> None:
    """Through two years each window begins where the one before it ends, midnight skipped or passed twice or not."""
    calendar = Calendar(zone)
    before = calendar.name_windows(at("2025-12-31T12:00:00", zone))
    for _ in range(730):
        windows = calendar.name_windows(before.day.end)
        last = calendar.name_windows(before.day.end - 1)
        assert last == before
        assert windows.day.start == before.day.end
        assert windows.day.name == str(date.fromisoformat(before.day.name) + timedelta(days=1))
        for now, then in ((windows.week, before.week), (windows.month, before.month)):
            assert now == then or (now.start == then.end == windows.day.start and now.name > then.name)
        before = windows


def test_skipped_day_is_none() -> None:
    """Where a whole day was skipped, the day before ends when the day after begins."""
    calendar = Calendar("Pacific/Apia")
    window = calendar.name_windows(at("2011-12-29T12:00:00", "Pacific/Apia")).day
    after = calendar.name_windows(window.end).day
    assert (after.name, after.start - window.end) == ("2011-12-31", 0)


def test_weeks_begin_on_monday() -> None:
    """Weeks are ISO 8601's: the first days of January can belong to the old year's last week."""
    windows = Calendar("UTC").name_windows(at("2027-01-02T23:59:59", "UTC"))
    assert windows.week.name == "2026-W53"
    assert windows.week.start == at("2026-12-28T00:00:00", "UTC")
    assert windows.week.end - windows.week.start == 7 * DAY
    assert windows.month.end == at("2027-02-01T00:00:00", "UTC")


def test_last_microsecond_is_inside() -> None:
    """No rounding moves an instant over the edge of its window."""
    edge = at("2026-11-01T00:00:00", "UTC")
    calendar = Calendar("UTC")
    assert calendar.name_windows(edge - 1).month.name == "2026-10"
    assert calendar.name_windows(edge).month.name == "2026-11"
    assert edge % SECOND == 0


def test_unknown_zone_is_refused() -> None:
    """A mistyped zone is reported, never taken for UTC."""
    with pytest.raises(ZoneInfoNotFoundError):
        Calendar("Europe/Berlim")


def test_days_are_named_backwards() -> None:
    """The days that a time touches are named from the last to the first, each once, an hour short or long or not."""
    calendar = Calendar("Europe/Berlin")
    days = calendar.name_days(at("2026-10-23T23:59:59"), at("2026-10-27T00:00:00"))
    assert [day.name for day in days] == ["2026-10-26", "2026-10-25", "2026-10-24", "2026-10-23"]
    assert [day.name for day in calendar.name_days(at("2026-10-23T00:00:00"), at("2026-10-23T00:00:00") + 1)] == [
        "2026-10-23"
    ]
    assert calendar.name_days(at("2026-10-23T00:00:00"), at("2026-10-23T00:00:00")) == []


def test_people_write_instants() -> None:
    """Times are read as people write them, in the operator's zone unless they name another."""
    calendar = Calendar("Europe/Berlin")
    now = at("2026-11-04T12:00:00")
    assert calendar.read_instant("90m", now) == now - 90 * 60 * SECOND
    assert calendar.read_instant("24h", now) == calendar.read_instant("1d", now) == now - DAY
    assert calendar.read_instant("1w", now) == calendar.read_instant("7d", now) == now - 7 * DAY
    assert calendar.read_instant("2026-11-04", now) == at("2026-11-04T00:00:00")
    assert calendar.read_instant("2026-11-04T12:00", now) == now
    assert calendar.read_instant("2026-11-04T11:00Z", now) == now
    assert calendar.read_instant("2026-11-04T12:00:00+01:00", now) == now
    assert calendar.show_instant(now + 999_999) == "2026-11-04 12:00:00"
    for wrong in ("", "yesterday", "7", "d", "-7d", "7y", "2026-13-01", "1e3d", "9999999d"):
        with pytest.raises(ValueError, match="is no time"):
            calendar.read_instant(wrong, now)
