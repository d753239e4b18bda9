"""The limits of a scope: their names and units, their setting and removal, and the teams that have any.

The ledger stores each limit and decides on requests; this module decides on none.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.dollars import show_usd
from gateway.ids import new_id
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Scope
from gateway.store import names
from gateway.store.client import StoreClient

DOLLARS = ("usd_total", "usd_month", "usd_week", "usd_day")
IMAGES = ("images_month", "images_day")
RATES = ("images_minute", "requests_minute")
LIMITS = (*DOLLARS, *IMAGES, *RATES, "concurrent_requests")


_AT_ONCE = 1000


def show_limit(limit: str, value: int) -> str:
    """Return the value or the use of a limit as text: dollars for a value in µ$, or a number."""
    return show_usd(value) if limit in DOLLARS else str(value)


def name_scope(scope: Scope) -> str:
    """Return the name of a scope in the log of changes and the admin API: a key's id, `team:NAME` or `everyone`."""
    return scope.key or (f"team:{scope.team}" if scope.team else "everyone")


def describe_limits(limits: Mapping[str, int]) -> dict[str, str | int]:
    """Return limits as JSON values: µ$ become dollars as text, since a float rounds. Unknown names are left out."""
    return {name: show_usd(limits[name]) if name in DOLLARS else limits[name] for name in LIMITS if name in limits}


async def set_limits(ledger: Ledger, scope: Scope, limits: Mapping[str, int | None]) -> None:
    """Set some limits of a scope, in µ$ or as numbers, and remove those that are None; the others stay.

    New and lower values are set before higher ones and removals, so that the scope is never less limited than before
    and after. Raises InvalidArgument and StoreUnavailable; changes from before the error stay.
    """
    current = await ledger.limits_of(scope)

    def is_looser(limit: str) -> bool:
        value = limits[limit]
        return value is None or value > current.get(limit, value)

    for limit in sorted(limits, key=is_looser):
        await ledger.set_limit(new_id("change"), scope, limit, limits[limit])


async def drop_limits(ledger: Ledger, scope: Scope) -> None:
    """Remove every limit of a scope."""
    await set_limits(ledger, scope, dict.fromkeys(await ledger.limits_of(scope)))


async def list_limited_teams(redis: StoreClient) -> set[str]:
    """Return the names of all teams that have a limit, also of teams without a key. Scans all names in the store."""
    stem = names.LIMITS("team", "")
    return {name.removeprefix(stem) async for name in redis.scan_iter(f"{stem}*", count=_AT_ONCE)}
