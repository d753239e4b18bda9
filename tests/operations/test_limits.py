"""Limits are replaced in an order in which no moment is looser than before and after."""

from gateway.operations.limits import order_changes


def test_no_moment_is_looser() -> None:
    """While limits are replaced, what is new or lower comes first, then what is higher, then what goes."""
    present = {"usd_total": 1, "usd_day": 5, "images_day": 3, "images_minute": 2}
    wanted = {
        "usd_total": 10,
        "images_day": None,
        "usd_day": 4,
        "images_month": 9,
        "images_minute": 2,
        "usd_week": None,
    }
    changes = order_changes(present, wanted)
    assert list(changes.items()) == [("usd_day", 4), ("images_month", 9), ("usd_total", 10), ("images_day", None)]
