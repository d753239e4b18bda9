"""One worker process: the application behind uvicorn, on a socket that is already bound.

The command is `python -m gateway.server.worker --fd N`. SIGTERM drains; a SIGINT after it abandons unfinished work.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import signal
import socket
import sys
from collections.abc import Mapping
from types import FrameType

if __name__ == "__main__":
    # The imports below make objects that all stay; looking for garbage among them takes a tenth of the start.
    # `memory.tune_collector` turns the collector on again.
    gc.disable()

import structlog
import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from gateway.api.connection.protocol import protocol
from gateway.app import create_app, wire_limits
from gateway.process import memory
from gateway.process.addresses import add_mapped
from gateway.process.children import EXIT_CONFIG
from gateway.process.data_folder import load_secrets
from gateway.process.logs import logging_to, write_event
from gateway.process.settings import Settings, StartRefused, load_settings
from gateway.server.demo import SIMULATED_BY
from gateway.services import Services
from gateway.store.embedded import store_url

_log = structlog.get_logger(__name__)

# Longer than a load balancer keeps an idle connection (60 s by default), so that it never sends into a closed one.
_KEEP_ALIVE_S = 75


def main(arguments: list[str], env: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT. Return 0, EXIT_CONFIG for a refused start, or 1 if no server started."""
    parser = argparse.ArgumentParser(prog="gateway.server.worker")
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--ready-fd", type=int, help="a pipe that gets the line `ready`")
    parser.add_argument("--begin-fd", type=int, help="a pipe that gets a line when the start may go on")
    options = parser.parse_args(arguments)
    # Ctrl-C reaches this process through the supervisor; before uvicorn handles signals it must not end in a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if options.begin_fd is not None and not _may_begin(options.begin_fd):
        return 1
    try:
        settings = load_settings(env)
        app = create_app(
            settings,
            store_url=store_url(settings),
            secrets=load_secrets(settings),
            env=env,
            simulated_by=env.get(SIMULATED_BY),
        )
    except StartRefused as refusal:
        write_event(str(refusal), "error")
        return EXIT_CONFIG
    server = Server(server_config(app, settings, protocol(wire_limits(app))), app, options.ready_fd)
    services: Services = app.state.services
    with logging_to(level=settings.log_level, mask=services.mask):
        server.run(sockets=[socket.socket(fileno=options.fd)])
    return 0 if server.started else 1


def _may_begin(fd: int) -> bool:
    """Wait for the line of the supervisor; False if the pipe ends without one. Until then this process opens nothing.

    The modules are loaded by now, so that the time for it and the time of the store's start are the same.
    """
    with open(fd, "rb") as pipe:
        return pipe.readline() != b""


def server_config(app: FastAPI, settings: Settings, http: type[asyncio.Protocol] | None = None) -> uvicorn.Config:
    """Return uvicorn's configuration; `http` is the protocol class for requests, None is httptools' own."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools" if http is None else http,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        # Without this list uvicorn would trust every process on this machine, or FORWARDED_ALLOW_IPS.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=add_mapped(settings.trusted_proxies),
        timeout_keep_alive=_KEEP_ALIVE_S,
        # One second more, so that waiting callers still get an answer when the time is up.
        timeout_graceful_shutdown=math.ceil(settings.drain_s) + 1,
    )


class Server(uvicorn.Server):
    """uvicorn that reports when it is ready, and begins the gateway's shutdown at the first signal."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, ready_fd: int | None) -> None:
        super().__init__(config)
        self._app = app
        self._ready_fd = ready_fd

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        memory.tune_collector()
        if self.started and self._ready_fd is not None:
            os.write(self._ready_fd, b"ready\n")
            os.close(self._ready_fd)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services = self._app.state.services
        services.shutdown.begin()
        if services.running:
            _log.info(
                "the stop waits for unfinished tasks", tasks=len(services.running), seconds=services.settings.drain_s
            )
        cutting = asyncio.create_task(self._cut_connections(services))
        ending = asyncio.get_running_loop().call_later(services.settings.drain_s, services.shutdown.give_up)
        await super().shutdown(sockets)
        cutting.cancel()
        ending.cancel()

    async def _cut_connections(self, services: Services) -> None:
        """Abort the remaining connections once `stop_s` seconds have passed and no call needs this process."""
        await services.shutdown.idle(services.settings.stop_s)
        for connection in list(self.server_state.connections):
            if (transport := getattr(connection, "transport", None)) is not None:
                transport.abort()

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own handler raises the signal again at the end, which would skip Python's exit handlers.
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
