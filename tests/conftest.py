"""What many tests share: a real Valkey on a Unix socket, and a client of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.process.children import stop
from gateway.store import embedded
from gateway.store.client import StoreClient, connect
from tests.support import processes
from tests.support.processes import until

SECRETS = ("sim-direct", "sim-apiany", "p" * 32, "s" * 32)
"""The upstream keys, the pepper and the signing key of the tests' gateways."""

leaks: list[str] = []
"""Log lines of this session that hold one of them."""


def _find_leak(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Search every line that a test's gateway logs."""
    text = str(event)
    if any(secret in text for secret in SECRETS):
        leaks.append(text)
    return event


@pytest.fixture(scope="session", autouse=True)
def silence() -> Iterator[None]:
    """No test makes a gateway log a secret."""
    yield
    assert not leaks


def _drop_ordinary(_: object, level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A line a request hides what a failed test has to say."""
    if level in ("debug", "info"):
        raise structlog.DropEvent
    return event


# As the gateway writes to a terminal: a traceback with every variable would take seconds, and the loop with it.
structlog.configure(
    processors=[
        _find_leak,
        _drop_ordinary,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S"),
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

# Nothing here trusts a public authority, and reading them all takes 20 ms for each client that is made.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "support" / "nobodys.authority.pem")

MEMORY = "/dev/shm"

SERVERS = frozenset({"valkey", "valkey_server", "lone_valkey", "simulator"})
"""Fixtures that start a server. `make fast` leaves out the tests that use one."""

pytest_plugins = (
    "tests.support.webhook_receiver",
    "tests.support.gateways",
    "tests.support.own_services",
    "tests.support.shell",
    "tests.support.crash_stage",
    "tests.support.ledger_fixtures",
    "tests.support.sdk_calls",
)


STARTERS = {"gateway": processes.gateway, "imagegate": processes.imagegate, "subprocess": subprocess}
"""What a test's module has where it may start a process: it is left out likewise."""


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Mark each test that needs a running server, so that `make fast` can leave it out.

    Files that start processes take longest, so they begin first: else one of them runs alone at the end.
    """
    for item in items:
        if _starts_processes(item) or SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("served")
    items.sort(key=lambda item: (not _starts_processes(item), item.get_closest_marker("served") is None))


def _starts_processes(item: Any) -> bool:
    return any(getattr(item.module, name, None) is found for name, found in STARTERS.items())


@dataclass
class Valkey:
    """A running server: its URL, and the means to end, pause and start it again over the same files."""

    folder: Path

    def __post_init__(self) -> None:
        self.socket = self.folder / "v.sock"
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self) -> None:
        self.process = embedded.launch(self.folder, self.socket)
        until(lambda: embedded.ask(self.socket, b"PING\r\n").startswith(b"+PONG"))

    def flush(self) -> None:
        if self.process.poll() is not None:
            self.start()
        assert embedded.ask(self.socket, b"FLUSHALL\r\n", wait_s=10) == b"+OK\r\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def evicting(self) -> Iterator[None]:
        """The server would throw entries away when it is full."""
        assert embedded.ask(self.socket, b"CONFIG SET maxmemory-policy allkeys-lru\r\n") == b"+OK\r\n"
        try:
            yield
        finally:
            embedded.ask(self.socket, b"CONFIG SET maxmemory-policy noeviction\r\n")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The server accepts connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def _quick_folder() -> str | None:
    """In memory, where there is room: on a disk that is shared with other work, a synced write may take seconds."""
    try:
        return MEMORY if shutil.disk_usage(MEMORY).free > 2**31 and os.access(MEMORY, os.W_OK) else None
    except OSError:
        return None


@contextlib.contextmanager
def run_valkey() -> Iterator[Valkey]:
    # Not pytest's own folder: its path can be too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="igw-", dir=_quick_folder()))
    server = Valkey(folder)
    yield server
    stop(server.process, 5)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """The server of the tests that run gateways, which write to it as long as the session lasts."""
    with run_valkey() as server:
        yield server


@pytest.fixture(scope="session")
def lone_valkey() -> Iterator[Valkey]:
    """A server that no gateway writes to behind a test's back."""
    with run_valkey() as server:
        yield server


@pytest.fixture
def valkey(request: pytest.FixtureRequest) -> Valkey:
    """A real server without a key in it; for a test marked `quiet_store` one that no gateway writes to."""
    is_quiet = request.node.get_closest_marker("quiet_store") is not None
    server: Valkey = request.getfixturevalue("lone_valkey" if is_quiet else "valkey_server")
    server.flush()
    return server


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[StoreClient]:
    """A client of a real server without a key in it."""
    client = connect(valkey.url)
    yield client
    await client.aclose()
