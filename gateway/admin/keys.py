"""API keys of callers: made, shown, changed, rotated, deleted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field, StrictInt

from gateway import errors
from gateway.admin.access import AdminDep, ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.limits import KeyId, Limits, NewLimits, set_limits
from gateway.admin.recording import record_change
from gateway.admin.shapes import After, Gone, Listing, Most, Question, Text, page, refusals
from gateway.admin.standing import LimitStanding, WindowSpent, list_spent, list_standings
from gateway.services import Services
from gateway.store.answers import Scope
from gateway.store.keyrecord import KeyChange, KeyRecord, NewKey
from gateway.store.keys import DAY_S

router = APIRouter(route_class=GuardedRoute, tags=["keys"])

_LONGEST_GRACE_S = 90 * DAY_S


class KeysQuery(Question):
    """Which keys."""

    team: Text = None
    enabled: bool | None = None
    most: Most = 100
    after: After = None


class Rotation(Question):
    """How a key is rotated."""

    grace_s: Annotated[StrictInt, Field(ge=0, le=_LONGEST_GRACE_S)] = Field(
        DAY_S, description="Seconds that the former secret still works; 0: it stops at once."
    )


class LimitedKey(NewKey):
    """A key to be made, with its limits."""

    limits: NewLimits | None = None


class KeyWithLimits(KeyRecord):
    """A key, its own limits, how all that bind it stand, and what it spent."""

    limits: Limits
    standing: list[LimitStanding]
    spent: list[WindowSpent]


class KeyWithSecret(KeyWithLimits):
    """A key with its secret, which nothing can show again."""

    key: str = Field(description="What the caller sends. Shown this once.")


async def _complete(services: Services, record: KeyRecord) -> KeyWithLimits:
    limits = Limits.model_validate(await services.ledger.limits_of(Scope(key=record.id)))
    standings = await services.ledger.look(record.id, record.team or "")
    return KeyWithLimits(
        **record.model_dump(),
        limits=limits,
        standing=list_standings(standings),
        spent=list_spent(standings, "key"),
    )


@router.get("/keys", summary="Keys, oldest first")
async def list_keys(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[KeysQuery, Query()]
) -> Listing[KeyRecord]:
    records = await services.keys.list(team=wanted.team)
    found = [one for one in records if wanted.enabled in (None, one.enabled)]
    return page(found, wanted.most, wanted.after, "id")


@router.post("/keys", summary="Make a key", status_code=201)
async def create_key(services: ServicesDep, operator: AdminDep, new: LimitedKey) -> KeyWithSecret:
    """The secret is in this answer and nowhere else. Where its limits cannot be set, there is no key either."""
    record, secret = await services.keys.add(NewKey(**new.model_dump(exclude={"limits"}, exclude_unset=True)))
    if new.limits is not None:
        try:
            await set_limits(services.ledger, Scope(key=record.id), new.limits)
        except Exception:
            await services.keys.delete(record.id)
            raise
    made = await _complete(services, record)
    await record_change(
        services, operator, "key.create", record.id, after=record.model_dump() | {"limits": made.limits}
    )
    return KeyWithSecret(key=secret, **dict(made))


@router.get("/keys/{key_id}", summary="One key", responses=refusals(errors.KeyNotFound))
async def show_key(services: ServicesDep, operator: ViewerDep, key_id: KeyId) -> KeyWithLimits:
    return await _complete(services, await services.keys.show(key_id))


@router.patch("/keys/{key_id}", summary="Change a key", responses=refusals(errors.KeyNotFound))
async def change_key(services: ServicesDep, operator: AdminDep, key_id: KeyId, change: KeyChange) -> KeyRecord:
    """Fields that are not named stay; null lifts a restriction."""
    before = await services.keys.show(key_id)
    record = await services.keys.apply(key_id, change)
    services.key_cache.forget()
    await record_change(services, operator, "key.change", key_id, before=before, after=record)
    return record


@router.post("/keys/{key_id}/rotate", summary="Give a key a new secret", responses=refusals(errors.KeyNotFound))
async def rotate_key(
    services: ServicesDep,
    operator: AdminDep,
    key_id: KeyId,
    rotation: Rotation,
) -> KeyWithSecret:
    """Id, limits and history stay. The new secret is in this answer and nowhere else."""
    before = await services.keys.show(key_id)
    record, secret = await services.keys.rotate(key_id, rotation.grace_s)
    services.key_cache.forget()
    await record_change(services, operator, "key.rotate", key_id, before=before, after=record)
    return KeyWithSecret(key=secret, **dict(await _complete(services, record)))


@router.delete("/keys/{key_id}", summary="Delete a key", responses=refusals(errors.KeyNotFound))
async def delete_key(services: ServicesDep, operator: AdminDep, key_id: KeyId) -> Gone:
    """It stops working, for ever. What it spent stays in the usage and in the history."""
    before = await services.keys.show(key_id)
    await services.keys.delete(key_id)
    services.key_cache.forget()
    await record_change(services, operator, "key.delete", key_id, before=before)
    return Gone(id=key_id)
