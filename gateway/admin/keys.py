"""The routes of callers' API keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field, StrictBool, StrictInt

from gateway import errors
from gateway.admin.access import AdminDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import After, KeyId, Most, NewLimits, QueryModel, Text, refusals
from gateway.api.request import ServicesDep
from gateway.callers.key_record import KeyChange, KeyRecord, NewKey
from gateway.callers.key_store import DAY_S
from gateway.operations import keys
from gateway.operations.answers import Deleted, Listing
from gateway.operations.keys import KeyWithLimits, KeyWithSecret, WebhookSecret

router = APIRouter(route_class=GuardedRoute, tags=["keys"])

_LONGEST_GRACE_S = 90 * DAY_S


class KeysQuery(QueryModel):
    """The query of `GET /keys`: filters and the page."""

    team: Text = None
    enabled: bool | None = None
    most: Most = 100
    after: After = None


class Rotation(QueryModel):
    """The body of a request that rotates a key."""

    grace_s: Annotated[StrictInt, Field(ge=0, le=_LONGEST_GRACE_S)] = Field(
        DAY_S, description="Seconds that the former secret still works; 0: it stops at once."
    )


class LimitedKey(NewKey):
    """A new key, with its limits."""

    limits: NewLimits | None = None


class WantedSecret(QueryModel):
    """The body of a request for a key's webhook secret. `rotate` makes a new secret first."""

    rotate: StrictBool = False
    grace_s: Annotated[StrictInt, Field(ge=0, le=_LONGEST_GRACE_S)] = Field(
        DAY_S, description="Seconds that the former secret signs messages too, after a rotation."
    )


@router.get("/keys", summary="Keys, oldest first")
async def list_keys(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[KeysQuery, Query()]
) -> Listing[KeyRecord]:
    return await keys.list_keys(services, **wanted.model_dump())


@router.post("/keys", summary="Make a key", status_code=201)
async def create_key(services: ServicesDep, operator: AdminDep, new: LimitedKey) -> KeyWithSecret:
    """Make a key. Its secret is in this answer and nowhere else. Its limits are set before it exists."""
    wanted = NewKey(**new.model_dump(exclude={"limits"}, exclude_unset=True))
    limits = None if new.limits is None else new.limits.model_dump()
    return await keys.create_key(services, operator.actor, wanted, limits)


@router.get("/keys/{key_id}", summary="One key", responses=refusals(errors.KeyNotFound))
async def show_key(services: ServicesDep, operator: ViewerDep, key_id: KeyId) -> KeyWithLimits:
    return await keys.show_key(services, key_id)


@router.patch("/keys/{key_id}", summary="Change a key", responses=refusals(errors.KeyNotFound))
async def change_key(services: ServicesDep, operator: AdminDep, key_id: KeyId, change: KeyChange) -> KeyRecord:
    """Change a key. Fields that the body leaves out stay; null removes a restriction."""
    record = await keys.change_key(services, operator.actor, key_id, change)
    services.key_cache.forget()
    return record


@router.post("/keys/{key_id}/rotate", summary="Give a key a new secret", responses=refusals(errors.KeyNotFound))
async def rotate_key(services: ServicesDep, operator: AdminDep, key_id: KeyId, rotation: Rotation) -> KeyWithSecret:
    """Give a key a new secret; id, limits and history stay. The new secret is in this answer and nowhere else."""
    rotated = await keys.rotate_key(services, operator.actor, key_id, rotation.grace_s)
    services.key_cache.forget()
    return rotated


@router.post(
    "/keys/{key_id}/webhook-secret", summary="The secret of a key's webhooks", responses=refusals(errors.KeyNotFound)
)
async def show_webhook_secret(
    services: ServicesDep, operator: AdminDep, key_id: KeyId, wanted: WantedSecret
) -> WebhookSecret:
    """Return the secret of a key's webhooks; `rotate` makes a new one first.

    Every key has such a secret, with or without a webhook, since a request may name an address.
    """
    return await keys.show_webhook_secret(
        services, operator.actor, key_id, rotates=wanted.rotate, grace_s=wanted.grace_s
    )


@router.delete("/keys/{key_id}", summary="Delete a key", responses=refusals(errors.KeyNotFound))
async def delete_key(services: ServicesDep, operator: AdminDep, key_id: KeyId) -> Deleted:
    """Delete a key and its limits for ever. Its spending stays in the usage and in the history."""
    gone = await keys.delete_key(services, operator.actor, key_id)
    services.key_cache.forget()
    return gone
