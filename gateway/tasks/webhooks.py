"""Tells callers' addresses of the end of tasks: signed, retried with longer and longer pauses, and given up at last.

One messenger a process, started and stopped by `app`; any of them delivers what any process queued. A message may come
twice, then with the same id; it never holds a prompt, a picture or a link to one.
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
from gateway.services import Services
from gateway.state.task_record import TaskRecord
from gateway.state.webhook_queue import WebhookDelivery
from gateway.store.client import StoreUnavailable
from gateway.tasks.answer import describe_task
from gateway.tasks.webhook_signature import make_secret, sign

AT_ONCE = 32
"""Tries that one process makes at a time."""

AT_ONCE_PER_KEY = 4
"""The same for one key: a receiver that answers slowly must not hold up the others."""

STOP_S = 5.0
"""Seconds that a stop waits for tries that are under way; what is cut off then is sent again by another process."""

_GONE = 410

_jitter = SystemRandom()

_log = structlog.get_logger(__name__)


class WebhookSender:
    """One process's. What it claims and does not finish in time is claimed again, by whichever process looks first."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._rules = services.catalogue.document.webhooks
        self._news = services.task_store.told
        self._busy: Counter[str] = Counter()
        self._tries: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name="webhook sender")

    async def stop(self) -> None:
        """Begin nothing more, and wait a little for what is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running}, timeout=STOP_S)
        if self._tries:
            await asyncio.wait(set(self._tries), timeout=STOP_S)
        for one in (cut := set(self._tries)):
            one.cancel()
        if cut:
            await asyncio.wait(cut, timeout=STOP_S)

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                pause = await self._take()
            except StoreUnavailable:
                pause = self._rules.look_every
            except Exception:  # noqa: BLE001 (a fault in one look must not end them all)
                _log.exception("looking for webhooks failed; it goes on")
                pause = self._rules.look_every
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _take(self) -> float:
        """Begin what is due, the keys in turns; answers the seconds until the next look."""
        while True:
            room = AT_ONCE - len(self._tries)
            full = [key for key, tries in self._busy.items() if tries >= AT_ONCE_PER_KEY]
            # A lease outlasts a try and the telling of its end.
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
        """One try. Where Redis is away at its end, the lease's end brings the next one."""
        try:
            await self._try(delivery)
        except StoreUnavailable:
            _log.warning("a webhook's try could not be written down; it will be made again", webhook=delivery.id)
        except Exception:  # noqa: BLE001 (a fault of ours with one message must not end the messenger)
            _log.exception("a webhook's try broke off; it will be made again", webhook=delivery.id)

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
            await services.webhook_queue.put_off(delivery.id, pause, why, body)

    async def _post(self, delivery: WebhookDelivery, key: KeyRecord, body: bytes) -> tuple[str, float | None]:
        """What was wrong, "" for nothing, and for how long the receiver wants to be left alone."""
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
        # What is redirected would be sent to somebody whom nobody named.
        return "" if 200 <= answer.status < 300 else str(answer.status), read_retry_after(answer.retry_after)

    async def _write(self, delivery: WebhookDelivery) -> str:
        record = await self._services.task_store.read(delivery.task)
        return "" if record is None or record.end is None else write_message(record, delivery.base_url)

    async def _lose(self, delivery: WebhookDelivery, why: str, body: str) -> None:
        await self._services.webhook_queue.lose(delivery.id, why, body)
        # The address itself may carry a secret of its owner's.
        _log.warning("a webhook was given up", webhook=delivery.id, key=delivery.key, task=delivery.task, reason=why)


def write_message(record: TaskRecord, base_url: str) -> str:
    """What an address is told of an ended task: the same text at every try. Raises ValueError for one that runs."""
    if record.end is None:
        raise ValueError("a task that has no end yet")
    # As it ended: that its pictures expired since is no news of its end.
    status = record.end.status
    message = {
        "type": f"image.task.{status}",
        "timestamp": datetime.fromtimestamp(record.end.completed, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": describe_task(record, base_url, status),
    }
    return orjson.dumps(message).decode()


def find_pause(rules: Webhooks, delivery: WebhookDelivery, retry_after: float | None, now: float) -> float | None:
    """Seconds until the next try, never sooner than the receiver wants; None when there is none any more."""
    if delivery.tries > len(rules.retries):
        return None
    plain, wanted = rules.retries[delivery.tries - 1], retry_after or 0.0
    left = delivery.created / 1000 + rules.give_up - now
    if max(plain, wanted) > left:
        return None
    # Spread, so that a receiver that was away is not met by all at once; but not beyond the end.
    return min(max(plain * _jitter.uniform(0.9, 1.1), wanted), left)
