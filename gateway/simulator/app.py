"""Puts the simulator together: two vendors, the links' files and the test's own side, over one world."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from gateway.simulator import admin, anyfast, apiany
from gateway.simulator.config import SimulatorConfig
from gateway.simulator.world import World


def create_app(config: SimulatorConfig | None = None) -> Starlette:
    """The simulator as an ASGI application. Faults that cut a connection need `serve.run` underneath."""
    world = World.make(config or SimulatorConfig())

    @asynccontextmanager
    async def live(app: Starlette) -> AsyncGenerator[None]:
        yield
        world.close()

    return Starlette(routes=[*anyfast.routes(world), *apiany.routes(world), *admin.routes(world)], lifespan=live)
