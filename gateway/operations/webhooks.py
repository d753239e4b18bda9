"""Webhook messages that have not arrived: their list, and another attempt for one of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway import errors
from gateway.operations.answers import AnswerModel, Instant, Listing
from gateway.operations.changes import Actor, record_change
from gateway.operations.stores import Stores
from gateway.state.webhook_queue import Undelivered


class UndeliveredMessage(AnswerModel):
    """One message that has not arrived."""

    id: str = Field(description="The header `webhook-id` of the message.")
    task: str
    key: str
    url: str
    state: Literal["waiting", "lost"] = Field(description="`lost`: given up, until an operator has it tried again.")
    tries: int
    why: str = Field(description="The result of the last try; empty before the first.")
    created: Instant
    due: Instant | None = Field(description="The time of the next try.")


class Retried(AnswerModel):
    """The id of a message that is tried again."""

    id: str
    retried: Literal[True] = True


async def list_webhooks(stores: Stores, key: str | None, most: int) -> Listing[UndeliveredMessage]:
    """Return up to `most` messages that wait, then up to `most` that were lost within the last week.

    `key` is an id or a name; None is every key. Raises KeyNotFound.
    """
    found = await stores.webhook_queue.look(most, await stores.keys.find_id(key) if key else "")
    return Listing[UndeliveredMessage](data=[_describe(one) for one in found])


async def retry_webhook(stores: Stores, actor: Actor, message_id: str) -> Retried:
    """Make a message due now, with a new count of attempts, and log the change. Raises WebhookNotFound."""
    if not await stores.webhook_queue.retry(message_id):
        raise errors.WebhookNotFound("No message of this id waits or was given up.", param="message_id")
    await record_change(stores, actor, "webhook.retry", message_id)
    return Retried(id=message_id)


def _describe(one: Undelivered) -> UndeliveredMessage:
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
