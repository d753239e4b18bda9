"""The application of one worker: its routes, its middleware, and the periodic steps that run beside the requests.

This module never binds a socket and never starts a process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway import __version__
from gateway.api import artifacts, callbacks, document, healthz, images, key, models
from gateway.api import tasks as task_routes
from gateway.api.connection.error_handlers import add_error_handlers
from gateway.api.connection.limits import WireLimits
from gateway.api.connection.middleware import DirectRoutes, Edge
from gateway.api.document_parts import ANSWER_HEADERS
from gateway.artifacts import ArtifactsUnavailable, remove_expired
from gateway.catalogue.catalogue import load
from gateway.health.checks import HealthChecks
from gateway.history.gaps import Gaps
from gateway.history.refusals import FOLD_EVERY_S
from gateway.pictures.spool import clear_spools
from gateway.pictures.threads import open_pool
from gateway.process import memory
from gateway.process.data_folder import Secrets
from gateway.process.periodic import PeriodicStep
from gateway.process.settings import Settings
from gateway.recovery import conclusion
from gateway.recovery.collector import Collector
from gateway.recovery.housekeeping import Housekeeping, OwnWork, Pace
from gateway.services import Services, open_services
from gateway.store.client import StoreUnavailable
from gateway.tasks.task import drain, join_steps
from gateway.tasks.wait import record_departures, runs_here
from gateway.tasks.webhooks import WebhookSender

SWEEP_EVERY_S = 300.0

TRIM_EVERY_S = 30.0

GAPS_EVERY_S = 60.0

LISTEN_AGAIN_S = 0.5

FILE_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Most threads of one process for file access and the look-up of host names; asyncio's default is the same."""

EXPOSED = tuple(ANSWER_HEADERS)
"""The response headers that scripts from `cors_origins` may read in a browser."""

_log = structlog.get_logger(__name__)


def create_app(
    settings: Settings,
    *,
    store_url: str,
    secrets: Secrets,
    env: Mapping[str, str],
    simulated_by: str | None = None,
) -> FastAPI:
    """Make the gateway over one store. `simulated_by` is the URL of a simulator that replaces every upstream, or None.

    `env` has the values of the catalogue's `env:NAME` references. Raises CatalogueError and SettingsError.
    """
    catalogue = load(settings.config, env, simulator_url=simulated_by)
    services = open_services(
        settings,
        catalogue,
        store_url,
        secrets=secrets,
        env=env,
        spool_folder=settings.data_dir / "spool" / str(os.getpid()),
    )

    app = FastAPI(
        title="imagegate",
        version=__version__,
        lifespan=_run_lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # A redirect would come before the key is checked, and many clients would follow it with a GET.
        redirect_slashes=False,
        # The framework would look for a configuration of OpenTelemetry at each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    app.state.readiness = healthz.ReadinessLog()
    add_error_handlers(app)
    _include_routes(app, settings)
    app.add_middleware(DirectRoutes, routes=images.DIRECT_ROUTES)
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
async def _run_lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the steps beside the requests. After the last request, stop them and close all services.

    In between, wait for paid work as long as the settings allow.
    """
    services: Services = app.state.services
    asyncio.get_running_loop().set_default_executor(open_pool(FILE_THREADS, "files"))
    await asyncio.to_thread(clear_spools, services.spool_folder)
    await asyncio.to_thread(services.worker_locks.acquire)
    services.shutdown.on_change = services.task_events.wake_all

    collector = Collector(services)
    housekeeping = Housekeeping(
        services.ledger,
        services.worker,
        _pace(services),
        collector,
        own=OwnWork(
            lambda task: runs_here(services, task),
            lambda seconds: record_departures(services.departing, services.pending_posts, seconds),
        ),
        worker_locks=services.worker_locks,
    )
    health_checks = HealthChecks(
        services.health, services.upstreams, services.new_spool, services.catalogue.document.accounting.lease / 3
    )
    webhook_sender = WebhookSender(services)
    steps = _list_steps(services)

    join_steps(services)
    await housekeeping.start()
    webhook_sender.start()
    for step in (*steps, *health_checks.steps):
        step.start()
    yield
    for step in steps:
        await step.stop()
    # The work of a disconnected caller still runs; paid pictures are stored before the process ends.
    services.shutdown.begin()
    tasks, posts = await drain(services)
    if tasks or posts:
        _log.error("work was cut off at the end of the drain", tasks=tasks, posts=posts)
    await webhook_sender.stop()
    for step in health_checks.steps:
        await step.stop()
    await housekeeping.stop()
    await collector.stop()
    await services.close()
    services.worker_locks.release()


def _list_steps(services: Services) -> list[PeriodicStep]:
    """Make the steps beside the requests that stop before the drain. They are not started yet."""
    gaps = Gaps(
        services.redis,
        services.ledger,
        services.history,
        services.recorder.note,
        describe=lambda hold: conclusion.describe(services, hold),
    )
    return [
        PeriodicStep(
            "removal of expired pictures",
            SWEEP_EVERY_S,
            lambda: remove_expired(services.artifacts),
            expected=(OSError, ArtifactsUnavailable),
        ),
        PeriodicStep(
            "return of freed memory",
            TRIM_EVERY_S,
            lambda: memory.trim_if(lambda: not services.running),
            pauses_first=True,
        ),
        PeriodicStep(
            "search for gaps in the history", GAPS_EVERY_S, gaps.fill, pauses_first=True, expected=(StoreUnavailable,)
        ),
        PeriodicStep("count of refusals", FOLD_EVERY_S, services.refusals.fold),
        PeriodicStep("listener for changed tasks", LISTEN_AGAIN_S, services.task_events.listen),
    ]


def _include_routes(app: FastAPI, settings: Settings) -> None:
    app.include_router(healthz.router)
    app.include_router(images.router, prefix="/v1")
    app.include_router(task_routes.router, prefix="/v1")
    app.include_router(models.router, prefix="/v1")
    app.include_router(key.router, prefix="/v1")
    app.include_router(artifacts.router, prefix="/v1")
    app.include_router(callbacks.router)
    app.include_router(document.router)
    if settings.admin_token is not None:
        # Loaded here, since its models take a fifth of a worker's start, and most gateways do without them.
        admin = import_module("gateway.admin.router")
        app.include_router(admin.admin_router(), prefix=admin.PREFIX, include_in_schema=False)


def wire_limits(app: FastAPI) -> WireLimits:
    """Return the catalogue's bounds on a connection, for the protocol class."""
    limits = app.state.services.catalogue.limits
    return WireLimits(
        header_timeout_s=limits.header_timeout,
        header_bytes=limits.header_bytes,
        header_count=limits.header_count,
        body_idle_s=limits.body_idle,
        body_total_s=limits.body_total,
        answer_idle_s=limits.answer_idle,
        answer_total_s=limits.answer_total,
    )


def _pace(services: Services) -> Pace:
    times = [target.config.timeouts.answer for target in services.catalogue.targets]
    return Pace(
        call_timeout_s=max(times, default=0),
        quickest_s=min(times, default=None),
        lease_s=services.catalogue.document.accounting.lease,
    )
