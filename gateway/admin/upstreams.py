"""The routes of upstreams: the state of each credential, its reset, and the deletion of an upstream's counted drift."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from gateway import errors
from gateway.admin.access import AdminDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import UpstreamName, refusals
from gateway.api.request import ServicesDep
from gateway.operations import upstreams
from gateway.operations.answers import Deleted, Listing
from gateway.operations.upstreams import UpstreamState

router = APIRouter(route_class=GuardedRoute, tags=["upstreams"])

Label = Annotated[str, Path(max_length=201, description="As listed: the upstream's name, a slash, the credential's.")]


@router.get("/upstreams", summary="The state of every upstream's credentials")
async def list_upstreams(services: ServicesDep, operator: ViewerDep) -> Listing[UpstreamState]:
    """Return the state of each configured credential, in the catalogue's order."""
    return await upstreams.list_upstreams(services, services.health.targets)


@router.post(
    "/upstreams/{label:path}/reset", summary="Use a credential again", responses=refusals(errors.UpstreamNotFound)
)
async def reset_upstream(services: ServicesDep, operator: AdminDep, label: Label) -> UpstreamState:
    """Close a credential's circuit breaker; end its cool-down, its low balance and its pause by the spend limit.

    The next check of the balance can find it low again.
    """
    after = await upstreams.reset_upstream(services, operator.actor, label, services.health.targets)
    services.health.forget()
    return after


@router.delete("/upstreams/{name:path}/drift", summary="Forget drift", responses=refusals(errors.UpstreamNotFound))
async def clear_drift(services: ServicesDep, operator: AdminDep, name: UpstreamName) -> Deleted:
    """Delete the counted drift of an upstream, for all its credentials.

    Do this after you have corrected the upstream's entry in the catalogue.
    """
    return await upstreams.clear_drift(services, operator.actor, name)
