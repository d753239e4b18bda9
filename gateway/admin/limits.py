"""The routes of limits: of everyone, of a team, of a key."""

from __future__ import annotations

from fastapi import APIRouter

from gateway import errors
from gateway.admin.access import AdminDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import KeyId, NewLimits, TeamName, refusals
from gateway.api.request import ServicesDep
from gateway.money.ledger_results import Scope
from gateway.operations.limits import ScopeLimits, replace_limits, show_limits

router = APIRouter(route_class=GuardedRoute, tags=["limits"])


@router.get("/limits/everyone", summary="The limits of everyone together")
async def show_limits_of_everyone(services: ServicesDep, operator: ViewerDep) -> ScopeLimits:
    return await show_limits(services, Scope())


@router.put("/limits/everyone", summary="Set the limits of everyone together")
async def set_limits_of_everyone(services: ServicesDep, operator: AdminDep, new: NewLimits) -> ScopeLimits:
    """Replace the one set of limits that all keys share, from the next request on.

    A limit that the body leaves out is removed. The limits of each key and of each team stay.
    """
    return await replace_limits(services, operator.actor, Scope(), new.model_dump())


@router.delete("/limits/everyone", summary="Remove the limits of everyone together")
async def delete_limits_of_everyone(services: ServicesDep, operator: AdminDep) -> ScopeLimits:
    return await replace_limits(services, operator.actor, Scope(), {})


@router.get("/limits/teams/{team:path}", summary="The limits of a team")
async def show_limits_of_team(services: ServicesDep, operator: ViewerDep, team: TeamName) -> ScopeLimits:
    return await show_limits(services, Scope(team=team))


@router.put("/limits/teams/{team:path}", summary="Set the limits of a team")
async def set_limits_of_team(services: ServicesDep, operator: AdminDep, team: TeamName, new: NewLimits) -> ScopeLimits:
    """Replace all limits that a team's keys share. A limit that the body leaves out is removed.

    The team need not have a key yet.
    """
    return await replace_limits(services, operator.actor, Scope(team=team), new.model_dump())


@router.delete("/limits/teams/{team:path}", summary="Remove the limits of a team")
async def delete_limits_of_team(services: ServicesDep, operator: AdminDep, team: TeamName) -> ScopeLimits:
    return await replace_limits(services, operator.actor, Scope(team=team), {})


@router.get("/limits/keys/{key_id}", summary="The limits of a key", responses=refusals(errors.KeyNotFound))
async def show_limits_of_key(services: ServicesDep, operator: ViewerDep, key_id: KeyId) -> ScopeLimits:
    """Return the limits of a key. `limits` has the key's own limits.

    `standing` has the use of each limit of the key, of its team and of everyone.
    """
    return await show_limits(services, Scope(key=key_id))


@router.put("/limits/keys/{key_id}", summary="Set the limits of a key", responses=refusals(errors.KeyNotFound))
async def set_limits_of_key(services: ServicesDep, operator: AdminDep, key_id: KeyId, new: NewLimits) -> ScopeLimits:
    return await replace_limits(services, operator.actor, Scope(key=key_id), new.model_dump())


@router.delete("/limits/keys/{key_id}", summary="Remove the limits of a key", responses=refusals(errors.KeyNotFound))
async def delete_limits_of_key(services: ServicesDep, operator: AdminDep, key_id: KeyId) -> ScopeLimits:
    return await replace_limits(services, operator.actor, Scope(key=key_id), {})
