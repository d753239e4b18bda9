"""The routes of pauses: of everything, of a team, of an upstream."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StrictInt

from gateway import errors
from gateway.admin.access import AdminDep, Operator, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import QueryModel, TeamName, UpstreamName, refusals
from gateway.api.request import ServicesDep
from gateway.health.condition import EVERYTHING
from gateway.operations.answers import Deleted, Listing
from gateway.operations.pauses import (
    LONGEST_S,
    ActivePause,
    begin_pause,
    end_pause,
    list_pauses,
    name_team,
    name_upstream,
)
from gateway.services import Services

router = APIRouter(route_class=GuardedRoute, tags=["pauses"])


class NewPause(QueryModel):
    """A pause from now on."""

    for_s: Annotated[StrictInt, Field(ge=1, le=LONGEST_S)] | None = Field(
        None, description="Seconds until it ends by itself; null: it ends when an operator ends it."
    )


@router.get("/pauses", summary="What is paused")
async def show_pauses(services: ServicesDep, operator: ViewerDep) -> Listing[ActivePause]:
    return await list_pauses(services)


@router.put("/pauses/everything", summary="Pause everything")
async def pause_everything(services: ServicesDep, operator: AdminDep, new: NewPause) -> ActivePause:
    """Refuse new paid requests of every key. Running work ends, and its results are delivered.

    Pictures, tasks, health, replays of finished tasks and joins of running ones are served.
    """
    return await _begin(services, operator, EVERYTHING, new.for_s)


@router.delete("/pauses/everything", summary="End the pause of everything")
async def resume_everything(services: ServicesDep, operator: AdminDep) -> Deleted:
    """End this pause. Pauses of teams and of upstreams stay."""
    return await _end(services, operator, EVERYTHING)


@router.put("/pauses/teams/{team:path}", summary="Pause a team")
async def pause_team(services: ServicesDep, operator: AdminDep, team: TeamName, new: NewPause) -> ActivePause:
    """Refuse new paid requests of a team's keys. The team need not have a key yet."""
    return await _begin(services, operator, name_team(team), new.for_s)


@router.delete("/pauses/teams/{team:path}", summary="End the pause of a team")
async def resume_team(services: ServicesDep, operator: AdminDep, team: TeamName) -> Deleted:
    return await _end(services, operator, name_team(team))


@router.put(
    "/pauses/upstreams/{upstream:path}", summary="Pause an upstream", responses=refusals(errors.UpstreamNotFound)
)
async def pause_upstream(
    services: ServicesDep, operator: AdminDep, upstream: UpstreamName, new: NewPause
) -> ActivePause:
    """Send no new paid call to an upstream. Running calls end, and the results of its tasks are collected.

    New requests go to the next upstream that can serve them.
    """
    return await _begin(services, operator, name_upstream(services, upstream), new.for_s)


@router.delete(
    "/pauses/upstreams/{upstream:path}",
    summary="End the pause of an upstream",
    responses=refusals(errors.UpstreamNotFound),
)
async def resume_upstream(services: ServicesDep, operator: AdminDep, upstream: UpstreamName) -> Deleted:
    return await _end(services, operator, name_upstream(services, upstream))


async def _begin(services: Services, operator: Operator, scope: str, seconds: int | None) -> ActivePause:
    begun = await begin_pause(services, operator.actor, scope, seconds)
    # In this process it counts at once, in the others within a second.
    services.health.forget()
    return begun


async def _end(services: Services, operator: Operator, scope: str) -> Deleted:
    ended = await end_pause(services, operator.actor, scope)
    services.health.forget()
    return ended
