"""The routes of webhook messages that have not arrived."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from gateway import errors
from gateway.admin.access import AdminDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import KeyIdOrName, Most, QueryModel, refusals
from gateway.api.request import ServicesDep
from gateway.operations import webhooks
from gateway.operations.answers import Listing
from gateway.operations.webhooks import Retried, UndeliveredMessage

router = APIRouter(route_class=GuardedRoute, tags=["webhooks"])

MessageId = Annotated[str, Path(max_length=64, description="As listed.")]


class WebhooksQuery(QueryModel):
    """The query of `GET /webhooks`: a filter, and the most rows of each state."""

    key: KeyIdOrName = None
    most: Most = 100


@router.get("/webhooks", summary="Messages that have not arrived", responses=refusals(errors.KeyNotFound))
async def list_webhooks(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[WebhooksQuery, Query()]
) -> Listing[UndeliveredMessage]:
    """Return up to `most` messages that wait, then up to `most` that were lost within the last week."""
    return await webhooks.list_webhooks(services, wanted.key, wanted.most)


@router.post("/webhooks/{message_id}/retry", summary="Try a message again", responses=refusals(errors.WebhookNotFound))
async def retry_webhook(services: ServicesDep, operator: AdminDep, message_id: MessageId) -> Retried:
    """Make a message due now, and start its schedule of attempts again."""
    retried = await webhooks.retry_webhook(services, operator.actor, message_id)
    services.task_store.webhook_queued.set()
    return retried
