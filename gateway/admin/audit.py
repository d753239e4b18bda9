"""The route of the ledger's audit. It repairs nothing; the command `imagegate audit --apply` does."""

from __future__ import annotations

from fastapi import APIRouter

from gateway import errors
from gateway.admin.access import ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import refusals
from gateway.api.request import ServicesDep
from gateway.operations import audit
from gateway.operations.audit import LedgerAudit

router = APIRouter(route_class=GuardedRoute, tags=["audit"])

_RETRY_S = 5


@router.get(
    "/audit",
    summary="Compare the ledger's totals, tasks and journal",
    responses=refusals(errors.RateLimited),
)
async def show_audit(services: ServicesDep, operator: ViewerDep) -> LedgerAudit:
    """Compare everything that the ledger retains, beside running traffic, and change nothing. One audit at a time."""
    if services.auditing.locked():
        raise errors.RateLimited("An audit is running; try again when it has ended.", retry_after=_RETRY_S)
    async with services.auditing:
        return await audit.audit_ledger(services, services.store_epoch.epoch)
