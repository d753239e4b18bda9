"""All admin routes under one prefix, and the document that describes them.

Included by `app`. A new module of routes is named here.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from gateway.admin import audit, changes, keys, limits, money, operators, reports, teams, upstreams, webhooks
from gateway.admin.access import ViewerDep
from gateway.admin.document import describe_routes
from gateway.admin.guarded import GuardedRoute

PREFIX = "/admin/api/v1"

_PARTS = (keys, teams, limits, reports, money, audit, changes, operators, upstreams, webhooks)


def admin_router() -> APIRouter:
    """The whole admin API, without its prefix."""
    router = APIRouter(route_class=GuardedRoute)
    for part in _PARTS:
        router.include_router(part.router)
    document: dict[str, Any] = {}

    @router.get("/openapi.json", summary="This API as an OpenAPI document", tags=["document"])
    async def show_document(operator: ViewerDep) -> dict[str, Any]:
        return document

    document |= describe_routes(router, PREFIX)
    return router
