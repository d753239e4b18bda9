"""What limits say to a caller: the refusal's words and times, and the headers for requests and images."""

from typing import Any

import pytest

from gateway import errors
from gateway.money import limit_messages
from gateway.money.ledger_results import OverLimit, Rate, Standing, Standings, TooMany

SECOND = 1_000_000
NOON = 1_795_262_400 * SECOND


def over(limit: str, ceiling: int, left: int, resets: int | None = None, **rest: Any) -> errors.PublicError:
    found = OverLimit(limit, rest.pop("scope", "key"), ceiling, left, resets, now=NOON, **rest)
    return limit_messages.refuse(found, price=60_000, images=2)


@pytest.mark.parametrize("limit", ["usd_total", "usd_month", "usd_week", "usd_day"])
def test_used_up_budget_is_final(limit: str) -> None:
    """A budget's refusal names limit, rest and price, and no SDK waits for it."""
    error = over(limit, 100_000, 40_000, NOON + 3600 * SECOND)
    assert isinstance(error, errors.InsufficientQuota)
    assert error.all_headers() == {"x-should-retry": "false"}
    for words in (f"({limit})", "$0.100000", "$0.040000 is left", "$0.060000", "resets at 2026-11-21T13:00:00Z"):
        assert words in error.message


def test_total_budget_never_resets() -> None:
    """A budget in total says that waiting will not help."""
    assert "It does not reset." in over("usd_total", 1, 0).message


@pytest.mark.parametrize("limit", ["images_day", "images_month"])
def test_used_up_images_are_final(limit: str) -> None:
    """A day's or a month's number of images is a quota like a budget."""
    error = over(limit, 10, 1, NOON + SECOND)
    assert isinstance(error, errors.InsufficientQuota)
    assert "is 10, of which 1 left, and this request asks for 2" in error.message
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("resets", "seconds"), [(0, 1), (1, 1), (SECOND, 1), (SECOND + 1, 2), (59 * SECOND, 59), (90 * SECOND, 60)]
)
def test_rate_says_when_to_come_back(resets: int, seconds: int) -> None:
    """A limit a minute is waited for: whole seconds, rounded up, 1 to 60."""
    error = over("images_minute", 5, 1, NOON + resets)
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after == seconds
    assert error.should_retry is None
    assert f"try again in {seconds}s" in error.message
    assert "Limit 5, Left 1. This request needs 2." in error.message


def test_busy_key_waits_a_second() -> None:
    """Nobody knows when a running request ends, so the next try is a second away."""
    assert over("concurrent_requests", 3, 0, None).retry_after == 1


@pytest.mark.parametrize(
    ("scope", "whose"), [("key", "this key"), ("team", "this key's team"), ("everyone", "everyone on this gateway")]
)
def test_refusal_says_whose_limit(scope: str, whose: str) -> None:
    """A caller learns whether it is its own limit, its team's or everyone's."""
    assert f"of {whose} on dollars" in over("usd_day", 1, 0, NOON, scope=scope).message


def test_too_many_images_are_a_mistake() -> None:
    """More than a minute ever allows is the caller's mistake, with the field and what would be right."""
    error = limit_messages.refuse_too_many(TooMany("images_minute", "team", 4))
    assert (error.status, error.param, error.retry_after) == (400, "n", None)
    assert "at most 4 images" in error.message


def test_tightest_limit_is_told() -> None:
    """Of several limits the headers tell the one with least left."""
    rates = [
        Rate("requests_minute", "key", 10, 7, 18 * SECOND),
        Rate("requests_minute", "everyone", 100, 3, 59 * SECOND),
        Rate("images_minute", "team", 5, 4, 12_000_000),
    ]
    assert limit_messages.rate_headers(rates) == {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "59s",
        "x-ratelimit-limit-images": "5",
        "x-ratelimit-remaining-images": "4",
        "x-ratelimit-reset-images": "12s",
    }


def test_refusal_carries_rates() -> None:
    """A refused request hears its limits a minute like a served one."""
    error = over("usd_day", 1, 0, NOON, rates=(Rate("requests_minute", "key", 10, 7, SECOND),))
    assert error.headers["x-ratelimit-remaining-requests"] == "7"


def test_standings_become_rates() -> None:
    """What was looked up is told like what was admitted; limits on amounts are no rates."""
    standings = Standings(
        NOON,
        (
            Standing("usd_day", "key", 5, 1, 4, NOON + SECOND),
            Standing("images_minute", "key", 5, 1, 4, NOON + 12 * SECOND),
            Standing("requests_minute", "key", 5, 0, 5, None),
        ),
        (),
    )
    assert limit_messages.rates_of(standings) == [
        Rate("images_minute", "key", 5, 4, 12 * SECOND),
        Rate("requests_minute", "key", 5, 5, 0),
    ]


@pytest.mark.parametrize(
    ("micro", "text"), [(0, "0ms"), (1, "1ms"), (340_000, "340ms"), (1_200_000, "2s"), (72 * SECOND, "1m12s")]
)
def test_durations_are_written_as_openai_does(micro: int, text: str) -> None:
    """Milliseconds below a second, then seconds and minutes, rounded up."""
    assert limit_messages.show_duration(micro) == text


def stand(limit: str, ceiling: int, left: int, resets: int | None = None) -> Standing:
    return Standing(limit, "key", ceiling, ceiling - left, left, resets)


@pytest.mark.parametrize(
    ("limit", "just", "short"),
    [
        ("usd_total", 60_000, 59_999),
        ("usd_day", 60_000, 59_999),
        ("images_month", 2, 1),
        ("images_minute", 2, 1),
        ("requests_minute", 1, 0),
        ("concurrent_requests", 1, 0),
    ],
)
def test_refusal_is_foreseen(limit: str, just: int, short: int) -> None:
    """What has just room for a request is no refusal; one less is, in the words of the real one."""
    enough, less = (Standings(NOON, (stand(limit, 100_000, left),), ()) for left in (just, short))
    assert limit_messages.foresee_refusal(enough, price=60_000, images=2) is None
    found = limit_messages.foresee_refusal(less, price=60_000, images=2)
    assert found
    assert found.message == over(limit, 100_000, short).message


def test_too_many_images_are_foreseen_first() -> None:
    """More images than a minute ever allows are told so, though another limit is in the way as well."""
    standings = Standings(NOON, (stand("usd_total", 1, 0), stand("images_minute", 1, 1)), ())
    found = limit_messages.foresee_refusal(standings, price=60_000, images=2)
    assert isinstance(found, errors.InvalidValue)
    assert found.param == "n"
