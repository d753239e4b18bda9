"""Limits of everyone, of a team, of a key: shown, replaced as a whole, taken away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from fastapi import APIRouter, Path
from pydantic import Field, StrictInt

from gateway import errors
from gateway.admin.access import AdminDep, Operator, ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.recording import record_change
from gateway.admin.shapes import AnswerModel, GivenUsd, QueryModel, Usd, refusals
from gateway.callers.key_record import Label
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Scope
from gateway.money.limits import name_scope, set_limits
from gateway.services import Services

router = APIRouter(route_class=GuardedRoute, tags=["limits"])

_MOST_COUNT = 10**12
_MOST_RATE = 60_000_000

DollarAmount = Annotated[GivenUsd, Field(ge=0)]
Count = Annotated[StrictInt, Field(ge=0, le=_MOST_COUNT)]
# A rate of none in a minute would have no end; whoever wants that disables the key.
RateValue = Annotated[StrictInt, Field(ge=1, le=_MOST_RATE)]


class LimitValues(AnswerModel):
    """The limits of one scope. Null: none."""

    usd_total: Usd | None = Field(None, description="Dollars in total.")
    usd_month: Usd | None = Field(None, description="Dollars a calendar month.")
    usd_week: Usd | None = Field(None, description="Dollars a week, from Monday.")
    usd_day: Usd | None = Field(None, description="Dollars a day.")
    images_month: int | None = Field(None, description="Images a calendar month.")
    images_day: int | None = Field(None, description="Images a day.")
    concurrent_requests: int | None = Field(None, description="Requests at a time.")
    requests_minute: int | None = Field(None, description="Requests a minute.")
    images_minute: int | None = Field(None, description="Images a minute.")


class NewLimits(QueryModel):
    """The limits that a scope shall have. What is not named, or null, is no limit."""

    usd_total: DollarAmount | None = None
    usd_month: DollarAmount | None = None
    usd_week: DollarAmount | None = None
    usd_day: DollarAmount | None = None
    images_month: Count | None = None
    images_day: Count | None = None
    concurrent_requests: Count | None = None
    requests_minute: RateValue | None = None
    images_minute: RateValue | None = None


class ScopeLimits(AnswerModel):
    """Whose limits, and which."""

    scope: str = Field(description="`everyone`, `team:NAME` or a key's id.")
    limits: LimitValues

    @classmethod
    async def read(cls, ledger: Ledger, scope: Scope) -> Self:
        return cls(scope=name_scope(scope), limits=LimitValues.model_validate(await ledger.limits_of(scope)))


TeamName = Annotated[Label, Path(description="The name of a team.")]
KeyId = Annotated[str, Path(max_length=64, description="Such as `key_01k…`.")]


def order_changes(present: Mapping[str, int], wanted: Mapping[str, int | None]) -> dict[str, int | None]:
    """What must change, in an order in which no moment is looser than before and after: new or lower, higher, gone."""
    changed = [(name, value) for name, value in wanted.items() if value != present.get(name)]
    changed.sort(key=lambda pair: 2 if pair[1] is None else int(pair[1] > present.get(pair[0], pair[1])))
    return dict(changed)


async def replace_limits(ledger: Ledger, scope: Scope, new: NewLimits) -> None:
    """Give a scope exactly these limits."""
    await set_limits(ledger, scope, order_changes(await ledger.limits_of(scope), new.model_dump()))


async def _replace(services: Services, operator: Operator, scope: Scope, new: NewLimits) -> ScopeLimits:
    before = await ScopeLimits.read(services.ledger, scope)
    await replace_limits(services.ledger, scope, new)
    after = await ScopeLimits.read(services.ledger, scope)
    if after != before:
        await record_change(services, operator, "limits.set", after.scope, before=before.limits, after=after.limits)
    return after


@router.get("/limits/everyone", summary="The limits of everyone together")
async def show_limits(services: ServicesDep, operator: ViewerDep) -> ScopeLimits:
    return await ScopeLimits.read(services.ledger, Scope())


@router.put("/limits/everyone", summary="Set the limits of everyone together")
async def set_limits_of_everyone(services: ServicesDep, operator: AdminDep, new: NewLimits) -> ScopeLimits:
    """They are these, and no others, from the next request on."""
    return await _replace(services, operator, Scope(), new)


@router.delete("/limits/everyone", summary="Take the limits of everyone away")
async def delete_limits_of_everyone(services: ServicesDep, operator: AdminDep) -> ScopeLimits:
    return await _replace(services, operator, Scope(), NewLimits())


@router.get("/limits/teams/{team:path}", summary="The limits of a team")
async def show_limits_of_team(services: ServicesDep, operator: ViewerDep, team: TeamName) -> ScopeLimits:
    return await ScopeLimits.read(services.ledger, Scope(team=team))


@router.put("/limits/teams/{team:path}", summary="Set the limits of a team")
async def set_limits_of_team(services: ServicesDep, operator: AdminDep, team: TeamName, new: NewLimits) -> ScopeLimits:
    """Its keys share them. The team need not have a key yet."""
    return await _replace(services, operator, Scope(team=team), new)


@router.delete("/limits/teams/{team:path}", summary="Take the limits of a team away")
async def delete_limits_of_team(services: ServicesDep, operator: AdminDep, team: TeamName) -> ScopeLimits:
    return await _replace(services, operator, Scope(team=team), NewLimits())


@router.get("/limits/keys/{key_id}", summary="The limits of a key", responses=refusals(errors.KeyNotFound))
async def show_limits_of_key(services: ServicesDep, operator: ViewerDep, key_id: KeyId) -> ScopeLimits:
    """Its own ones; those of its team and of everyone hold too."""
    return await ScopeLimits.read(services.ledger, await _scope_of(services, key_id))


@router.put("/limits/keys/{key_id}", summary="Set the limits of a key", responses=refusals(errors.KeyNotFound))
async def set_limits_of_key(services: ServicesDep, operator: AdminDep, key_id: KeyId, new: NewLimits) -> ScopeLimits:
    return await _replace(services, operator, await _scope_of(services, key_id), new)


@router.delete("/limits/keys/{key_id}", summary="Take the limits of a key away", responses=refusals(errors.KeyNotFound))
async def delete_limits_of_key(services: ServicesDep, operator: AdminDep, key_id: KeyId) -> ScopeLimits:
    return await _replace(services, operator, await _scope_of(services, key_id), NewLimits())


async def _scope_of(services: Services, key_id: str) -> Scope:
    return Scope(key=(await services.keys.show(key_id)).id)
