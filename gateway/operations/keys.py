"""API keys of callers: create, list, show, change, rotate, delete, and the secrets that sign their webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

from pydantic import Field

from gateway import errors
from gateway.callers.key_record import KeyChange, KeyRecord, NewKey
from gateway.callers.key_store import DAY_S
from gateway.callers.webhook_addresses import find_fault
from gateway.ids import new_id
from gateway.money.ledger_results import Scope
from gateway.money.limits import drop_limits
from gateway.operations.answers import AnswerModel, Deleted, Listing, page
from gateway.operations.changes import Actor, record_change
from gateway.operations.limits import LimitStanding, LimitValues, WindowSpent, list_spent, list_standings, put_limits
from gateway.operations.stores import Stores
from gateway.store.client import StoreUnavailable
from gateway.tasks.webhook_signature import make_secret


class KeyWithLimits(KeyRecord):
    """A key, its own limits, the use of each limit of the key, of its team and of everyone, and the key's spending."""

    limits: LimitValues
    standing: list[LimitStanding]
    spent: list[WindowSpent]


class KeyWithSecret(KeyWithLimits):
    """A key with its secret, which nothing can show again."""

    key: str = Field(description="The secret that the caller sends. Shown this once.")


class WebhookSecret(AnswerModel):
    """The secret by which a receiver verifies a key's webhooks."""

    id: str
    secret: str = Field(description="`whsec_…`, as libraries of Standard Webhooks take it.")
    former: str | None = Field(None, description="The secret before, which signs too for a while after a rotation.")
    former_until: datetime | None = None

    @classmethod
    def of(cls, signing_key: bytes, record: KeyRecord) -> Self:
        secrets = [make_secret(signing_key, record.id, number) for number in record.webhook_secrets(datetime.now(UTC))]
        is_former = len(secrets) > 1
        return cls(
            id=record.id,
            secret=secrets[0],
            former=secrets[1] if is_former else None,
            former_until=record.webhook_overlap if is_former else None,
        )


async def list_keys(
    stores: Stores,
    team: str | None = None,
    *,
    enabled: bool | None = None,
    most: int | None = None,
    after: str | None = None,
) -> Listing[KeyRecord]:
    """Return up to `most` keys after the id `after`, oldest first; None is no bound.

    A `team` keeps only that team's keys, an `enabled` only those that are enabled or disabled.
    """
    records = await stores.keys.list(team=team)
    return page([one for one in records if enabled in (None, one.enabled)], most, after, "id")


async def create_key(
    stores: Stores, actor: Actor, new: NewKey, limits: Mapping[str, int | None] | None = None
) -> KeyWithSecret:
    """Set the limits of a new key, in µ$ and numbers, then make the key; return it with its secret. Logs the change.

    So the key can never spend without its limits. If the key cannot be made, its limits are removed again, unless Redis
    is unavailable. Raises InvalidValue.
    """
    await _check(stores, new)
    key_id = new_id("key")
    scope = Scope(key=key_id)
    try:
        await put_limits(stores.ledger, scope, limits or {})
        record, secret = await stores.keys.add(new, key_id=key_id)
    except (errors.InvalidValue, StoreUnavailable):
        # Limits without a key would stay for ever.
        with suppress(StoreUnavailable):
            await drop_limits(stores.ledger, scope)
        raise
    made = await _complete(stores, record)
    facts = record.model_dump() | {"limits": made.limits.model_dump(exclude_none=True)}
    await record_change(stores, actor, "key.create", record.id, after=facts)
    return KeyWithSecret(key=secret, **dict(made))


async def show_key(stores: Stores, key: str) -> KeyWithLimits:
    """Return one key with its limits and spending. `key` is an id or a name. Raises KeyNotFound."""
    return await _complete(stores, await stores.keys.show(await stores.keys.find_id(key)))


async def change_key(stores: Stores, actor: Actor, key: str, change: KeyChange) -> KeyRecord:
    """Set the fields that `change` sets, and log the change; the others stay. `key` is an id or a name.

    Raises KeyNotFound, InvalidValue.
    """
    await _check(stores, change)
    key_id = await stores.keys.find_id(key)
    before = await stores.keys.show(key_id)
    record = await stores.keys.apply(key_id, change)
    await record_change(stores, actor, "key.change", key_id, before=before, after=record)
    return record


async def rotate_key(stores: Stores, actor: Actor, key: str, grace_s: int = DAY_S) -> KeyWithSecret:
    """Give a key a new secret, log the change, and return the key with the secret. `key` is an id or a name.

    The former secret works for `grace_s` more seconds; with 0 all former ones stop at once. Raises KeyNotFound.
    """
    key_id = await stores.keys.find_id(key)
    before = await stores.keys.show(key_id)
    record, secret = await stores.keys.rotate(key_id, grace_s)
    after = record.model_dump() | {"grace_s": grace_s}
    await record_change(stores, actor, "key.rotate", key_id, before=before, after=after)
    return KeyWithSecret(key=secret, **dict(await _complete(stores, record)))


async def show_webhook_secret(
    stores: Stores, actor: Actor, key: str, *, rotates: bool = False, grace_s: int = DAY_S
) -> WebhookSecret:
    """Return the secret of a key's webhooks. With `rotates` make a new one first, and log the change.

    The former one then signs too for `grace_s` more seconds. `key` is an id or a name. Raises KeyNotFound.
    """
    key_id = await stores.keys.find_id(key)
    record = await stores.keys.show(key_id)
    if rotates:
        before, record = record, await stores.keys.rotate_webhook(key_id, grace_s)
        await record_change(stores, actor, "key.rotate_webhook", key_id, before=before, after=record)
    return WebhookSecret.of(stores.signing_key, record)


async def delete_key(stores: Stores, actor: Actor, key: str) -> Deleted:
    """Delete a key and its limits, and log the change. Its spending stays in usage and history.

    `key` is an id or a name. Raises KeyNotFound.
    """
    key_id = await stores.keys.find_id(key)
    before = await stores.keys.show(key_id)
    await stores.keys.delete(key_id)
    await drop_limits(stores.ledger, Scope(key=key_id))
    await record_change(stores, actor, "key.delete", key_id, before=before)
    return Deleted(id=key_id)


async def _complete(stores: Stores, record: KeyRecord) -> KeyWithLimits:
    limits = LimitValues.model_validate(await stores.ledger.limits_of(Scope(key=record.id)))
    standings = await stores.ledger.look(record.id, record.team or "")
    return KeyWithLimits(
        **record.model_dump(),
        limits=limits,
        standing=list_standings(standings),
        spent=list_spent(standings, "key"),
    )


async def _check(stores: Stores, change: KeyChange) -> None:
    """Raise InvalidValue for a model or upstream that the catalogue lacks, an end in the past, or a wrong webhook.

    A webhook is wrong if its address is not allowed or its host is not found now.
    """
    document = stores.document if change.models or change.upstreams else None
    if document is not None:
        known = {"models": {*document.models, *document.aliases}, "upstreams": {*document.upstreams}}
        for field, names in known.items():
            if absent := [name for name in getattr(change, field) or () if name not in names]:
                raise errors.InvalidValue(
                    f"The catalogue has no {absent[0]!r}; it has {', '.join(sorted(names))}.", param=field
                )
    if change.expires is not None and change.expires <= datetime.now(UTC):
        raise errors.InvalidValue("`expires` is in the past; to stop a key at once, disable it.", param="expires")
    if change.webhook is not None and (fault := await find_fault(stores.webhook_fetcher, change.webhook)):
        raise errors.InvalidValue(f"`webhook`: {fault}.", param="webhook")
