"""The application from its first step to its last."""

from __future__ import annotations

import asyncio

from tests.support.gateways import Gateway


def test_stop_right_after_a_start(gateway: Gateway) -> None:
    """A process that is stopped while its connections to Redis still open ends all the same."""

    async def live_for(seconds: float) -> None:
        async with gateway.inside():
            await asyncio.sleep(seconds)

    async def live_shortly() -> None:
        async with asyncio.timeout(60):
            for step in range(8):
                await live_for(step * 0.0005)

    asyncio.run(live_shortly())
