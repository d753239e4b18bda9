"""The services of a gateway in the test's own event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.services import Services
from gateway.tasks.task import drain
from tests.support.gateways import Gateway


@pytest.fixture
async def services(gateway: Gateway) -> AsyncIterator[Services]:
    """The services of a gateway in this loop, its upstreams at the simulator. At the end nothing is left."""
    async with gateway.inside() as app:
        made: Services = app.state.services
        yield made
        assert await drain(made) == (0, 0)
        assert made.in_flight.used == made.memory.used == 0
