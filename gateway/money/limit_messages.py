"""Limits as a caller sees them: errors in OpenAI's words, and the `x-ratelimit-*` headers. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from gateway import errors
from gateway.dollars import show_usd
from gateway.errors import PublicError
from gateway.money.ledger_results import OverLimit, Rate, Standing, Standings, TooMany

SECOND = 1_000_000
"""µs in a second."""

LONGEST_RETRY_S = 60

_WORDS = {
    "usd_total": "dollars in total",
    "usd_month": "dollars a month",
    "usd_week": "dollars a week",
    "usd_day": "dollars a day",
    "images_month": "images a month",
    "images_day": "images a day",
    "images_minute": "images per min",
    "requests_minute": "requests per min",
    "concurrent_requests": "requests at a time",
}
_HEADERS = {"requests_minute": "requests", "images_minute": "images"}
_WHOSE = {"key": "this key", "team": "this key's team", "everyone": "everyone on this gateway"}


def refuse(over: OverLimit, *, price: int, images: int) -> PublicError:
    """Make the error for a request that is over a limit. `price` is the µ$ of all its images, `images` their number.

    For `requests_minute`, `images_minute` and `concurrent_requests` it has a Retry-After of 1 to 60 s. For any other
    limit it has none, and forbids a retry, because an SDK would sleep twice for nothing.
    """
    if over.limit not in ("requests_minute", "images_minute", "concurrent_requests"):
        error = _refuse_budget(over, price=price, images=images)
    else:
        error = _refuse_rate(over, images=images)
    error.headers |= rate_headers(over.rates)
    return error


def refuse_too_many(many: TooMany) -> PublicError:
    """Make the error for a request of more images than a limit allows in a minute."""
    return errors.InvalidValue(
        f"`n` is over what {_whose(many.scope)} may ask for in a minute ({many.limit}): at most {many.ceiling} images. "
        "Ask for fewer at a time.",
        param="n",
    )


def foresee_refusal(standings: Standings, *, price: int, images: int) -> PublicError | None:
    """Return the error that a request would get under these limits; None if they allow it.

    `price` is the µ$ of all its images, `images` their number.
    """
    for one in standings.limits:
        if one.limit == "images_minute" and images > one.ceiling:
            return refuse_too_many(TooMany(one.limit, one.scope, one.ceiling))
    for one in standings.limits:
        if one.left < _needs(one.limit, price, images):
            over = OverLimit(one.limit, one.scope, one.ceiling, one.left, one.resets, standings.now)
            return refuse(over, price=price, images=images)
    return None


def find_dollars(standings: Standings) -> Standing | None:
    """Return the first limit in dollars; None if there is none."""
    return next((one for one in standings.limits if one.limit.startswith("usd_")), None)


def _needs(limit: str, price: int, images: int) -> int:
    if limit.startswith("usd_"):
        return price
    return images if limit.startswith("images_") else 1


def rate_headers(rates: Iterable[Rate]) -> dict[str, str]:
    """Return the `x-ratelimit-*` headers for requests and for images; each kind shows the limit with the least left."""
    tightest: dict[str, Rate] = {}
    for rate in rates:
        name = _HEADERS[rate.limit]
        if name not in tightest or rate.left < tightest[name].left:
            tightest[name] = rate
    found: dict[str, str] = {}
    for name, rate in tightest.items():
        found[f"x-ratelimit-limit-{name}"] = str(rate.ceiling)
        found[f"x-ratelimit-remaining-{name}"] = str(rate.left)
        found[f"x-ratelimit-reset-{name}"] = show_duration(rate.full_in)
    return found


def rates_of(standings: Standings) -> list[Rate]:
    """Return the limits a minute among the standings."""
    return [
        Rate(one.limit, one.scope, one.ceiling, one.left, max(0, (one.resets or standings.now) - standings.now))
        for one in standings.limits
        if one.limit in _HEADERS
    ]


def show_duration(micro: int) -> str:
    """Return a time span in µs as OpenAI writes it: `340ms`, `7s`, `1m12s`; rounded up."""
    if micro < SECOND:
        return f"{math.ceil(micro / 1000)}ms"
    minutes, seconds = divmod(math.ceil(micro / SECOND), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def show_instant(micro: int) -> str:
    """Return an instant in µs since 1970 as RFC 3339 writes it, in UTC, to the second."""
    return datetime.fromtimestamp(micro // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _refuse_rate(over: OverLimit, *, images: int) -> PublicError:
    wait = 1 if over.resets is None else math.ceil((over.resets - over.now) / SECOND)
    seconds = min(max(wait, 1), LONGEST_RETRY_S)
    needs = f" This request needs {images}." if over.limit == "images_minute" and images > 1 else ""
    return errors.RateLimited(
        f"Rate limit reached for {_whose(over.scope)} on {_WORDS[over.limit]} ({over.limit}): "
        f"Limit {over.ceiling}, Left {over.left}.{needs} Please try again in {seconds}s.",
        retry_after=seconds,
    )


def _refuse_budget(over: OverLimit, *, price: int, images: int) -> PublicError:
    if over.limit.startswith("usd_"):
        limit, left = f"${show_usd(over.ceiling)}", f"${show_usd(over.left)} is left"
        needs = f"may cost ${show_usd(price)}"
    else:
        limit, left = str(over.ceiling), f"{over.left} left"
        needs = f"asks for {images}"
    resets = "It does not reset." if over.resets is None else f"It resets at {show_instant(over.resets)}."
    return errors.InsufficientQuota(
        f"You exceeded your current quota: the limit of {_whose(over.scope)} on {_WORDS[over.limit]} ({over.limit}) is "
        f"{limit}, of which {left}, and this request {needs}. {resets}",
        should_retry=False,
    )


def _whose(scope: str) -> str:
    return _WHOSE[scope]
