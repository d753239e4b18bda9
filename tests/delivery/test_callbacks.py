"""What is heard of a call through callbacks."""

from __future__ import annotations

import asyncio

from gateway.delivery.callbacks import CallbackListener
from gateway.jobs.job import Ticket


async def test_early_callback_is_kept() -> None:
    """What comes before anybody waits for it is heard by who waits next, once."""
    told = asyncio.Event()
    listener = CallbackListener(told)
    told.set()
    assert await listener.wait(5)
    assert not await listener.wait(0)


async def test_named_ticket_is_found() -> None:
    """A ticket is looked for at each callback, until one has named it or the time is up."""
    looks: list[Ticket | None] = [None, Ticket("t1", "/v1/tasks/t1")]

    async def look() -> Ticket | None:
        return looks.pop(0)

    told = asyncio.Event()
    told.set()
    listener = CallbackListener(told, look=look)
    assert await listener.wait_for_ticket(5) == Ticket("t1", "/v1/tasks/t1")
    assert not looks
    assert await CallbackListener().wait_for_ticket(0.01) is None
