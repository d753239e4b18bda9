"""Money outside of requests: what is held at this moment, and an operator's corrections of what was spent."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field

from gateway import errors
from gateway.admin.access import AdminDep, ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.recording import record_change
from gateway.admin.shapes import AnswerModel, GivenUsd, Instant, Listing, Most, QueryModel, Usd, refusals
from gateway.callers.key_record import Label
from gateway.history.credits import MOST_USD
from gateway.history.credits import make_credit as book_credit
from gateway.history.record import Credit
from gateway.ids import new_id
from gateway.money.ledger_results import Hold, LedgerAnswer, Scope
from gateway.money.limits import name_scope
from gateway.services import Services

router = APIRouter(route_class=GuardedRoute, tags=["money"])

_MICROSECONDS = 1_000_000
_OLDEST = timedelta(days=366)


class LiveHoldCall(AnswerModel):
    """One paid call of a task. `usd` is what it counts for, or, while it is held, what it is expected to cost."""

    id: str
    state: str = Field(description="`held`, `void`, `presumed` or `posted`.")
    usd: Usd
    images: int
    slots: int
    marked: Instant = Field(description="When it was about to be sent.")


class LiveHold(AnswerModel):
    """What one task holds of its limits."""

    task: str
    key: str
    team: str | None
    worker: str
    state: str = Field(description="`open`, or `closed` while a call's outcome is not known.")
    opened: Instant
    images: int
    free: int = Field(description="Images that were not sent for yet.")
    usd_held: Usd
    images_held: int
    calls: list[LiveHoldCall]


class NewCredit(QueryModel):
    """A correction of what was spent."""

    scope: Annotated[Label, Field(description="`everyone`, `team:NAME` or a key's id.")]
    usd: Annotated[GivenUsd, Field(ge=-MOST_USD, le=MOST_USD)] = Field(
        description="Added to what was spent: negative gives money back."
    )
    reason: Annotated[Label, Field(description="Why, for whoever reads the journal.")]
    at: AwareDatetime | None = Field(None, description="An instant of the day that it belongs to; null: now.")
    id: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None, description="A text of your own: the same credit that is sent again within a day counts once."
    )


class HoldsQuery(QueryModel):
    """How many holds."""

    most: Most = 100


class MadeCredit(AnswerModel):
    """A correction that was made."""

    id: str = Field(description="Of the entry in the ledger's journal.")
    scope: str
    usd: Usd
    reason: str
    at: Instant


@router.get("/holds", summary="What running tasks hold, oldest first")
async def list_holds(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[HoldsQuery, Query()]
) -> Listing[LiveHold]:
    holds = await services.ledger.holds(wanted.most + 1)
    return Listing(data=[_describe(hold) for hold in holds[: wanted.most]], has_more=len(holds) > wanted.most)


@router.post(
    "/credits",
    summary="Correct what was spent",
    status_code=201,
    responses=refusals(errors.KeyNotFound, errors.IdempotencyMismatch),
)
async def make_credit(services: ServicesDep, operator: AdminDep, new: NewCredit) -> MadeCredit:
    """It moves the totals of the scope and of those above it, and stands in the journal and in the usage."""
    scope = await _read_scope(services, new.scope)
    at = _read_instant(new.at)
    change = new_id("change") if new.id is None else _name_change(new.id)
    credit = Credit(id=change, key=scope.key, team=scope.team, usd=new.usd, reason=new.reason)
    if not await book_credit(services.ledger, services.history, credit, at):
        raise errors.IdempotencyMismatch("A credit with this `id` was made, and it was another one.", param="id")
    made = MadeCredit(id=change, scope=new.scope, usd=new.usd, reason=new.reason, at=at)
    await record_change(services, operator, "credit.make", new.scope, after=made)
    return made


async def _read_scope(services: Services, text: str) -> Scope:
    """Whom a correction is about. Raises KeyNotFound, InvalidValue."""
    if text.startswith("key_"):
        record = await services.keys.show(text)
        return Scope(key=record.id, team=record.team or "")
    scope = Scope(team=text.removeprefix("team:") if text.startswith("team:") else "")
    if name_scope(scope) != text:
        raise errors.InvalidValue("`scope` must be `everyone`, `team:NAME` or a key's id.", param="scope")
    return scope


def _read_instant(at: datetime | None) -> int:
    now = datetime.now(UTC)
    if at is None:
        return time.time_ns() // 1000
    if not now - _OLDEST < at <= now:
        raise errors.InvalidValue("`at` must be in the past, and at most a year ago.", param="at")
    return round(at.timestamp() * _MICROSECONDS)


def _name_change(text: str) -> str:
    """The id in the ledger of a change that an operator named."""
    return f"change_{hashlib.sha256(text.encode()).hexdigest()[:26]}"


def _describe(hold: Hold) -> LiveHold:
    calls = [
        LiveHoldCall(
            id=call.call,
            state=call.state,
            usd=call.price if call.state is LedgerAnswer.HELD else call.usd,
            images=call.images,
            slots=call.slots,
            marked=call.marked,
        )
        for call in hold.calls
    ]
    return LiveHold(
        task=hold.task,
        key=hold.key,
        team=hold.team or None,
        worker=hold.worker,
        state=hold.state,
        opened=hold.opened,
        images=hold.images,
        free=hold.free,
        usd_held=hold.usd_held,
        images_held=hold.images_held,
        calls=calls,
    )
