"""The routes of money outside of requests: the amounts that tasks hold, and corrections of past spending."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field

from gateway import errors
from gateway.admin.access import AdminDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import GivenUsd, Most, QueryModel, refusals
from gateway.api.request import ServicesDep
from gateway.callers.key_record import Label
from gateway.history.credits import MOST_USD
from gateway.operations import money
from gateway.operations.answers import Listing
from gateway.operations.money import Correction, LiveHold, MadeCredit, read_scope

router = APIRouter(route_class=GuardedRoute, tags=["money"])


class NewCredit(QueryModel):
    """The body of a request that corrects past spending."""

    scope: Annotated[Label, Field(description="`everyone`, `team:NAME` or a key's id.")]
    usd: Annotated[GivenUsd, Field(ge=-MOST_USD, le=MOST_USD)] = Field(
        description="Added to the spending: negative gives money back."
    )
    reason: Annotated[Label, Field(description="Why, for readers of the journal.")]
    at: AwareDatetime | None = Field(None, description="An instant of the day that it belongs to; null: now.")
    id: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None, description="A text of your own: the same credit that is sent again within a day counts once."
    )


class HoldsQuery(QueryModel):
    """The query of `GET /holds`: the most rows."""

    most: Most = 100


@router.get("/holds", summary="The holds of running tasks, oldest first")
async def list_holds(
    services: ServicesDep, operator: ViewerDep, wanted: Annotated[HoldsQuery, Query()]
) -> Listing[LiveHold]:
    return await money.list_holds(services, wanted.most)


@router.post(
    "/credits",
    summary="Correct past spending",
    status_code=201,
    responses=refusals(errors.KeyNotFound, errors.IdempotencyMismatch),
)
async def make_credit(services: ServicesDep, operator: AdminDep, new: NewCredit) -> MadeCredit:
    """Add an amount to past spending, with entries in the ledger's journal and in the usage.

    A correction of a key also counts for its team and for everyone, one of a team for everyone.
    """
    wanted = Correction(read_scope(new.scope), new.usd, new.reason, new.at, new.id)
    return await money.make_credit(services, operator.actor, wanted)
