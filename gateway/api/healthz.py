"""`/healthz` (the process answers) and `/readyz` (it takes work). Both are public."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from gateway.api.request import ServicesDep
from gateway.store.client import StoreUnavailable

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process answers")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="The process takes new work")
async def readyz(services: ServicesDep) -> JSONResponse:
    """503 while Redis or the storage is unavailable or full, or while the process shuts down."""
    problems: dict[str, Any] = {}
    try:
        await services.redis.ping()
    except StoreUnavailable:
        problems["redis"] = "does not answer"
    storage = await services.artifacts.check()
    if not storage.is_writable:
        problems["storage"] = services.mask.clean(storage.reason, 200)
    elif await services.disk_space.find_shortage() is not None:
        problems["storage"] = "has too little free space"
    if services.shutdown.is_begun:
        problems["process"] = "is shutting down"
    return JSONResponse(
        {"status": "unavailable", "problems": problems} if problems else {"status": "ok"}, 503 if problems else 200
    )
