"""The event that is small while nobody waits for it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.api.connection.protocol import Latch


async def test_all_waiters_wake() -> None:
    """Whoever waits is woken, one that gave up disturbs nobody, and who comes later need not wait."""
    latch = Latch()
    waiting = [asyncio.create_task(latch.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    latch.set()
    assert await waiting[0]
    assert await waiting[2]
    assert await latch.wait()


async def test_cleared_latch_waits_again() -> None:
    """After `clear` one waits anew; a new one may begin open."""
    latch = Latch(is_set=True)
    assert await latch.wait()
    latch.clear()
    waiting = asyncio.create_task(latch.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    latch.set()
    assert await waiting
