"""The application: which routes there are, and what they may touch.

Made once by each worker. Never reads the environment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response

from gateway.datafolder import Secrets
from gateway.settings import Settings
from gateway.store.client import StoreUnavailable, connect


def create_app(settings: Settings, *, store_url: str, secrets: Secrets, simulated_by: str | None = None) -> FastAPI:
    """The gateway over one store; `simulated_by` is the URL of the simulator that stands for every upstream."""
    store = connect(store_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await store.aclose()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.state.is_draining = False

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(response: Response) -> dict[str, str]:
        try:
            await store.execute_command("PING")
        except StoreUnavailable:
            response.status_code = 503
        if app.state.is_draining:
            response.status_code = 503
        return {"status": "ready" if response.status_code is None else "not ready"}

    return app
