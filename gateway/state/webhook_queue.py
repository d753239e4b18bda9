"""What callers' addresses are still to be told: queued with a task's end, claimed by any worker, each step one script.

Queued by `store.tasks`, emptied by `webhooks`, looked at by operators. A claim ends by itself, so that a delivery whose
worker died is made again; never forgets one that was given up before a week is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from gateway.store.command_queue import CommandQueue
from gateway.store.lua import join_scripts, read_sources

ROOM = 1000
"""Deliveries that may wait for one key, unless the catalogue says otherwise."""

_SCRIPTS = join_scripts(read_sources("webhooks"), "state.webhook_queue", "state.task_store")

State = Literal["waiting", "lost"]


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """One message to one address. `created` is in ms since 1970; `tries` counts this one; `body` once it was sent."""

    id: str
    task: str
    key: str
    url: str
    base_url: str
    created: int
    tries: int
    body: str = ""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A delivery as operators see it. `why` is what its last try met, `due` when the next one is; ms since 1970."""

    id: str
    task: str
    key: str
    url: str
    state: State
    tries: int
    why: str
    created: int
    due: int | None


class WebhookQueue:
    """The queue in one store. `now`, in ms, replaces the server's clock in tests. All may raise StoreUnavailable."""

    def __init__(self, command_queue: CommandQueue, *, now: Callable[[], int] | None = None) -> None:
        self._command_queue = command_queue
        self._now = now

    async def claim(
        self, lease_s: float, most: int, passed: Iterable[str]
    ) -> tuple[list[WebhookDelivery], float | None]:
        """Due deliveries, at most one of each key and none of those `passed`; and seconds until the next is due."""
        first, *rows = await self._run("claim", _ms(lease_s), str(most), *passed)
        return [_read_delivery(orjson.loads(row)) for row in rows], int(first) / 1000 if first else None

    async def finish(self, delivery_id: str) -> None:
        """It arrived."""
        await self._run("finish", delivery_id, "done", "0", "", "")

    async def put_off(self, delivery_id: str, pause_s: float, why: str, body: str) -> None:
        """It did not arrive; the same body is sent again."""
        await self._run("finish", delivery_id, "later", _ms(pause_s), why, body)

    async def lose(self, delivery_id: str, why: str, body: str) -> None:
        """Give it up, until an operator has it tried again."""
        await self._run("finish", delivery_id, "lost", "0", why, body)

    async def retry(self, delivery_id: str) -> bool:
        """Try it now, with all its tries anew; False if there is none of this id."""
        return (await self._run("retry", delivery_id))[0] == "done"

    async def look(self, most: int, key: str = "") -> list[Undelivered]:
        """Those that wait and those that were given up, at most so many of each, of one key or of all."""
        rows = [orjson.loads(row) for row in await self._run("look", key, str(most))]
        return [_read_undelivered(row) for row in rows]

    async def _run(self, name: str, *arguments: str) -> list[str]:
        now = "" if self._now is None else str(self._now())
        return await self._command_queue.run(_SCRIPTS[name], now, *arguments)


def _ms(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _read_delivery(facts: dict[str, Any]) -> WebhookDelivery:
    texts = {name: facts[name] for name in ("id", "task", "key", "url", "base_url")}
    return WebhookDelivery(
        **texts, created=int(facts["created"]), tries=int(facts["tries"]), body=facts.get("body", "")
    )


def _read_undelivered(facts: dict[str, Any]) -> Undelivered:
    texts: dict[str, Any] = {name: facts[name] for name in ("id", "task", "key", "url", "state", "why")}
    due = int(facts["due"]) if "due" in facts else None
    return Undelivered(**texts, created=int(facts["created"]), tries=int(facts["tries"]), due=due)
