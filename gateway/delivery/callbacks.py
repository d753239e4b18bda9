"""What is heard of a paid call through callbacks: that its ticket should be asked after, or which ticket it got.

Recorded by the callback route, in the store, so that the process hears of it that follows the call. Believes no more
than a ticket's id, and that only of a call that has none.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from gateway.catalogue.catalogue import Target
from gateway.jobs.job import Ticket
from gateway.services import Services
from gateway.state.call_store import Binding
from gateway.store.client import StoreUnavailable
from gateway.upstreams import ADAPTERS
from gateway.upstreams.callback_urls import CallbackTrust

LOOK_EVERY_S = 5.0
"""Seconds between two looks for a ticket of which nothing was heard: what was told while Redis was away."""

_TICKET = re.compile(r"[!-~]{1,200}")

_log = structlog.get_logger(__name__)


async def _know_none() -> None:
    """Where nobody calls back, no ticket is named."""


@dataclass(slots=True)
class CallbackListener:
    """One call's ear. `told` is set by each callback for it, and None where nobody calls back; `trust` is that in its
    target's callbacks; `look` finds the ticket that one of them named.
    """

    told: asyncio.Event | None = None
    trust: CallbackTrust = field(default_factory=CallbackTrust)
    look: Callable[[], Awaitable[Ticket | None]] = _know_none

    async def wait(self, seconds: float) -> bool:
        """Whether a callback came within so many seconds; one that came before counts, once."""
        if self.told is None:
            await asyncio.sleep(seconds)
            return False
        try:
            async with asyncio.timeout(seconds):
                await self.told.wait()
        except TimeoutError:
            return False
        self.told.clear()
        return True

    async def hear_ticket(self, seconds: float) -> Ticket | None:
        """The ticket that a callback names within so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (ticket := await self.look()) is None:
                    await self.wait(LOOK_EVERY_S)
                return ticket
        return None


def hear(
    services: Services, target: Target, call: str, *, is_called_back: bool
) -> AbstractContextManager[CallbackListener]:
    """An ear for a call, from before it is sent: a callback may be faster than the answer to the submission."""
    if services.callbacks is None or not is_called_back:
        return nullcontext(CallbackListener())
    return _hear(services, services.callbacks.trust_of(target.label), call)


@contextmanager
def _hear(services: Services, trust: CallbackTrust, call: str) -> Iterator[CallbackListener]:
    async def look() -> Ticket | None:
        with suppress(StoreUnavailable):
            found = (await services.calls.read([call])).get(call)
            return found.ticket if found else None
        return None

    with services.task_events.heed(call) as told:
        yield CallbackListener(told, trust, look)


async def record(services: Services, kind: str, task: str, call: str, document: Any) -> None:
    """A vendor called back for a call: keep the ticket that it names, and wake whoever follows the call.

    Raises StoreUnavailable: it was not recorded.
    """
    ticket = ADAPTERS[kind].read_ticket(document) if kind in ADAPTERS else None
    if ticket is not None and _TICKET.fullmatch(ticket.id):
        await _bind(services, task, call, ticket)
    await services.task_store.hint(call)


async def _bind(services: Services, task: str, call: str, ticket: Ticket) -> None:
    known = (await services.calls.read([call])).get(call)
    if known is None or known.note is None or known.task != task:
        return
    if known.ticket is not None and known.ticket.id == ticket.id:
        return
    bound = await services.calls.bind(task, call, known.note.upstream, known.note.credential, ticket)
    event = "a callback named a ticket that is not its call's; it was ignored"
    if bound.binding is Binding.BOUND:
        event = "a callback named the ticket of a call whose answer had not come"
    _log.warning(event, call=call, ticket=ticket.id, found=bound.binding.value, stands=bound.stands)
