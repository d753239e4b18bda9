"""All services of a request in one frozen object: `open_services` makes it, `Services.close` closes them. No logic."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gateway.artifacts import ArtifactStore, open_store
from gateway.artifacts.artifact import LocalArtifacts
from gateway.callers import webhook_addresses
from gateway.callers.auth import KeyCache
from gateway.callers.key_store import KeyStore
from gateway.callers.operator_store import OperatorStore
from gateway.callers.wrong_keys import WrongKeys
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.document import Document
from gateway.catalogue.mask import make_mask
from gateway.health.concurrency_queue import ConcurrencyQueue
from gateway.health.drift import DriftBook
from gateway.health.health import Health, TargetStore
from gateway.history.changes import Changes
from gateway.history.history import History, Recorder
from gateway.history.refusals import Refusals
from gateway.history.usage import UsageReader
from gateway.ids import new_id
from gateway.money.ledger import LEDGER_ID, Ledger, StoreEpoch
from gateway.money.reservation import Books, PendingPosts
from gateway.net.fetcher import Fetcher, FetchPolicy
from gateway.net.outside_text import Mask
from gateway.net.transport import HttpTransport, Transport
from gateway.pictures.picture import PictureConverter
from gateway.pictures.spool import MemoryBudget, Spool
from gateway.process.admission import Admission, DiskSpace, RetryBudget
from gateway.process.data_folder import Secrets
from gateway.process.settings import Settings, SettingsError
from gateway.process.shutdown import Shutdown
from gateway.process.worker_locks import WorkerLocks
from gateway.state.call_store import CallStore
from gateway.state.task_events import TaskEvents
from gateway.state.task_store import TaskStore
from gateway.state.webhook_queue import WebhookQueue
from gateway.store.client import CommandQueue, StoreClient, connect, open_store_health
from gateway.store.connections import StoreHealth
from gateway.store.outbox import Outbox
from gateway.store.windows import Calendar
from gateway.upstreams import ADAPTERS, Adapter, UpstreamClient
from gateway.upstreams.callback_urls import Callbacks, open_callbacks
from gateway.upstreams.unread_answers import UnreadAnswers

OPENINGS = 32
"""The most requests that join or open a task at a time in one process: more would only delay the event loop."""


@dataclass(frozen=True)
class Services:
    """The services of one process. `running` has the asyncio tasks of the work, which outlives its request, by task id.

    `in_flight` counts the bytes of request bodies until their spools are closed. `departing` has a future for each
    caller that disconnected or perhaps did not read its answer, until that is written to the ledger or queued for it.
    """

    settings: Settings
    catalogue: Catalogue
    # It may hold a password.
    store_url: str = field(repr=False)
    redis: StoreClient
    store_health: StoreHealth
    command_queue: CommandQueue
    ledger: Ledger
    calls: CallStore
    keys: KeyStore
    operators: OperatorStore
    key_cache: KeyCache
    wrong_keys: WrongKeys
    task_store: TaskStore
    task_events: TaskEvents
    history: History
    recorder: Recorder
    refusals: Refusals
    drift: DriftBook
    upstreams: Mapping[str, Adapter]
    health: Health
    admission: Admission
    concurrency_queue: ConcurrencyQueue
    fetcher: Fetcher
    reference_fetcher: Fetcher
    webhook_fetcher: Fetcher
    picture_converter: PictureConverter
    artifacts: ArtifactStore
    disk_space: DiskSpace
    signing_key: bytes
    memory: MemoryBudget
    in_flight: MemoryBudget
    spool_folder: Path
    store_epoch: StoreEpoch
    worker_locks: WorkerLocks
    mask: Mask
    shutdown: Shutdown = field(default_factory=Shutdown)
    pending_posts: PendingPosts = field(default_factory=PendingPosts)
    retries: RetryBudget = field(default_factory=RetryBudget)
    running: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    departing: set[asyncio.Future[None]] = field(default_factory=set)
    openings: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OPENINGS))
    auditing: asyncio.Lock = field(default_factory=asyncio.Lock)
    transports: tuple[Transport, ...] = ()

    @property
    def document(self) -> Document:
        """The catalogue's document: the operator's settings, with defaults for the others."""
        return self.catalogue.document

    @property
    def worker(self) -> str:
        """This process's name in the ledger."""
        return self.store_epoch.worker

    @cached_property
    def books(self) -> Books:
        """The parts that a reservation needs."""
        return Books(self.ledger, self.calls, self.pending_posts, self.catalogue.document, self.worker)

    @cached_property
    def usage(self) -> UsageReader:
        return UsageReader(self.redis, self.catalogue.document.accounting)

    @property
    def webhook_queue(self) -> WebhookQueue:
        return WebhookQueue(self.command_queue)

    @cached_property
    def callbacks(self) -> Callbacks | None:
        """The maker of callback URLs for vendors; None if callbacks are off."""
        return open_callbacks(self.settings)

    @cached_property
    def changes(self) -> Changes:
        return Changes(self.redis, self.catalogue.document.accounting)

    @cached_property
    def unread_answers(self) -> UnreadAnswers:
        """The files with the starts of upstreams' answers that the gateway could not read."""
        return UnreadAnswers(self.settings.data_dir / "unread_answers", self.mask)

    @property
    def outboxes(self) -> tuple[Outbox[Any], ...]:
        """The outboxes of this process. `close` waits for their writes a short time, and then drops the rest."""
        return self.pending_posts.outbox, self.recorder.outbox, self.health.reports, self.drift.outbox

    def new_spool(self) -> Spool:
        return Spool(self.spool_folder, self.memory)

    async def close(self) -> None:
        for transport in self.transports:
            await transport.aclose()
        await self.fetcher.aclose()
        await self.reference_fetcher.aclose()
        await self.webhook_fetcher.aclose()
        await self.artifacts.close()
        await self.picture_converter.close()
        self.refusals.flush()
        await asyncio.gather(*(outbox.aclose() for outbox in self.outboxes))
        await self.command_queue.aclose()
        await self.redis.aclose()
        await self.store_health.aclose()
        await asyncio.to_thread(shutil.rmtree, self.spool_folder, ignore_errors=True)


def open_artifacts(settings: Settings, ttl_s: int) -> ArtifactStore:
    """Open the store of pictures, each kept for `ttl_s` seconds. Raises SettingsError for a wrong storage URL."""
    try:
        return open_store(settings.storage_url, settings.data_dir / "artifacts", ttl_s)
    except ValueError as error:
        raise SettingsError([f"GATEWAY_STORAGE_URL: {error}"]) from error


def _open_store_epoch(settings: Settings, lease_s: float) -> StoreEpoch:
    """Make the store epoch of a new worker. Only the epoch of an embedded store is kept in the data folder."""
    return StoreEpoch(new_id("worker"), settings.data_dir / LEDGER_ID if settings.redis_url is None else None, lease_s)


def _open_task_store(redis: StoreClient, command_queue: CommandQueue, catalogue: Catalogue) -> TaskStore:
    document = catalogue.document
    return TaskStore(
        redis, command_queue, keeps_prompts=document.accounting.keep_prompts, room=document.webhooks.per_key
    )


def _open_fetchers(catalogue: Catalogue) -> tuple[Fetcher, Fetcher]:
    """Open the fetchers of result links and of callers' links.

    The first may also open the targets' own origins, and the second `limits.image_url_origins`, at private addresses.
    """
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
    catalogue: Catalogue, transports: tuple[Transport, Transport], picture_converter: PictureConverter, mask: Mask
) -> dict[str, Adapter]:
    """Make the adapter of every target, by label."""
    most = catalogue.limits.image_bytes
    return {
        target.label: ADAPTERS[target.config.kind](UpstreamClient(target, *transports, most, mask), picture_converter)
        for target in catalogue.targets
    }


def _watched_folders(settings: Settings, artifacts: ArtifactStore) -> list[Path]:
    """Return the folders whose free space is watched: the embedded store's data folder, and that of local pictures."""
    own = [settings.data_dir] if settings.redis_url is None else []
    return [*own, artifacts.folder] if isinstance(artifacts, LocalArtifacts) else own


def _open_health(command_queue: CommandQueue, catalogue: Catalogue) -> Health:
    return Health(TargetStore(command_queue), catalogue.targets, lease_s=catalogue.document.accounting.lease)


def open_services(
    settings: Settings,
    catalogue: Catalogue,
    store_url: str,
    *,
    secrets: Secrets,
    env: Mapping[str, str],
    spool_folder: Path,
) -> Services:
    """Make all services; each connects at its first use. `close` removes `spool_folder`. Raises SettingsError."""
    limits, accounting = catalogue.limits, catalogue.document.accounting
    paid, pooled = (HttpTransport(fresh=fresh) for fresh in (True, False))
    picture_converter = PictureConverter(max_pixels=limits.pixels)
    fetcher, reference_fetcher = _open_fetchers(catalogue)
    store_health = open_store_health(store_url)
    redis = connect(store_url, store_health=store_health)
    command_queue = CommandQueue(store_url, wait_replicas=settings.redis_wait_replicas, store_health=store_health)
    keys, task_store = KeyStore(redis, secrets.pepper), _open_task_store(redis, command_queue, catalogue)
    mask = make_mask(settings, catalogue, env, store_url, secrets)
    artifacts = open_artifacts(settings, limits.artifact_ttl)
    store_epoch, history = _open_store_epoch(settings, accounting.lease), History(command_queue, redis, accounting)
    recorder, health = Recorder(history.write), _open_health(command_queue, catalogue)
    return Services(
        settings=settings,
        catalogue=catalogue,
        store_url=store_url,
        redis=redis,
        store_health=store_health,
        command_queue=command_queue,
        ledger=Ledger(command_queue, Calendar(accounting.time_zone), store_epoch=store_epoch),
        calls=CallStore(command_queue, keeps_prompts=accounting.keep_prompts),
        keys=keys,
        key_cache=KeyCache(keys),
        wrong_keys=WrongKeys(redis),
        operators=OperatorStore(redis, secrets.pepper),
        task_store=task_store,
        task_events=TaskEvents(store_url, task_store),
        drift=DriftBook(redis),
        history=history,
        recorder=recorder,
        refusals=Refusals(recorder.note),
        upstreams=_open_upstreams(catalogue, (paid, pooled), picture_converter, mask),
        health=health,
        admission=Admission(limits.requests, limits.requests_per_key),
        concurrency_queue=ConcurrencyQueue(health, limits.queue, limits.queue_per_key),
        fetcher=fetcher,
        reference_fetcher=reference_fetcher,
        webhook_fetcher=webhook_addresses.open_fetcher(catalogue.document.webhooks),
        picture_converter=picture_converter,
        artifacts=artifacts,
        disk_space=DiskSpace(_watched_folders(settings, artifacts), limits.min_free),
        signing_key=secrets.signing_key,
        memory=MemoryBudget(limits.memory_bytes),
        in_flight=MemoryBudget(limits.bytes_in_flight),
        spool_folder=spool_folder,
        store_epoch=store_epoch,
        worker_locks=WorkerLocks(settings.data_dir / "workers", store_epoch.worker),
        mask=mask,
        transports=(paid, pooled),
    )
