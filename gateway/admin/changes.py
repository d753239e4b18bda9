"""The route of the log of changes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from gateway.admin.access import ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import Most, QueryModel, Since, Text
from gateway.api.request import ServicesDep
from gateway.operations import changes
from gateway.operations.answers import Listing
from gateway.operations.changes import MadeChange

router = APIRouter(route_class=GuardedRoute, tags=["changes"])


class ChangesQuery(QueryModel):
    """The query of `GET /changes`: filters, and the most rows."""

    since: Since = None
    subject: Text = None
    actor: Text = None
    most: Most = 100


@router.get("/changes", summary="Who changed what, newest first")
async def list_changes(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[ChangesQuery, Query()]
) -> Listing[MadeChange]:
    """Return the changes, newest first; without `since` those of the last 30 days. Secrets in them are hidden."""
    return await changes.list_changes(services, **wanted.model_dump() | {"since": wanted.since or changes.SINCE})
