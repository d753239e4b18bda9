"""Where vendors tell that a task of theirs has ended: the address is the right to tell it, and telling is only a hint.

Whoever follows the call asks the vendor at once, with our key; nothing that a callback's body claims is believed.
"""

from __future__ import annotations

import re

import structlog
from fastapi import APIRouter, Request, Response

from gateway import errors
from gateway.api.dependencies import ServicesDep
from gateway.auth import store_away
from gateway.ids import BODY
from gateway.store.client import StoreUnavailable

router = APIRouter(tags=["callbacks"])

_IDS = re.compile(rf"task_{BODY}/call_{BODY}")

_log = structlog.get_logger(__name__)


@router.post("/callbacks/{kind}/{task_id}/{call_id}", summary="A vendor's hint that a paid call has ended")
async def hear_callback(
    kind: str, task_id: str, call_id: str, request: Request, services: ServicesDep, token: str = ""
) -> Response:
    """Raises UnknownRoute for every address that this gateway did not make, and before anything is read."""
    callbacks = services.callbacks
    is_known = callbacks is not None and callbacks.knows(kind, task_id, call_id, token)
    if not is_known or not _IDS.fullmatch(f"{task_id}/{call_id}"):
        raise errors.UnknownRoute("There is nothing at this address.")
    try:
        await services.task_store.hint(call_id)
    except StoreUnavailable as error:
        # The vendor tries again later.
        raise store_away(error) from error
    return Response(status_code=200)
