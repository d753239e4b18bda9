"""The route of vendors' callbacks. A callback is a hint that a vendor's task may have ended; its URL authorizes it.

The gateway then polls the vendor with its own key. It believes nothing that a callback's body claims.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from gateway import errors
from gateway.api.request import ServicesDep
from gateway.delivery.callbacks import record_callback
from gateway.ids import BODY
from gateway.money.reservation import ledger_unavailable
from gateway.store.client import StoreUnavailable

router = APIRouter(tags=["callbacks"])

_IDS = re.compile(rf"task_{BODY}/call_{BODY}")

MOST_BYTES = 256 * 1024
"""The most bytes of a callback's body that are read. A longer one still counts as a hint."""


@router.post("/callbacks/{kind}/{task_id}/{call_id}", summary="A vendor's hint that a paid call has ended")
async def receive_callback(
    kind: str, task_id: str, call_id: str, request: Request, services: ServicesDep, token: str = ""
) -> Response:
    """Record a vendor's hint that a paid call has ended, and wake the process that waits for the call.

    Raises UnknownRoute, before the body is read, for every URL that this gateway did not make, and
    QuotaStoreUnavailable if the hint cannot be recorded.
    """
    callbacks = services.callbacks
    is_known = callbacks is not None and callbacks.knows(kind, task_id, call_id, token)
    if not is_known or not _IDS.fullmatch(f"{task_id}/{call_id}"):
        raise errors.UnknownRoute("There is nothing at this URL.")
    document = await _read(request)
    try:
        await record_callback(services, kind, task_id, call_id, document)
    except StoreUnavailable as error:
        # The vendor tries again later.
        raise ledger_unavailable(error) from error
    return Response(status_code=200)


async def _read(request: Request) -> Any:
    """The callback's body; None when it is too long or not JSON."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                return None
        return orjson.loads(bytes(body))
    except (ClientDisconnect, orjson.JSONDecodeError):
        return None
