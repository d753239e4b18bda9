"""Who changed what: each change by the admin API leaves a line in the log, with what was before and after.

Called by every endpoint that changes something, after it did. Never holds a secret: records have none, and the log
hides what looks like one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from pydantic import BaseModel

from gateway.admin.access import Operator
from gateway.services import Services
from gateway.store.client import StoreUnavailable

State = BaseModel | Mapping[str, Any] | None
"""What something was or became; None: there was nothing, or there is nothing any more."""

_log = structlog.get_logger(__name__)


async def record_change(
    services: Services,
    operator: Operator,
    action: str,
    subject: str,
    *,
    before: State = None,
    after: State = None,
) -> None:
    """Write one change down. Only the process's own log has it when Redis went away since the change was made."""
    facts = {"actor": operator.actor, "action": action, "subject": subject, "address": operator.address}
    was, became = (state.model_dump() if isinstance(state, BaseModel) else state for state in (before, after))
    try:
        await services.changes.write(operator.actor, action, subject, was, became, operator.address)
    except StoreUnavailable:
        # The change stands; refusing it now would lose the secret of a key that was just made.
        _log.exception("a change is missing from the log of changes", **facts)
    else:
        _log.info("changed", **facts)
