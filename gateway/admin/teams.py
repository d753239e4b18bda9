"""Teams: those that a key or a limit names; what they may and what they spent."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Query

from gateway import errors
from gateway.admin.access import ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.limits import LimitValues, TeamName
from gateway.admin.shapes import After, AnswerModel, Listing, Most, QueryModel, page, refusals
from gateway.admin.standing import LimitStanding, WindowSpent, list_spent, list_standings
from gateway.money.ledger_results import Scope
from gateway.money.limited import list_limited_teams
from gateway.services import Services

router = APIRouter(route_class=GuardedRoute, tags=["teams"])


class TeamsQuery(QueryModel):
    """Which teams."""

    most: Most = 100
    after: After = None


class Team(AnswerModel):
    """A team: how many keys it has, its own limits, how all that bind it stand, and what it spent."""

    name: str
    keys: int
    limits: LimitValues
    standing: list[LimitStanding]
    spent: list[WindowSpent]


@router.get("/teams", summary="Teams, by name")
async def list_teams(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[TeamsQuery, Query()]
) -> Listing[Team]:
    """Every team that a key or a limit names."""
    keys = Counter(record.team for record in await services.keys.list() if record.team)
    found = sorted(keys.keys() | await list_limited_teams(services.redis))
    named = [name for name in found if wanted.after is None or name > wanted.after][: wanted.most + 1]
    teams = await asyncio.gather(*(_describe(services, name, keys[name]) for name in named))
    return page(list(teams), wanted.most, wanted.after, "name")


@router.get("/teams/{team:path}", summary="One team", responses=refusals(errors.TeamNotFound))
async def show_team(services: ServicesDep, operator: ViewerDep, team: TeamName) -> Team:
    keys = await services.keys.list(team=team)
    found = await _describe(services, team, len(keys))
    if not keys and found.limits == LimitValues():
        raise errors.TeamNotFound("No key and no limit has this team.", param="team")
    return found


async def _describe(services: Services, name: str, keys: int) -> Team:
    limits, standings = await asyncio.gather(
        services.ledger.limits_of(Scope(team=name)), services.ledger.look(team=name)
    )
    return Team(
        name=name,
        keys=keys,
        limits=LimitValues.model_validate(limits),
        standing=list_standings(standings),
        spent=list_spent(standings, "team"),
    )
