"""Teams that a key or a limit names: their keys, limits and spending."""

from __future__ import annotations

import asyncio
import difflib
from collections import Counter

from pydantic import Field

from gateway import errors
from gateway.money.ledger_results import Scope
from gateway.money.limits import list_limited_teams
from gateway.operations.answers import AnswerModel, Listing, page
from gateway.operations.limits import LimitStanding, LimitValues, WindowSpent, list_spent, list_standings
from gateway.operations.pauses import ActivePause, list_pauses
from gateway.operations.stores import Stores

_MOST_NAMED = 10


class Team(AnswerModel):
    """A team: its number of keys, its pause, its limits, the use of those and of everyone's, and its spending."""

    name: str
    keys: int
    pause: ActivePause | None = Field(description="Null: the team is not paused.")
    limits: LimitValues
    standing: list[LimitStanding]
    spent: list[WindowSpent]


async def list_teams(stores: Stores, most: int | None = None, after: str | None = None) -> Listing[Team]:
    """Return up to `most` teams that a key, a limit or a pause names, in the order of their names, after `after`.

    A `most` of None is no bound.
    """
    keys = Counter(record.team for record in await stores.keys.list() if record.team)
    pauses = await _read_pauses(stores)
    found = sorted(keys.keys() | pauses.keys() | await list_limited_teams(stores.redis))
    names = [name for name in found if after is None or name > after][: None if most is None else most + 1]
    teams = await asyncio.gather(*(_describe(stores, name, keys[name], pauses.get(name)) for name in names))
    return page(list(teams), most, after, "name")


async def show_team(stores: Stores, name: str) -> Team:
    """Return one team. Raises TeamNotFound for a team that no key, no limit and no pause names."""
    keys = await stores.keys.list(team=name)
    found = await _describe(stores, name, len(keys), (await _read_pauses(stores)).get(name))
    if not keys and found.pause is None and found.limits == LimitValues():
        raise errors.TeamNotFound("No key and no limit has this team.", param="team")
    return found


async def find_doubt(stores: Stores, name: str, *, is_made: bool = False) -> str | None:
    """A sentence on a team that no key and no limit names, with a similar or known name; None for a known team.

    `is_made`: True when the action gives the team its first key or limit.
    """
    known = sorted({one.team for one in await stores.keys.list() if one.team} | await list_limited_teams(stores.redis))
    if name in known:
        return None
    text = f"{name!r:.100} is a new team" if is_made else f"No key and no limit has the team {name!r:.100}"
    if near := difflib.get_close_matches(name, known, n=1):
        return f"{text}; did you mean {near[0]!r:.100}?"
    if is_made or not known:
        return text
    more = ", …" if len(known) > _MOST_NAMED else ""
    return f"{text}; there {'is' if len(known) == 1 else 'are'} {', '.join(known[:_MOST_NAMED])}{more}"


async def _read_pauses(stores: Stores) -> dict[str, ActivePause]:
    """The pauses of teams, by the team's name."""
    found = (one for one in (await list_pauses(stores)).data if one.scope.startswith("team:"))
    return {one.scope.removeprefix("team:"): one for one in found}


async def _describe(stores: Stores, name: str, keys: int, pause: ActivePause | None) -> Team:
    limits, standings = await asyncio.gather(stores.ledger.limits_of(Scope(team=name)), stores.ledger.look(team=name))
    return Team(
        name=name,
        keys=keys,
        pause=pause,
        limits=LimitValues.model_validate(limits),
        standing=list_standings(standings),
        spent=list_spent(standings, "team"),
    )
