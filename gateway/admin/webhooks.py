"""What callers' addresses were not told yet: what waits, what was given up, and another try for one of them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from gateway import errors
from gateway.admin.access import AdminDep, ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.recording import record_change
from gateway.admin.shapes import AnswerModel, Instant, Listing, Most, QueryModel, Text, refusals
from gateway.state.webhook_queue import Undelivered

router = APIRouter(route_class=GuardedRoute, tags=["webhooks"])

MessageId = Annotated[str, Path(max_length=64, description="As listed.")]


class WebhooksQuery(QueryModel):
    """Whose."""

    key: Text = None
    most: Most = 100


class UndeliveredMessage(AnswerModel):
    """One message that has not arrived."""

    id: str = Field(description="What `webhook-id` says.")
    task: str
    key: str
    url: str
    state: Literal["waiting", "lost"] = Field(description="`lost`: given up, until it is tried again from here.")
    tries: int
    why: str = Field(description="What the last try met; empty before the first.")
    created: Instant
    due: Instant | None = Field(description="When it is tried next.")


class Retried(AnswerModel):
    """What is tried again."""

    id: str
    retried: Literal[True] = True


@router.get("/webhooks", summary="Messages that have not arrived")
async def list_webhooks(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[WebhooksQuery, Query()]
) -> Listing[UndeliveredMessage]:
    """At most so many of those that wait, and then of those that were given up within a week."""
    found = await services.webhook_queue.look(wanted.most, wanted.key or "")
    return Listing[UndeliveredMessage](data=[_show(one) for one in found])


@router.post("/webhooks/{message_id}/retry", summary="Try a message again", responses=refusals(errors.WebhookNotFound))
async def retry_webhook(services: ServicesDep, operator: AdminDep, message_id: MessageId) -> Retried:
    """Now, and with all its tries anew."""
    if not await services.webhook_queue.retry(message_id):
        raise errors.WebhookNotFound("No message of this id waits or was given up.", param="message_id")
    services.task_store.webhook_queued.set()
    await record_change(services, operator, "webhook.retry", message_id)
    return Retried(id=message_id)


def _show(one: Undelivered) -> UndeliveredMessage:
    return UndeliveredMessage(
        id=one.id,
        task=one.task,
        key=one.key,
        url=one.url,
        state=one.state,
        tries=one.tries,
        why=one.why,
        created=one.created * 1000,
        due=None if one.due is None else one.due * 1000,
    )
