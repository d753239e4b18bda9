"""Whether the ledger's totals, tasks and journal agree. Repairs are the command line's, `imagegate audit --apply`."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from gateway import errors
from gateway.admin.access import ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import AnswerModel
from gateway.dollars import show_usd
from gateway.money.audit import DEADLINE_S, Audit, Difference
from gateway.store.command_queue import CommandQueue

router = APIRouter(route_class=GuardedRoute, tags=["audit"])

_RETRY_S = 5


class LedgerDifference(AnswerModel):
    """One amount, counter or index entry that is not what it must be. Amounts of money are in dollars."""

    kind: str
    place: str = Field(description="Scope and window, or what else it is about.")
    name: str
    found: str = Field(description="What the ledger goes by.")
    tasks: str = Field(description="What the tasks add up to.")
    journal: str = Field(description="What the journal adds up to.")
    right: str


class LedgerAudit(AnswerModel):
    """What was read, and what was not right in it."""

    tasks: int
    sums: int
    entries: int
    differences: list[LedgerDifference]
    spending_closed: bool = Field(
        description="The store was emptied or put back, and nothing is spent until `imagegate audit --accept`."
    )


@router.get("/audit", summary="Whether the ledger agrees with itself")
async def show_audit(services: ServicesDep, operator: ViewerDep) -> LedgerAudit:
    """Reads everything that is retained, while traffic goes on, and changes nothing. One at a time."""
    if services.auditing.locked():
        raise errors.RateLimited("An audit is running; ask again when it is over.", retry_after=_RETRY_S)
    async with services.auditing:
        # A connection of its own: one script may take longer than those of requests may wait.
        command_queue = CommandQueue(services.store_url, deadline_s=DEADLINE_S)
        try:
            audit = Audit(services.redis, command_queue)
            report, epoch = await audit.run(), await audit.read_epoch()
        finally:
            await command_queue.aclose()
    return LedgerAudit(
        tasks=report.tasks,
        sums=report.buckets,
        entries=report.entries,
        differences=[_describe(one) for one in report.differences],
        spending_closed=services.store_epoch.epoch not in ("", epoch.partition(" ")[0]),
    )


def _describe(one: Difference) -> LedgerDifference:
    amounts = (one.found, one.tasks, one.journal, one.right)
    found, tasks, journal, right = (_show(one.name, text) for text in amounts)
    return LedgerDifference(
        kind=one.kind, place=one.place, name=one.name, found=found, tasks=tasks, journal=journal, right=right
    )


def _show(name: str, text: str) -> str:
    digits = text.removeprefix("-")
    # What was damaged need not be a number.
    is_money = name.startswith("usd_") and digits.isascii() and digits.isdigit() and len(digits) < 20
    return show_usd(int(text)) if is_money else text
