"""Limits of a key, a team or everyone: show them with their use, change some of them, or replace all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import Field

from gateway import errors
from gateway.dollars import show_usd
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import InvalidArgument, Scope, Spent, Standing, Standings
from gateway.money.limits import DOLLARS, LIMITS, name_scope, set_limits
from gateway.operations.answers import AnswerModel, Instant, Usd
from gateway.operations.changes import Actor, record_change
from gateway.operations.stores import Stores


class LimitValues(AnswerModel):
    """The limits of one scope. Null is no limit."""

    usd_total: Usd | None = Field(None, description="Dollars in total.")
    usd_month: Usd | None = Field(None, description="Dollars a calendar month.")
    usd_week: Usd | None = Field(None, description="Dollars a week, from Monday.")
    usd_day: Usd | None = Field(None, description="Dollars a day.")
    images_month: int | None = Field(None, description="Images a calendar month.")
    images_day: int | None = Field(None, description="Images a day.")
    concurrent_requests: int | None = Field(None, description="Requests at a time.")
    requests_minute: int | None = Field(None, description="Requests a minute.")
    images_minute: int | None = Field(None, description="Images a minute.")


class LimitStanding(AnswerModel):
    """One limit and its use. Dollars are texts, counts are numbers."""

    limit: str
    scope: str = Field(description="Whose: `key`, `team` or `everyone`.")
    ceiling: str | int
    used: str | int
    left: str | int
    resets: Instant | None = Field(description="When it allows everything again; null where no clock can tell.")


class WindowSpent(AnswerModel):
    """Spending in one window: posted on evidence, presumed for paid calls of unknown outcome, held by running work."""

    window: str = Field(description="`total`, `month`, `week` or `day`.")
    usd_posted: Usd
    usd_presumed: Usd
    usd_held: Usd
    images_posted: int
    images_presumed: int
    images_held: int


class ScopeLimits(AnswerModel):
    """The limits of one scope, and the use of each limit that applies to it."""

    scope: str = Field(description="`everyone`, `team:NAME` or a key's id.")
    limits: LimitValues
    standing: list[LimitStanding] = Field(description="Of its own limits, and of those of its team and of everyone.")


async def find_scope(stores: Stores, scope: Scope) -> Scope:
    """Return the scope with its key's id in place of the key's name.

    Raises KeyNotFound for a name of no key or of several; an id is not checked.
    """
    return Scope(key=await stores.keys.find_id(scope.key), team=scope.team) if scope.key else scope


async def show_limits(stores: Stores, scope: Scope) -> ScopeLimits:
    """Return the limits of a scope, with their use. The scope's key is an id or a name.

    Raises KeyNotFound, and InvalidValue for a team's name that the ledger refuses.
    """
    scope = await find_scope(stores, scope)
    team = scope.team or (((await stores.keys.show(scope.key)).team or "") if scope.key else "")
    with public_arguments():
        limits = await stores.ledger.limits_of(scope)
        standings = await stores.ledger.look(scope.key, team)
    return ScopeLimits(
        scope=name_scope(scope), limits=LimitValues.model_validate(limits), standing=list_standings(standings)
    )


async def change_limits(stores: Stores, actor: Actor, scope: Scope, wanted: Mapping[str, int | None]) -> ScopeLimits:
    """Set some limits of a scope, in µ$ and numbers; None removes a limit, and the others stay. Logs a change.

    The scope's key is an id or a name. Raises KeyNotFound, InvalidValue.
    """
    scope = await find_scope(stores, scope)
    before = await show_limits(stores, scope)
    await put_limits(stores.ledger, scope, wanted)
    after = await show_limits(stores, scope)
    if after.limits != before.limits:
        await record_change(stores, actor, "limits.set", after.scope, before=before.limits, after=after.limits)
    return after


async def replace_limits(stores: Stores, actor: Actor, scope: Scope, wanted: Mapping[str, int | None]) -> ScopeLimits:
    """Give a scope exactly these limits, in µ$ and numbers: others are removed. Logs a change.

    The scope's key is an id or a name. Raises KeyNotFound, InvalidValue.
    """
    return await change_limits(stores, actor, scope, dict.fromkeys(LIMITS) | dict(wanted))


async def put_limits(ledger: Ledger, scope: Scope, wanted: Mapping[str, int | None]) -> None:
    """Set limits, in µ$ and numbers, and remove those that are None; the others stay.

    The order is that of `order_changes`: at each moment the limits are at least as strict as before or as after. Raises
    InvalidValue; the limits that were set before the error stay.
    """
    with public_arguments():
        await set_limits(ledger, scope, order_changes(await ledger.limits_of(scope), wanted))


def order_changes(present: Mapping[str, int], wanted: Mapping[str, int | None]) -> dict[str, int | None]:
    """The limits that change: first those that are new or lower, then the higher ones, then those that are removed."""
    changed = [(name, value) for name, value in wanted.items() if value != present.get(name)]
    changed.sort(key=lambda pair: 2 if pair[1] is None else int(pair[1] > present.get(pair[0], pair[1])))
    return dict(changed)


def list_standings(standings: Standings) -> list[LimitStanding]:
    """Each limit in the ledger's reply with its use, for an answer: dollars as texts, counts as numbers."""
    return [_describe_standing(one) for one in standings.limits]


def list_spent(standings: Standings, scope: str) -> list[WindowSpent]:
    """The spending of one scope (`key`, `team` or `everyone`), in total and in the present month, week and day."""
    return [_describe_spent(one) for one in standings.spent if one.scope == scope]


@contextmanager
def public_arguments() -> Iterator[None]:
    """Within the context, raise InvalidValue with the argument's name for an argument that the ledger refuses."""
    try:
        yield
    except InvalidArgument as error:
        raise errors.InvalidValue(f"The ledger does not take this `{error.argument}`.", param=error.argument) from error


def _describe_standing(one: Standing) -> LimitStanding:
    numbers = (one.ceiling, one.used, one.left)
    ceiling, used, left = (show_usd(number) if one.limit in DOLLARS else number for number in numbers)
    return LimitStanding(limit=one.limit, scope=one.scope, ceiling=ceiling, used=used, left=left, resets=one.resets)


def _describe_spent(one: Spent) -> WindowSpent:
    return WindowSpent.model_validate({name: getattr(one, name) for name in WindowSpent.model_fields})
