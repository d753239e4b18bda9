"""Money outside of requests: the amounts that tasks hold, and an operator's corrections of past spending."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import Field

from gateway import errors
from gateway.history.credits import MOST_USD
from gateway.history.credits import make_credit as book_credit
from gateway.history.record import Credit
from gateway.ids import new_id
from gateway.money.ledger_results import Hold, LedgerAnswer, Scope
from gateway.money.limits import name_scope
from gateway.operations.answers import AnswerModel, Instant, Listing, Usd
from gateway.operations.changes import Actor, record_change
from gateway.operations.limits import find_scope, public_arguments
from gateway.operations.stores import Stores

_MICROSECONDS = 1_000_000
_OLDEST = timedelta(days=366)


class LiveHoldCall(AnswerModel):
    """One paid call of a task. `usd` is its charged amount or, while the call is held, its expected cost."""

    id: str
    state: str = Field(description="`held`, `void`, `presumed` or `posted`.")
    usd: Usd
    images: int
    slots: int
    marked: Instant = Field(description="When the gateway was about to send it.")


class LiveHold(AnswerModel):
    """One task, the amounts that it holds, and its calls."""

    task: str
    key: str
    team: str | None
    worker: str
    state: str = Field(description="`open`, or `closed` while a call's outcome is not known.")
    opened: Instant
    images: int
    free: int = Field(description="Images for which nothing was sent yet.")
    usd_held: Usd
    images_held: int
    calls: list[LiveHoldCall]


class MadeCredit(AnswerModel):
    """A correction that was made."""

    id: str = Field(description="Of the entry in the ledger's journal.")
    scope: str
    usd: Usd
    reason: str
    at: Instant


@dataclass(frozen=True, slots=True)
class Correction:
    """An operator's correction: `usd` (µ$; negative gives back) is added to the spending of a scope.

    An `at` of None is now. Within a day, corrections with the same `id` and the same content count once; an `id` of
    None becomes a new one.
    """

    scope: Scope
    usd: int
    reason: str
    at: datetime | None = None
    id: str | None = None


async def list_holds(stores: Stores, most: int) -> Listing[LiveHold]:
    """Return up to `most` tasks that hold amounts, oldest first.

    An ended task is among them while the outcome of one of its calls is not known.
    """
    holds = await stores.ledger.holds(most + 1)
    return Listing(data=[_describe(hold) for hold in holds[:most]], has_more=len(holds) > most)


async def make_credit(stores: Stores, actor: Actor, wanted: Correction) -> MadeCredit:
    """Book a correction in the ledger and the usage, and log the change.

    A correction of a key also counts for its team and for everyone, one of a team for everyone. Raises KeyNotFound,
    InvalidValue, and IdempotencyMismatch for an `id` of another correction.
    """
    if not 0 < abs(wanted.usd) <= MOST_USD:
        raise errors.InvalidValue("`usd` must be more or less than nothing, as in -0.03.", param="usd")
    scope = await find_scope(stores, wanted.scope)
    if scope.key:
        scope = Scope(key=scope.key, team=(await stores.keys.show(scope.key)).team or "")
    at = _read_instant(wanted.at)
    change = new_id("change") if wanted.id is None else _name_change(wanted.id)
    credit = Credit(id=change, key=scope.key, team=scope.team, usd=wanted.usd, reason=wanted.reason)
    with public_arguments():
        is_booked = await book_credit(stores.ledger, stores.history, credit, at)
    if not is_booked:
        raise errors.IdempotencyMismatch("Another credit was made with this `id`.", param="id")
    made = MadeCredit(id=change, scope=name_scope(scope), usd=wanted.usd, reason=wanted.reason, at=at)
    await record_change(stores, actor, "credit.make", made.scope, after=made)
    return made


def read_scope(text: str) -> Scope:
    """The scope that `everyone`, `team:NAME` or a key's id names; an id is not checked. Raises InvalidValue."""
    if text.startswith("key_"):
        return Scope(key=text)
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
    """The ledger's id for a change to which an operator gave an id."""
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
