"""All that a request may touch, in one frozen object; `open_services` makes it, `close` ends it.

Made by `app` at start. Holds no logic of its own.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gateway.artifacts import ArtifactStore, open_store
from gateway.artifacts.local import LocalArtifacts
from gateway.callers import webhook_addresses
from gateway.callers.key_cache import KeyCache
from gateway.callers.key_store import KeyStore
from gateway.callers.operator_store import OperatorStore
from gateway.callers.wrong_keys import WrongKeys
from gateway.catalogue.catalogue import Catalogue
from gateway.health.concurrency_queue import Door
from gateway.health.drift import DriftBook
from gateway.health.health import Health
from gateway.health.retry_budget import RetryBudget
from gateway.health.target_store import TargetStore
from gateway.history.changes import Changes
from gateway.history.history import History
from gateway.history.recorder import Recorder
from gateway.history.refusals import Refusals
from gateway.history.usage import Usage
from gateway.ids import new_id
from gateway.money.ledger import Ledger
from gateway.money.pending_posts import Backlog
from gateway.money.reservation import Books
from gateway.money.store_epoch import LEDGER_ID, Witness
from gateway.net.fetcher import Fetcher, FetchPolicy
from gateway.net.http_client import AsyncBaseTransport
from gateway.net.transport import AiohttpTransport
from gateway.pictures.picture import Darkroom
from gateway.pictures.spool import MemoryBudget, Spool
from gateway.process.admission import Crowd
from gateway.process.disk_space import Headroom
from gateway.process.settings import Settings, SettingsError
from gateway.process.shutdown import Closing
from gateway.process.worker_locks import Lifelines
from gateway.state.call_store import CallStore
from gateway.state.task_events import Board
from gateway.state.task_store import TaskStore
from gateway.state.webhook_queue import Deliveries
from gateway.store.client import StoreClient, connect, open_pulse
from gateway.store.command_queue import Batcher
from gateway.store.store_health import Pulse
from gateway.store.windows import Calendar
from gateway.upstreams import ADAPTERS, Line, Upstream
from gateway.upstreams.callback_urls import Callbacks, open_callbacks

OPENINGS = 32
"""Requests whose tasks are opened at a time in one process; more would only make the loop's turns longer."""


@dataclass(frozen=True)
class Services:
    """What there is. `running` keeps the work that outlives its request; `in_flight` counts bytes of bodies.

    `departing` has a future for each caller that hung up, until the ledger knows.
    """

    settings: Settings
    catalogue: Catalogue
    # It may hold a password.
    store_url: str = field(repr=False)
    redis: StoreClient
    pulse: Pulse
    pulse_client: StoreClient
    batcher: Batcher
    ledger: Ledger
    calls: CallStore
    keys: KeyStore
    operators: OperatorStore
    key_cache: KeyCache
    wrong_keys: WrongKeys
    task_store: TaskStore
    board: Board
    history: History
    recorder: Recorder
    refusals: Refusals
    changes: Changes
    drift: DriftBook
    upstreams: Mapping[str, Upstream]
    health: Health
    crowd: Crowd
    door: Door
    fetcher: Fetcher
    reference_fetcher: Fetcher
    webhook_fetcher: Fetcher
    darkroom: Darkroom
    artifacts: ArtifactStore
    headroom: Headroom
    signing_key: bytes
    memory: MemoryBudget
    in_flight: MemoryBudget
    spool_folder: Path
    witness: Witness
    lifelines: Lifelines
    closing: Closing = field(default_factory=Closing)
    backlog: Backlog = field(default_factory=Backlog)
    retries: RetryBudget = field(default_factory=RetryBudget)
    running: set[asyncio.Task[Any]] = field(default_factory=set)
    departing: set[asyncio.Future[None]] = field(default_factory=set)
    openings: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OPENINGS))
    auditing: asyncio.Lock = field(default_factory=asyncio.Lock)
    transports: tuple[AsyncBaseTransport, ...] = ()

    @property
    def worker(self) -> str:
        """This process's name in the ledger."""
        return self.witness.worker

    @cached_property
    def books(self) -> Books:
        """All that a reservation touches."""
        return Books(self.ledger, self.calls, self.backlog, self.catalogue.document, self.worker)

    @cached_property
    def usage(self) -> Usage:
        return Usage(self.redis, self.catalogue.document.accounting)

    @property
    def deliveries(self) -> Deliveries:
        return Deliveries(self.batcher)

    @cached_property
    def callbacks(self) -> Callbacks | None:
        """Where vendors may call back; None where they are not asked to."""
        return open_callbacks(self.settings)

    def new_spool(self) -> Spool:
        return Spool(self.spool_folder, self.memory)

    async def close(self) -> None:
        for transport in self.transports:
            await transport.aclose()
        await self.fetcher.aclose()
        await self.reference_fetcher.aclose()
        await self.webhook_fetcher.aclose()
        await self.artifacts.close()
        await self.darkroom.close()
        self.refusals.flush()
        await self.recorder.aclose()
        await self.health.settle()
        await self.drift.aclose()
        await self.batcher.aclose()
        await self.redis.aclose()
        await self.pulse.stop()
        await self.pulse_client.aclose()
        await asyncio.to_thread(shutil.rmtree, self.spool_folder, ignore_errors=True)


def open_artifacts(settings: Settings, ttl_s: int) -> ArtifactStore:
    """Where pictures are kept for `ttl_s` seconds. Raises SettingsError for a storage URL that cannot be used."""
    try:
        return open_store(settings.storage_url, settings.data_dir / "artifacts", ttl_s)
    except ValueError as error:
        raise SettingsError([f"GATEWAY_STORAGE_URL: {error}"]) from error


def _open_witness(settings: Settings, lease_s: float) -> Witness:
    """This worker's name and memory. Only a store that is the data folder's own can be remembered by the folder."""
    return Witness(new_id("worker"), settings.data_dir / LEDGER_ID if settings.redis_url is None else None, lease_s)


def _open_task_store(redis: StoreClient, batcher: Batcher, catalogue: Catalogue) -> TaskStore:
    document = catalogue.document
    return TaskStore(redis, batcher, keeps_prompts=document.accounting.keep_prompts, room=document.webhooks.per_key)


def _open_fetchers(catalogue: Catalogue) -> tuple[Fetcher, Fetcher]:
    """For result links and for callers' links: an address inside the network is right for the former alone."""
    limits = catalogue.limits
    fetcher, reference_fetcher = (
        Fetcher(
            FetchPolicy(
                max_bytes=limits.image_bytes,
                timeout_s=limits.fetch_timeout,
                idle_s=min(10, limits.fetch_timeout),
                allowed_origins=frozenset(origins),
            )
        )
        for origins in ({target.config.base_url for target in catalogue.targets}, limits.image_url_origins)
    )
    return fetcher, reference_fetcher


def _open_upstreams(
    catalogue: Catalogue, paid: AsyncBaseTransport, pooled: AsyncBaseTransport, darkroom: Darkroom
) -> dict[str, Upstream]:
    """Every target's adapter, by label."""
    most = catalogue.limits.image_bytes
    return {
        target.label: ADAPTERS[target.config.kind](Line(target, paid, pooled, most), darkroom)
        for target in catalogue.targets
    }


def _watched_folders(settings: Settings, artifacts: ArtifactStore) -> list[Path]:
    """Where this instance keeps the ledger and the pictures itself."""
    own = [settings.data_dir] if settings.redis_url is None else []
    return [*own, artifacts.folder] if isinstance(artifacts, LocalArtifacts) else own


def _open_health(batcher: Batcher, catalogue: Catalogue) -> Health:
    return Health(TargetStore(batcher), catalogue.targets, lease_s=catalogue.document.accounting.lease)


def open_services(
    settings: Settings,
    catalogue: Catalogue,
    store_url: str,
    *,
    pepper: bytes,
    signing_key: bytes,
    spool_folder: Path,
) -> Services:
    """Everything opened; nothing is connected before it is used. `spool_folder` is this process's own."""
    limits, accounting = catalogue.limits, catalogue.document.accounting
    paid, pooled = (AiohttpTransport(fresh=fresh) for fresh in (True, False))
    darkroom = Darkroom(max_pixels=limits.pixels)
    fetcher, reference_fetcher = _open_fetchers(catalogue)
    pulse, pulse_client = open_pulse(store_url)
    redis = connect(store_url, pulse=pulse)
    batcher = Batcher(store_url, wait_replicas=settings.redis_wait_replicas, pulse=pulse)
    keys, task_store = KeyStore(redis, pepper), _open_task_store(redis, batcher, catalogue)
    artifacts = open_artifacts(settings, limits.artifact_ttl)
    witness, history = _open_witness(settings, accounting.lease), History(batcher, redis, accounting)
    recorder, health = Recorder(history.write), _open_health(batcher, catalogue)
    return Services(
        settings=settings,
        catalogue=catalogue,
        store_url=store_url,
        redis=redis,
        pulse=pulse,
        pulse_client=pulse_client,
        batcher=batcher,
        ledger=Ledger(batcher, Calendar(accounting.time_zone), witness=witness),
        calls=CallStore(batcher, keeps_prompts=accounting.keep_prompts),
        keys=keys,
        key_cache=KeyCache(keys),
        wrong_keys=WrongKeys(redis),
        operators=OperatorStore(redis, pepper),
        changes=Changes(redis, accounting),
        task_store=task_store,
        board=Board(store_url, task_store),
        drift=DriftBook(redis),
        history=history,
        recorder=recorder,
        refusals=Refusals(recorder.note),
        upstreams=_open_upstreams(catalogue, paid, pooled, darkroom),
        health=health,
        crowd=Crowd(limits.requests, limits.requests_per_key),
        door=Door(health, limits.queue, limits.queue_per_key),
        fetcher=fetcher,
        reference_fetcher=reference_fetcher,
        webhook_fetcher=webhook_addresses.open_fetcher(catalogue.document.webhooks),
        darkroom=darkroom,
        artifacts=artifacts,
        headroom=Headroom(_watched_folders(settings, artifacts), limits.min_free),
        signing_key=signing_key,
        memory=MemoryBudget(limits.memory_bytes),
        in_flight=MemoryBudget(limits.bytes_in_flight),
        spool_folder=spool_folder,
        witness=witness,
        lifelines=Lifelines(settings.data_dir / "workers", witness.worker),
        transports=(paid, pooled),
    )
