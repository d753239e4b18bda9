"""Builds the simulator: the vendors, the links' files and the paths for tests, over one state."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from gateway.simulator import admin, anyfast, apiany, openai
from gateway.simulator.config import SimulatorConfig
from gateway.simulator.state import SimulatorState


def create_app(config: SimulatorConfig | None = None) -> Starlette:
    """The simulator as an ASGI application. Faults that cut a connection need `server.run` underneath."""
    state = SimulatorState.make(config or SimulatorConfig())

    @asynccontextmanager
    async def live(app: Starlette) -> AsyncGenerator[None]:
        yield
        state.close()

    vendors = (anyfast, apiany, openai)
    routes = [route for vendor in vendors for route in vendor.routes(state)]
    return Starlette(routes=[*routes, *admin.routes(state)], lifespan=live)
