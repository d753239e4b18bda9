"""The application: which routes there are, in which layers, and what they may touch.

Made once by each worker. Never binds a socket and never starts a process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway import __version__
from gateway.admin.router import PREFIX as ADMIN_PREFIX
from gateway.admin.router import admin_router
from gateway.api import artifacts, callbacks, healthz, images, key, models
from gateway.api import tasks as task_routes
from gateway.api.connection.edge import Edge
from gateway.api.connection.error_handlers import add_error_handlers
from gateway.api.connection.protocol import WireLimits
from gateway.api.front import DirectRoutes
from gateway.artifacts import ArtifactsUnavailable
from gateway.catalogue.catalogue import load
from gateway.health.checks import HealthChecks
from gateway.history.gaps import Gaps
from gateway.process import memory
from gateway.process.data_folder import Secrets
from gateway.process.settings import Settings
from gateway.recovery import conclusion
from gateway.recovery.collector import Collector
from gateway.recovery.housekeeping import Housekeeping, Pace
from gateway.services import Services, open_services
from gateway.store.client import StoreUnavailable
from gateway.tasks.task import drain
from gateway.tasks.wait import runs_here
from gateway.tasks.webhooks import WebhookSender

SWEEP_EVERY_S = 300.0

TRIM_EVERY_S = 30.0

CANCEL_EVERY_S = 0.5

GAPS_EVERY_S = 60.0

EXPOSED = (
    "x-request-id",
    "x-gateway-task",
    "x-gateway-upstream",
    "x-gateway-calls",
    "x-gateway-cost-usd",
    "x-gateway-size",
    "x-gateway-delivered",
    "x-gateway-dropped-params",
    "x-gateway-joined",
    "x-gateway-simulated",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-images",
    "x-ratelimit-remaining-images",
    "x-ratelimit-reset-images",
    "x-should-retry",
    "retry-after",
    "idempotent-replayed",
    "location",
    "preference-applied",
)
"""Answer headers that a browser's script may read."""

_log = structlog.get_logger(__name__)


def create_app(
    settings: Settings,
    *,
    store_url: str,
    secrets: Secrets,
    env: Mapping[str, str],
    simulated_by: str | None = None,
) -> FastAPI:
    """The gateway over one store. `simulated_by` is the URL of the simulator that stands for every upstream.

    `env` is where the catalogue's `env:NAME` references are looked up. Raises CatalogueError.
    """
    catalogue = load(settings.config, env, simulator_url=simulated_by)
    services = open_services(
        settings,
        catalogue,
        store_url,
        pepper=secrets.pepper,
        signing_key=secrets.signing_key,
        spool_folder=settings.data_dir / "spool" / str(os.getpid()),
    )

    app = FastAPI(
        title="imagegate", version=__version__, lifespan=_live, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.state.services = services
    add_error_handlers(app)
    _include_routes(app, settings)
    app.add_middleware(DirectRoutes, routes=images.FRONT)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=list(EXPOSED),
        )
    app.add_middleware(Edge, is_simulated=catalogue.is_simulated)
    return app


@asynccontextmanager
async def _live(app: FastAPI) -> AsyncIterator[None]:
    """From the first step to the last: what runs beside the requests, and what must end before the process does."""
    services: Services = app.state.services
    await asyncio.to_thread(_clear_spools, services.spool_folder)
    collector = Collector(services)
    await asyncio.to_thread(services.worker_locks.tie)
    housekeeping = Housekeeping(
        services.ledger,
        services.worker,
        _pace(services),
        collector,
        runs=lambda task: runs_here(services, task),
        worker_locks=services.worker_locks,
    )
    services.shutdown.on_change = services.task_events.wake_all
    await housekeeping.start()
    health_checks = HealthChecks(
        services.health, services.upstreams, services.new_spool, services.catalogue.document.accounting.lease / 3
    )
    health_checks.start()
    webhook_sender = WebhookSender(services)
    webhook_sender.start()
    keepers = [asyncio.create_task(keep(services)) for keep in (_sweep, _trim, _fill_gaps, _listen)]
    yield
    for keeper in keepers:
        await _stop(keeper)
    # A request's answer may be gone while its work runs on; what was paid for is stored before the process ends.
    services.shutdown.begin()
    if left := await drain(services):
        _log.error("tasks were cut off at the end of the drain", tasks=left)
    await webhook_sender.stop()
    await health_checks.stop()
    await housekeeping.stop()
    await collector.stop()
    await services.close()
    services.worker_locks.cut()


async def _stop(keeper: asyncio.Task[None]) -> None:
    """End what would run for ever, though a library on the way loses a cancellation, as happens while it connects."""
    while not keeper.done():
        keeper.cancel()
        await asyncio.wait({keeper}, timeout=CANCEL_EVERY_S)
    if not keeper.cancelled() and (fault := keeper.exception()):
        _log.error("what runs beside the requests had broken off", exc_info=fault)


def _include_routes(app: FastAPI, settings: Settings) -> None:
    app.include_router(healthz.router)
    app.include_router(images.router, prefix="/v1")
    app.include_router(task_routes.router, prefix="/v1")
    app.include_router(models.router, prefix="/v1")
    app.include_router(key.router, prefix="/v1")
    app.include_router(artifacts.router, prefix="/v1")
    app.include_router(callbacks.router)
    # A base URL pasted without /v1 is the commonest mistake.
    app.include_router(images.router, include_in_schema=False)
    if settings.admin_token is not None:
        app.include_router(admin_router(), prefix=ADMIN_PREFIX, include_in_schema=False)


def wire_limits(app: FastAPI) -> WireLimits:
    """The catalogue's bounds on a connection, for the protocol class."""
    limits = app.state.services.catalogue.limits
    return WireLimits(
        header_timeout_s=limits.header_timeout,
        header_bytes=limits.header_bytes,
        header_count=limits.header_count,
        body_idle_s=limits.body_idle,
        answer_idle_s=limits.answer_idle,
    )


def _pace(services: Services) -> Pace:
    times = [target.config.timeouts for target in services.catalogue.targets]
    return Pace(
        call_timeout_s=max((each.connect + each.call for each in times), default=0),
        lease_s=services.catalogue.document.accounting.lease,
    )


async def _listen(services: Services) -> None:
    """Hear of tasks that other workers run."""
    await services.task_events.listen()


async def _sweep(services: Services) -> None:
    """Remove expired pictures, now and every few minutes."""
    while True:
        try:
            removed = await services.artifacts.sweep(time.time())
        except (OSError, ArtifactsUnavailable) as error:
            _log.error("the sweep of expired pictures failed", reason=str(error))
        else:
            if removed:
                _log.info("removed expired pictures", pictures=removed)
        await asyncio.sleep(SWEEP_EVERY_S)


async def _trim(services: Services) -> None:
    """Give freed memory back whenever nothing runs: after 40 answers of 20 MB at once, that is 86 of 91 MiB."""
    while True:
        await asyncio.sleep(TRIM_EVERY_S)
        if not services.running:
            await asyncio.to_thread(memory.trim)


async def _fill_gaps(services: Services) -> None:
    """Tell the history of paid work whose process died before it could."""
    gaps = Gaps(
        services.redis,
        services.ledger,
        services.history,
        services.recorder.note,
        describe=lambda hold: conclusion.describe(services, hold),
    )
    while True:
        await asyncio.sleep(GAPS_EVERY_S)
        try:
            told = await gaps.fill()
        except StoreUnavailable as error:
            _log.warning("the history could not be compared with the ledger", reason=str(error))
        else:
            if told:
                _log.warning("told the history of work whose process died", tasks=told)


def _clear_spools(own: Path) -> None:
    """Remove what workers that are gone have left; a folder is named after its process."""
    if not own.parent.is_dir():
        return
    for folder in own.parent.iterdir():
        is_gone = folder == own or not Path("/proc", folder.name).exists()
        if is_gone:
            shutil.rmtree(folder, ignore_errors=True)
