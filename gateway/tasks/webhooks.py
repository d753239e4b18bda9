"""Webhooks: signed messages about the end of tasks, retried after the catalogue's pauses, and then given up.

Each process has one sender, which delivers messages of any process. A message may arrive twice, with the same id. It
never holds a prompt, a picture or a link to one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from random import SystemRandom

import orjson
import structlog

from gateway.callers.key_record import KeyRecord
from gateway.catalogue.document import Webhooks
from gateway.errors import KeyNotFound
from gateway.net.fetcher import FetchFailed, FetchRefused
from gateway.net.outside_text import read_retry_after
from gateway.process.periodic import PeriodicStep
from gateway.services import Services
from gateway.state.task_store import TaskRecord
from gateway.state.webhook_queue import WebhookDelivery
from gateway.store.client import StoreUnavailable
from gateway.tasks.answer import describe_task
from gateway.tasks.webhook_signature import make_secret, sign

AT_ONCE = 32
"""Most tries that one process makes at a time."""

AT_ONCE_PER_KEY = 4
"""Most tries for one key that one process makes at a time: a slow receiver must not delay the others."""

STOP_S = 5.0
"""Seconds for which a stop waits for running tries; another process repeats those that are cut off."""

_GONE = 410

_jitter = SystemRandom()

_log = structlog.get_logger(__name__)


class WebhookSender:
    """The sender of one process. When a process does not finish a message in time, any process sends it again."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._rules = services.catalogue.document.webhooks
        self._news = services.task_store.webhook_queued
        self._busy: Counter[str] = Counter()
        self._tries: set[asyncio.Task[None]] = set()
        self._looking = PeriodicStep(
            "sending of webhooks", self._rules.look_every, self._look, expected=(StoreUnavailable,), wake=self._news
        )

    def start(self) -> None:
        self._looking.start()

    async def stop(self) -> None:
        """Start no more tries, wait up to STOP_S for the running ones, and cancel those that still run."""
        await self._looking.stop()
        if self._tries:
            await asyncio.wait(set(self._tries), timeout=STOP_S)
        for one in (cut := set(self._tries)):
            one.cancel()
        if cut:
            await asyncio.wait(cut, timeout=STOP_S)

    async def _look(self) -> None:
        """Start the due tries, and set the pause until the next look."""
        self._looking.seconds = self._rules.look_every
        self._looking.seconds = await self._take()

    async def _take(self) -> float:
        """Start the due tries, the keys in turns. Returns the seconds until the next look."""
        while True:
            room = AT_ONCE - len(self._tries)
            full = [key for key, tries in self._busy.items() if tries >= AT_ONCE_PER_KEY]
            # A lease outlasts a try and the booking of its end.
            lease_s = self._rules.timeout * 1.5 + 2
            found, next_s = await self._services.webhook_queue.claim(lease_s, room, full) if room else ([], None)
            for delivery in found:
                self._begin(delivery)
            if not found:
                return min(self._rules.look_every, self._rules.look_every if next_s is None else next_s)

    def _begin(self, delivery: WebhookDelivery) -> None:
        self._busy[delivery.key] += 1
        made = asyncio.create_task(self._deliver(delivery), name=f"webhook {delivery.id}")
        self._tries.add(made)

        def finished(one: asyncio.Task[None]) -> None:
            self._tries.discard(one)
            self._busy[delivery.key] -= 1
            if not self._busy[delivery.key]:
                del self._busy[delivery.key]
            self._news.set()

        made.add_done_callback(finished)

    async def _deliver(self, delivery: WebhookDelivery) -> None:
        """Make one try. If it fails in the gateway or cannot be booked, the next try comes when the claim ends."""
        try:
            await self._try(delivery)
        except StoreUnavailable:
            _log.warning("the result of a webhook try could not be stored; the try is repeated", webhook=delivery.id)
        except Exception:  # noqa: BLE001 (a fault with one message must not end the sender)
            _log.exception("a webhook try broke off; it is repeated", webhook=delivery.id)

    async def _try(self, delivery: WebhookDelivery) -> None:
        services = self._services
        try:
            key = await services.keys.show(delivery.key)
        except KeyNotFound:
            await self._lose(delivery, "the key was deleted", "")
            return
        body = delivery.body or await self._write(delivery)
        if not body:
            await self._lose(delivery, "the task is no longer known", "")
            return
        why, retry_after = await self._post(delivery, key, body.encode())
        if not why:
            await services.webhook_queue.finish(delivery.id)
            return
        pause = find_pause(self._rules, delivery, retry_after, time.time())
        if why == str(_GONE) or pause is None:
            await self._lose(delivery, why, body)
        else:
            await services.webhook_queue.postpone(delivery.id, pause, why, body)

    async def _post(self, delivery: WebhookDelivery, key: KeyRecord, body: bytes) -> tuple[str, float | None]:
        """Send the message. Returns the reason of a failure, or "", and the seconds that the receiver asks to wait."""
        now = int(time.time())
        secrets = [
            make_secret(self._services.signing_key, key.id, number) for number in key.webhook_secrets(datetime.now(UTC))
        ]
        headers = {
            "content-type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(secrets, delivery.id, now, body),
        }
        try:
            answer = await self._services.webhook_fetcher.post(delivery.url, body, headers)
        except FetchRefused as refused:
            return f"not opened: {refused.reason}", None
        except FetchFailed as failed:
            return str(failed), None
        # A redirect would send the message to an address that no caller named.
        return "" if 200 <= answer.status < 300 else str(answer.status), read_retry_after(answer.retry_after)

    async def _write(self, delivery: WebhookDelivery) -> str:
        record = await self._services.task_store.read(delivery.task)
        return "" if record is None or record.end is None else write_message(record, delivery.base_url)

    async def _lose(self, delivery: WebhookDelivery, why: str, body: str) -> None:
        await self._services.webhook_queue.lose(delivery.id, why, body)
        # The address is not logged: it may hold a secret.
        _log.warning("a webhook was given up", webhook=delivery.id, key=delivery.key, task=delivery.task, reason=why)


def write_message(record: TaskRecord, base_url: str) -> str:
    """Return the message about an ended task as JSON. Raises ValueError for a task that has no end."""
    if record.end is None:
        raise ValueError("a task that has no end yet")
    # The status at its end, though its pictures may have expired since.
    status = record.end.status
    message = {
        "type": f"image.task.{status}",
        "timestamp": datetime.fromtimestamp(record.end.completed, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": describe_task(record, base_url, status),
    }
    return orjson.dumps(message).decode()


def find_pause(rules: Webhooks, delivery: WebhookDelivery, retry_after: float | None, now: float) -> float | None:
    """Return the seconds until the next try, never less than the receiver asks for; None if no try or time is left."""
    if delivery.tries > len(rules.retries):
        return None
    regular, wanted = rules.retries[delivery.tries - 1], retry_after or 0.0
    left = delivery.created / 1000 + rules.give_up - now
    if max(regular, wanted) > left:
        return None
    # Spread, so that a receiver that was away does not get all messages at once; but not beyond the end.
    return min(max(regular * _jitter.uniform(0.9, 1.1), wanted), left)
