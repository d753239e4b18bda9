"""API keys of callers: made, shown, changed, rotated, deleted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field, StrictInt

from gateway import errors
from gateway.admin.access import AdminDep, ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.recording import record_change
from gateway.admin.shapes import After, Gone, Listing, Most, Question, page, refusals
from gateway.store.keyrecord import KeyChange, KeyRecord, NewKey
from gateway.store.keys import DAY_S

router = APIRouter(route_class=GuardedRoute, tags=["keys"])

KeyId = Annotated[str, Path(max_length=64, description="Such as `key_01k…`.")]

_LONGEST_GRACE_S = 90 * DAY_S


class Rotation(Question):
    """How a key is rotated."""

    grace_s: Annotated[StrictInt, Field(ge=0, le=_LONGEST_GRACE_S)] = Field(
        DAY_S, description="Seconds that the former secret still works; 0: it stops at once."
    )


class CreatedKey(KeyRecord):
    """A key with its secret, which nothing can show again."""

    key: str = Field(description="What the caller sends. Shown this once.")


@router.get("/keys", summary="Keys, oldest first")
async def list_keys(
    services: ServicesDep,
    operator: ViewerDep,
    team: Annotated[str | None, Query(max_length=128, description="Of this team alone.")] = None,
    enabled: Annotated[bool | None, Query(description="Enabled or disabled ones alone.")] = None,
    most: Most = 100,
    after: After = None,
) -> Listing[KeyRecord]:
    records = [one for one in await services.keys.list(team=team) if enabled in (None, one.enabled)]
    return page(records, most, after, "id")


@router.post("/keys", summary="Make a key", status_code=201)
async def create_key(services: ServicesDep, operator: AdminDep, new: NewKey) -> CreatedKey:
    """The secret is in this answer and nowhere else."""
    record, secret = await services.keys.add(new)
    await record_change(services, operator, "key.create", record.id, after=record)
    return CreatedKey(key=secret, **record.model_dump())


@router.get("/keys/{key_id}", summary="One key", responses=refusals(errors.KeyNotFound))
async def show_key(services: ServicesDep, operator: ViewerDep, key_id: KeyId) -> KeyRecord:
    return await services.keys.show(key_id)


@router.patch("/keys/{key_id}", summary="Change a key", responses=refusals(errors.KeyNotFound))
async def change_key(services: ServicesDep, operator: AdminDep, key_id: KeyId, change: KeyChange) -> KeyRecord:
    """Fields that are not named stay; null lifts a restriction."""
    before = await services.keys.show(key_id)
    record = await services.keys.apply(key_id, change)
    await record_change(services, operator, "key.change", key_id, before=before, after=record)
    return record


@router.post("/keys/{key_id}/rotate", summary="Give a key a new secret", responses=refusals(errors.KeyNotFound))
async def rotate_key(
    services: ServicesDep,
    operator: AdminDep,
    key_id: KeyId,
    rotation: Rotation,
) -> CreatedKey:
    """Id, limits and history stay. The new secret is in this answer and nowhere else."""
    before = await services.keys.show(key_id)
    record, secret = await services.keys.rotate(key_id, rotation.grace_s)
    await record_change(services, operator, "key.rotate", key_id, before=before, after=record)
    return CreatedKey(key=secret, **record.model_dump())


@router.delete("/keys/{key_id}", summary="Delete a key", responses=refusals(errors.KeyNotFound))
async def delete_key(services: ServicesDep, operator: AdminDep, key_id: KeyId) -> Gone:
    """It stops working, for ever. What it spent stays in the usage and in the history."""
    before = await services.keys.show(key_id)
    await services.keys.delete(key_id)
    await record_change(services, operator, "key.delete", key_id, before=before)
    return Gone(id=key_id)
