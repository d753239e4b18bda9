"""The queue of webhooks: a task's end fills it, any worker claims from it; each step is one script.

A claim expires, so that another worker sends the webhook of a dead one. A lost webhook stays for a week, unless more
than 10,000 are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from gateway.store.client import CommandQueue
from gateway.store.lua import join_scripts, read_sources

ROOM = 1000
"""Deliveries that may wait for one key, unless the catalogue says otherwise. One beyond them is lost at once."""

_SCRIPTS = join_scripts(read_sources("webhooks"), "state.webhook_queue", "state.task_store")

State = Literal["waiting", "lost"]


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """One message to one address. `created` is in ms since 1970. `tries` counts the tries, the present one included.

    An operator's retry sets `created` to now and `tries` to 0. `body` is the body of an earlier failed try, which this
    one sends again; it is empty if there was none.
    """

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
    """A delivery as operators see it. `why` is its last failure, "" if there was none.

    `created` and `due` are in ms since 1970. An operator's retry sets `created` to now, and `tries` to 0. `due` is None
    for a lost delivery; during a try it is the end of the claim.
    """

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
    """The queue in one store. Every method may raise StoreUnavailable.

    `now`, in ms, replaces the server's clock in tests.
    """

    def __init__(self, command_queue: CommandQueue, *, now: Callable[[], int] | None = None) -> None:
        self._command_queue = command_queue
        self._now = now

    async def claim(
        self, lease_s: float, most: int, passed: Iterable[str]
    ) -> tuple[list[WebhookDelivery], float | None]:
        """Claim due deliveries for `lease_s` seconds, and count a try of each: at most one of a key and `most` in all.

        The keys in `passed` get none. Returns the deliveries, and the seconds until a key has a due delivery again,
        None if no key has a later one.
        """
        first, *rows = await self._run("claim", _ms(lease_s), str(most), *passed)
        return [_read_delivery(orjson.loads(row)) for row in rows], int(first) / 1000 if first else None

    async def finish(self, delivery_id: str) -> None:
        """Remove a delivery that arrived."""
        await self._run("finish", delivery_id, "done", "0", "", "")

    async def postpone(self, delivery_id: str, pause_s: float, why: str, body: str) -> None:
        """Schedule a delivery's next try in `pause_s` seconds, which sends `body` again. `why` is the failure."""
        await self._run("finish", delivery_id, "later", _ms(pause_s), why, body)

    async def lose(self, delivery_id: str, why: str, body: str) -> None:
        """Give a delivery up, for the reason `why`; only an operator can retry it."""
        await self._run("finish", delivery_id, "lost", "0", why, body)

    async def retry(self, delivery_id: str) -> bool:
        """Make a waiting or lost delivery due now, as if it were new: `tries` is 0 and `created` is now.

        Returns False if the id is unknown.
        """
        return (await self._run("retry", delivery_id))[0] == "done"

    async def look(self, most: int, key: str = "") -> list[Undelivered]:
        """Return the waiting and the lost deliveries, of each no more than `most`. A `key` of "" is every key."""
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
