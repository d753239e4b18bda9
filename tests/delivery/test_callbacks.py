"""The callbacks for a call: they wake whoever waits, and may name its ticket."""

from __future__ import annotations

import asyncio

from gateway.delivery.callbacks import CallbackListener
from gateway.jobs.job import Ticket
from gateway.upstreams.callback_urls import CallbackTrust


async def find_none() -> None:
    return None


async def test_early_callback_is_kept() -> None:
    """A callback that comes before a wait ends the next wait at once, and only that one."""
    told = asyncio.Event()
    listener = CallbackListener(told, CallbackTrust(), find_none)
    told.set()
    assert await listener.wait(5)
    assert not await listener.wait(0)


async def test_named_ticket_is_found() -> None:
    """Each callback leads to a look for the ticket, until one has named it or the time is up."""
    looks: list[Ticket | None] = [None, Ticket("t1", "/v1/tasks/t1")]

    async def look() -> Ticket | None:
        return looks.pop(0)

    told = asyncio.Event()
    told.set()
    listener = CallbackListener(told, CallbackTrust(), look)
    assert await listener.wait_for_ticket(5) == Ticket("t1", "/v1/tasks/t1")
    assert not looks
    assert await CallbackListener(told, CallbackTrust(), find_none).wait_for_ticket(0.01) is None
