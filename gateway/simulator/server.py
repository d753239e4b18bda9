"""Serves the simulator over TCP until a signal: in this process, or in a thread of a test."""

import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from typing_extensions import override

from gateway.simulator.app import create_app
from gateway.simulator.config import SimulatorConfig
from gateway.simulator.connection import SimulatorProtocol

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """A server that prints its URL when it listens. Unlike uvicorn, it does not raise a signal again."""

    def __init__(self, config: uvicorn.Config, announces: bool) -> None:
        super().__init__(config)
        self.url = ""
        self.is_listening = threading.Event()
        self._announces = announces

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        host, port = (sockets or self.servers[0].sockets)[0].getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.is_listening.set()
        if self._announces:
            sys.stdout.write(f"simulator listening on {self.url}\n")
            sys.stdout.flush()

    @override
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _make_server(host: str, port: int, config: SimulatorConfig, announces: bool) -> _Server:
    return _Server(
        uvicorn.Config(
            create_app(config),
            host=host,
            port=port,
            http=SimulatorProtocol,
            ws="none",
            proxy_headers=False,
            server_header=False,
            log_level="error",
            access_log=False,
            # Some faults let requests hang; these must not delay the shutdown.
            timeout_graceful_shutdown=1,
            timeout_keep_alive=75,
            backlog=4096,
        ),
        announces,
    )


def run(
    host: str = "127.0.0.1", port: int = 8090, config: SimulatorConfig | None = None, *, fd: int | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. Port 0 takes a free one; the URL is the only line on stdout.

    `fd` is a socket that listens already, in place of host and port.
    """
    sockets = None if fd is None else [socket.socket(fileno=fd)]
    _make_server(host, port, config or SimulatorConfig(), announces=True).run(sockets)


@contextmanager
def background(config: SimulatorConfig | None = None) -> Generator[str]:
    """A simulator on a free loopback port in a thread of this process; gives its URL."""
    server = _make_server("127.0.0.1", 0, config or SimulatorConfig(), announces=False)
    thread = threading.Thread(target=server.run, name="simulator", daemon=True)
    thread.start()
    try:
        if not server.is_listening.wait(10):
            raise RuntimeError("the simulator did not start")
        yield server.url
    finally:
        server.should_exit = True
        thread.join(10)
