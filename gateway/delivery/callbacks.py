"""The callbacks for paid calls: a hint to poll a ticket now, or the id of a ticket whose answer was lost.

A callback is announced in the store, so that the process that follows the call learns of it. A callback is never
evidence: only a ticket's id in it is believed, and only for a call that has no ticket.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.catalogue.catalogue import Target
from gateway.jobs.job import Ticket
from gateway.services import Services
from gateway.state.call_store import Binding
from gateway.store.client import StoreUnavailable
from gateway.upstreams import ADAPTERS
from gateway.upstreams.callback_urls import Callbacks, CallbackTrust

LOOK_EVERY_S = 5.0
"""Seconds between two looks for a named ticket: a callback may have come while Redis was unavailable."""

_TICKET = re.compile(r"[!-~]{1,1000}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CallbackListener:
    """The callbacks of one call. Each of them sets `came`. `look` reads the call's ticket, which a callback may name.

    `look` returns None without a ticket and while Redis is unavailable. `trust` is the target's.
    """

    came: asyncio.Event
    trust: CallbackTrust
    look: Callable[[], Awaitable[Ticket | None]]

    async def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for a callback; return True if one came. All since the last wait count as one."""
        try:
            async with asyncio.timeout(seconds):
                await self.came.wait()
        except TimeoutError:
            return False
        self.came.clear()
        return True

    async def wait_for_ticket(self, seconds: float) -> Ticket | None:
        """Wait up to `seconds` for a callback that names the call's ticket. Returns the ticket, or None."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (ticket := await self.look()) is None:
                    await self.wait(LOOK_EVERY_S)
                return ticket
        return None


@contextmanager
def listen(services: Services, callbacks: Callbacks, target: Target, call: str) -> Iterator[CallbackListener]:
    """Yield a listener for a call's callbacks, until the context ends.

    Open it before the call is sent: a callback may come before the submission's answer.
    """

    async def look() -> Ticket | None:
        with suppress(StoreUnavailable):
            found = (await services.calls.read([call])).get(call)
            return found.ticket if found else None
        return None

    with services.task_events.watch_callbacks(call) as came:
        yield CallbackListener(came, callbacks.trust_of(target.label), look)


async def record_callback(services: Services, kind: str, task: str, call: str, document: Any) -> None:
    """Store the ticket that a callback names if the call has none, and wake the process that follows the call.

    Raises StoreUnavailable; then the process is perhaps not woken.
    """
    ticket = ADAPTERS[kind].read_ticket(document) if kind in ADAPTERS else None
    if ticket is not None and _TICKET.fullmatch(ticket.id):
        await _bind_ticket(services, task, call, ticket)
    await services.task_store.announce_callback(call)


async def _bind_ticket(services: Services, task: str, call: str, ticket: Ticket) -> None:
    known = (await services.calls.read([call])).get(call)
    if known is None or known.note is None or known.task != task:
        return
    if known.ticket is not None and known.ticket.id == ticket.id:
        return
    bound = await services.calls.bind(task, call, known.note.upstream, known.note.credential, ticket)
    event = "a callback named a ticket that is not its call's; the gateway ignores it"
    if bound.binding is Binding.BOUND:
        event = "a callback named the ticket of a call whose answer was lost"
    _log.warning(event, call=call, ticket=ticket.id, found=bound.binding.value, stands=bound.stands)
