"""Who changed what: the log of changes by the admin API and by the command line."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from gateway.admin.access import ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import AnswerModel, Listing, Most, QueryModel, Text
from gateway.admin.spans import Since, read_span
from gateway.history.export import change_json

router = APIRouter(route_class=GuardedRoute, tags=["changes"])


class ChangesQuery(QueryModel):
    """Which changes."""

    since: Since = None
    subject: Text = None
    actor: Text = None
    most: Most = 100


class MadeChange(AnswerModel):
    """One change. `before` and `after` have the fields that differ; null: there was, or is, nothing."""

    id: str
    time: str
    actor: str = Field(description="`admin-token`, `operator:NAME` or `cli:USER`.")
    action: str
    subject: str = Field(description="What was changed: a key's id, `team:NAME`, `everyone`, `operator:NAME`.")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str | None


@router.get("/changes", summary="Who changed what, newest first")
async def list_changes(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[ChangesQuery, Query()]
) -> Listing[MadeChange]:
    """Of the last 30 days if nothing is said. Never holds a secret."""
    first, _ = read_span(services, wanted.since, None, "30d")
    found = await services.changes.read(first, wanted.subject, wanted.actor, wanted.most + 1)
    rows = [MadeChange.model_validate(change_json(change)) for change in found[: wanted.most]]
    return Listing(data=rows, has_more=len(found) > wanted.most)
