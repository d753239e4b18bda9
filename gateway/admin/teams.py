"""The routes of teams."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from gateway import errors
from gateway.admin.access import ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import After, Most, QueryModel, TeamName, refusals
from gateway.api.request import ServicesDep
from gateway.operations import teams
from gateway.operations.answers import Listing
from gateway.operations.teams import Team

router = APIRouter(route_class=GuardedRoute, tags=["teams"])


class TeamsQuery(QueryModel):
    """The query of `GET /teams`: the page."""

    most: Most = 100
    after: After = None


@router.get("/teams", summary="Teams, by name")
async def list_teams(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[TeamsQuery, Query()]
) -> Listing[Team]:
    """Return the teams that a key or a limit names, in the order of their names."""
    return await teams.list_teams(services, wanted.most, wanted.after)


@router.get("/teams/{team:path}", summary="One team", responses=refusals(errors.TeamNotFound))
async def show_team(services: ServicesDep, operator: ViewerDep, team: TeamName) -> Team:
    return await teams.show_team(services, team)
