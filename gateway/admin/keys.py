"""API keys of callers: made, shown, changed, rotated, deleted."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field, StrictBool, StrictInt

from gateway import errors
from gateway.admin.access import AdminDep, ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.limits import KeyId, LimitValues, NewLimits, replace_limits
from gateway.admin.recording import record_change
from gateway.admin.shapes import After, AnswerModel, Gone, Listing, Most, QueryModel, Text, page, refusals
from gateway.admin.standing import LimitStanding, WindowSpent, list_spent, list_standings
from gateway.callers.key_record import KeyChange, KeyRecord, NewKey
from gateway.callers.key_store import DAY_S
from gateway.callers.webhook_addresses import find_fault
from gateway.ids import new_id
from gateway.money.ledger_results import Scope
from gateway.money.limits import drop_limits
from gateway.services import Services
from gateway.store.client import StoreUnavailable
from gateway.tasks.webhook_signature import make_secret

router = APIRouter(route_class=GuardedRoute, tags=["keys"])

_LONGEST_GRACE_S = 90 * DAY_S


class KeysQuery(QueryModel):
    """Which keys."""

    team: Text = None
    enabled: bool | None = None
    most: Most = 100
    after: After = None


class Rotation(QueryModel):
    """How a key is rotated."""

    grace_s: Annotated[StrictInt, Field(ge=0, le=_LONGEST_GRACE_S)] = Field(
        DAY_S, description="Seconds that the former secret still works; 0: it stops at once."
    )


class LimitedKey(NewKey):
    """A key to be made, with its limits."""

    limits: NewLimits | None = None


class KeyWithLimits(KeyRecord):
    """A key, its own limits, how all that bind it stand, and what it spent."""

    limits: LimitValues
    standing: list[LimitStanding]
    spent: list[WindowSpent]


class KeyWithSecret(KeyWithLimits):
    """A key with its secret, which nothing can show again."""

    key: str = Field(description="What the caller sends. Shown this once.")


class WantedSecret(QueryModel):
    """Whether the secret of a key's webhooks is to be a new one."""

    rotate: StrictBool = False
    grace_s: Annotated[StrictInt, Field(ge=0, le=_LONGEST_GRACE_S)] = Field(
        DAY_S, description="Seconds that messages are signed with the former secret too, after a rotation."
    )


class WebhookSecret(AnswerModel):
    """By what the receiver of a key's webhooks knows that they are ours."""

    id: str
    secret: str = Field(description="`whsec_…`, as libraries of Standard Webhooks take it.")
    former: str | None = Field(None, description="The one before, which signs too for a while after a rotation.")
    former_until: datetime | None = None

    @classmethod
    def of(cls, services: Services, record: KeyRecord) -> Self:
        now = datetime.now(UTC)
        secrets = [make_secret(services.signing_key, record.id, number) for number in record.webhook_secrets(now)]
        is_former = len(secrets) > 1
        return cls(
            id=record.id,
            secret=secrets[0],
            former=secrets[1] if is_former else None,
            former_until=record.webhook_overlap if is_former else None,
        )


def _check(services: Services, change: KeyChange) -> None:
    """Raises InvalidValue for a model or an upstream that the catalogue does not have, or a time that is past."""
    document = services.catalogue.document
    for field, there in (("models", {*document.models, *document.aliases}), ("upstreams", {*document.upstreams})):
        if absent := [name for name in getattr(change, field) or () if name not in there]:
            raise errors.InvalidValue(
                f"The catalogue has no {absent[0]!r}; there are {', '.join(sorted(there))}.", param=field
            )
    if change.expires is not None and change.expires <= datetime.now(UTC):
        raise errors.InvalidValue(
            "`expires` is past; a key that is to stop at once is disabled by `enabled: false`.", param="expires"
        )


async def _check_all(services: Services, change: KeyChange) -> None:
    """Raises InvalidValue, as `_check` does, and for a webhook's address that would not be opened."""
    _check(services, change)
    if change.webhook is not None and (fault := await find_fault(services.webhook_fetcher, change.webhook)):
        raise errors.InvalidValue(f"`webhook`: {fault}.", param="webhook")


async def _complete(services: Services, record: KeyRecord) -> KeyWithLimits:
    limits = LimitValues.model_validate(await services.ledger.limits_of(Scope(key=record.id)))
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
    """The secret is in this answer and nowhere else. Its limits are set before it exists: it never spends without."""
    await _check_all(services, new)
    key_id = new_id("key")
    wanted = NewKey(**new.model_dump(exclude={"limits"}, exclude_unset=True))
    try:
        await replace_limits(services.ledger, Scope(key=key_id), new.limits or NewLimits())
        record, secret = await services.keys.add(wanted, key_id=key_id)
    except StoreUnavailable:
        with suppress(StoreUnavailable):
            await drop_limits(services.ledger, Scope(key=key_id))
        raise
    made = await _complete(services, record)
    facts = record.model_dump() | {"limits": made.limits.model_dump(exclude_none=True)}
    await record_change(services, operator, "key.create", record.id, after=facts)
    return KeyWithSecret(key=secret, **dict(made))


@router.get("/keys/{key_id}", summary="One key", responses=refusals(errors.KeyNotFound))
async def show_key(services: ServicesDep, operator: ViewerDep, key_id: KeyId) -> KeyWithLimits:
    return await _complete(services, await services.keys.show(key_id))


@router.patch("/keys/{key_id}", summary="Change a key", responses=refusals(errors.KeyNotFound))
async def change_key(services: ServicesDep, operator: AdminDep, key_id: KeyId, change: KeyChange) -> KeyRecord:
    """Fields that are not named stay; null lifts a restriction."""
    await _check_all(services, change)
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
    after = record.model_dump() | {"grace_s": rotation.grace_s}
    await record_change(services, operator, "key.rotate", key_id, before=before, after=after)
    return KeyWithSecret(key=secret, **dict(await _complete(services, record)))


@router.post(
    "/keys/{key_id}/webhook-secret", summary="The secret of a key's webhooks", responses=refusals(errors.KeyNotFound)
)
async def tell_webhook_secret(
    services: ServicesDep, operator: AdminDep, key_id: KeyId, wanted: WantedSecret
) -> WebhookSecret:
    """The key's, whether or not it has a webhook, for a request may name an address; `rotate` makes a new one."""
    record = await services.keys.show(key_id)
    if wanted.rotate:
        before, record = record, await services.keys.rotate_webhook(key_id, wanted.grace_s)
        await record_change(services, operator, "key.rotate_webhook", key_id, before=before, after=record)
    return WebhookSecret.of(services, record)


@router.delete("/keys/{key_id}", summary="Delete a key", responses=refusals(errors.KeyNotFound))
async def delete_key(services: ServicesDep, operator: AdminDep, key_id: KeyId) -> Gone:
    """It and its limits are gone, for ever. What it spent stays in the usage and in the history."""
    before = await services.keys.show(key_id)
    await services.keys.delete(key_id)
    await drop_limits(services.ledger, Scope(key=key_id))
    services.key_cache.forget()
    await record_change(services, operator, "key.delete", key_id, before=before)
    return Gone(id=key_id)
