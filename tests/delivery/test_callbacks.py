"""The callbacks for a call: they end a wait, and may name its ticket."""

from __future__ import annotations

import asyncio

from gateway.delivery.callbacks import CallbackListener
from gateway.jobs.job import Ticket
from gateway.upstreams.callback_urls import CallbackTrust


async def find_none() -> None:
    return None


async def test_early_callback_is_kept() -> None:
    """A callback that comes before a wait ends the next wait at once, and only that one."""
    came = asyncio.Event()
    listener = CallbackListener(came, CallbackTrust(), find_none)
    came.set()
    assert await listener.wait(5)
    assert not await listener.wait(0)


async def test_named_ticket_is_found() -> None:
    """Each callback leads to a look for the ticket, until one has named it or the time is up."""
    looks: list[Ticket | None] = [None, Ticket("t1", "/v1/tasks/t1")]

    async def look() -> Ticket | None:
        return looks.pop(0)

    came = asyncio.Event()
    came.set()
    listener = CallbackListener(came, CallbackTrust(), look)
    assert await listener.wait_for_ticket(5) == Ticket("t1", "/v1/tasks/t1")
    assert not looks
    assert await CallbackListener(came, CallbackTrust(), find_none).wait_for_ticket(0.01) is None
