"""Which teams have limits, whether or not they have a key: found by looking through all names in the store.

Asked by the admin API for its list of teams, seldom. Never reads or changes a limit.
"""

from __future__ import annotations

from gateway.store import names
from gateway.store.client import StoreClient

_AT_ONCE = 1000


async def list_limited_teams(redis: StoreClient) -> set[str]:
    """The names of all teams with a limit."""
    stem = names.LIMITS("team", "")
    return {name.removeprefix(stem) async for name in redis.scan_iter(f"{stem}*", count=_AT_ONCE)}
