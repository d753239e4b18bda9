"""The route of vendors' callbacks. A callback is a hint that a vendor's task may have ended; its URL authorizes it.

A process that waits for the call then polls the vendor with the gateway's own key. From a callback's body the gateway
takes the id of a ticket alone, and only for a call that has no ticket.
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
"""The longest body of a callback, in bytes, that is used. A callback with a longer body still counts as a hint."""


@router.post("/callbacks/{kind}/{task_id}/{call_id}", summary="A vendor's hint that a paid call has ended")
async def receive_callback(
    kind: str, task_id: str, call_id: str, request: Request, services: ServicesDep, token: str = ""
) -> Response:
    """Wake the process that waits for a paid call; store the ticket that the body names if the call has none.

    Raises UnknownRoute, before the body is read, for every URL that this gateway did not make and while callbacks are
    off. Raises QuotaStoreUnavailable if Redis is unavailable.
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
    """The callback's body as a JSON value; None if it is too long, incomplete or not JSON."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                return None
        return orjson.loads(bytes(body))
    except (ClientDisconnect, orjson.JSONDecodeError):
        return None
