"""Gateways that kill themselves at a named point: real processes, forked from one that has imported everything.

The points are made here, around what the application is composed of; nothing in the gateway knows of them. Run by
`Crashes`, which writes one line of JSON for each process it wants and reads where that one listens.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.api.connection.protocol import protocol
from gateway.app import create_app, wire_limits
from gateway.jobs.job import Inputs, UpstreamAnswer
from gateway.pictures.spool import Blob
from gateway.process.logs import logging_to
from gateway.process.settings import Settings
from gateway.server.worker import Server, server_config
from gateway.services import Services
from gateway.store.client import Command
from tests.support.processes import clean_environment
from tests.support.store_reader import SECRETS

ROOT = Path(__file__).parents[2]

Method = Callable[..., Awaitable[Any]]


def die() -> None:
    """As a power cut would end it: nothing is written, closed or told."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class Fatal:
    """Something the gateway uses, whose named methods end the process before or after they have run."""

    def __init__(self, inner: Any, **moments: str) -> None:
        self._inner = inner
        self._moments = moments

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        moment = self._moments.get(name)
        return found if moment is None else _deadly(found, moment)


def _deadly(method: Method, moment: str) -> Method:
    async def run(*arguments: Any, **named: Any) -> Any:
        if moment == "before":
            die()
        answer = await method(*arguments, **named)
        if moment == "after":
            die()
        return answer

    return run


class HalfSent(Blob):
    """A blob that ends the process when half of it was read."""

    async def chunks(self, size: int = 0) -> AsyncIterator[bytes]:
        data = await self.read()
        yield data[: len(data) // 2]
        die()


class FatalUpstream:
    """An adapter that ends the process once its vendor has answered (`submit`), told of the end (`poll`), or was half
    told what to make (`body`)."""

    def __init__(self, inner: Any, moment: str) -> None:
        self._inner = inner
        self._moment = moment

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def prepare(self, job: Any, spool: Any) -> Inputs:
        inputs: Inputs = await self._inner.prepare(job, spool)
        if self._moment != "body":
            return inputs
        blobs = (HalfSent(one.blob.size, one.blob.data, one.blob.path) for one in inputs.references)
        cut = (replace(one, blob=blob) for one, blob in zip(inputs.references, blobs, strict=True))
        return replace(inputs, references=tuple(cut))

    async def submit(self, *arguments: Any) -> Any:
        found = await self._inner.submit(*arguments)
        if self._moment == "submit":
            die()
        return found

    async def poll(self, *arguments: Any) -> UpstreamAnswer | None:
        found: UpstreamAnswer | None = await self._inner.poll(*arguments)
        if self._moment == "poll" and found is not None:
            die()
        return found


class HalfFetched:
    """A fetcher that ends the process when a picture has begun to come."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def fetch(self, url: str, spool: Any) -> Blob:
        return await self._inner.fetch(url, HalfSpooled(spool))


class HalfSpooled:
    """A spool whose first bytes are the process's last."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def writer(self) -> Any:
        return Fatal(self._inner.writer(), write="after")


class HalfRead:
    """A store of pictures that ends the process when one is half handed out."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def open(self, artifact_id: str) -> Any:
        stored = await self._inner.open(artifact_id)

        async def chunks() -> AsyncIterator[bytes]:
            async for piece in stored.chunks:
                yield piece[: len(piece) // 2]
                die()

        return stored._replace(chunks=chunks())


class Childless:
    """The lifelines of a worker that looks for nobody's death: it is to die of its own request."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def find_dead(self) -> list[str]:
        return []


def _around(part: str, **moments: str) -> Callable[[Services], dict[str, Any]]:
    return lambda services: {part: Fatal(getattr(services, part), **moments)}


def _steps(name: str, moment: str) -> Callable[[Services], dict[str, Any]]:
    """The step `name` of the ledger, alone or in a chain with others."""

    def around(services: Services) -> dict[str, Any]:
        inner = services.ledger

        async def run_chain(*commands: Command[Any]) -> list[Any]:
            is_it = name in [command.script.name for command in commands]
            if is_it and moment == "before":
                die()
            answers = await inner.run_chain(*commands)
            if is_it and moment == "after":
                die()
            return answers

        found = Fatal(inner, **{name: moment})
        found.run_chain = run_chain
        return {"ledger": found}

    return around


def _upstreams(moment: str) -> Callable[[Services], dict[str, Any]]:
    return lambda services: {
        "upstreams": {label: FatalUpstream(one, moment) for label, one in services.upstreams.items()}
    }


POINTS: dict[str, Callable[[Services], dict[str, Any]]] = {
    "none": lambda _: {},
    "before open": _around("ledger", open="before"),
    "opened": _around("ledger", open="after"),
    "marked, nothing sent": _around("ledger", mark_sent="after"),
    "body half sent": _upstreams("body"),
    "ticket not yet stored": _around("calls", bind="before"),
    "answered": _upstreams("submit"),
    "ticket stored": _around("calls", bind="after"),
    "success seen": _upstreams("poll"),
    "links stored": _around("calls", keep_links="after"),
    "half downloaded": lambda services: {"fetcher": HalfFetched(services.fetcher)},
    "downloaded, not renamed": _around("artifacts", put="before"),
    "stored, not posted": _steps("post", "before"),
    "posted": _steps("post", "after"),
    "closed, not told": _steps("close", "after"),
    "half answered": lambda services: {"artifacts": HalfRead(services.artifacts)},
    "adopted": _around("ledger", adopt="after"),
    "about to presume": _around("ledger", presume="before"),
}


@dataclass
class Crasher:
    """A gateway that is to die. `pid` is its process."""

    url: str
    pid: int

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    @property
    def is_gone(self) -> bool:
        """Whether it has let go of all it held: its first thread may be dead before the others."""
        folder = Path(f"/proc/{self.pid}")
        try:
            is_dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            return is_dead and len(list((folder / "task").iterdir())) <= 1
        except OSError:
            return True


class Crashes:
    """The process from which they are forked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="igw-crashing-")
        self.log_path = Path(self._folder.name, "log")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash_points"],
            cwd=ROOT,
            env=clean_environment(CRASH_LOG=str(self.log_path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self, point: str, settings: Mapping[str, Any], env: Mapping[str, str], store_url: str, *, inherits: bool
    ) -> Crasher:
        """A gateway that listens, and dies at that point."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        parts = {"point": point, "settings": dict(settings), "env": dict(env), "store_url": store_url}
        order = parts | {"inherits": inherits}
        # What is answered is of whoever was asked for last.
        with self._lock:
            self._process.stdin.write(json.dumps(order, default=str) + "\n")
            self._process.stdin.flush()
            pid, port = self._process.stdout.readline().split()
        assert int(port), self.log_path.read_text()[-5000:]
        return Crasher(f"http://127.0.0.1:{port}", int(pid))

    def close(self) -> None:
        self._process.communicate(timeout=10)
        self._folder.cleanup()


def live(
    point: str, settings: Mapping[str, Any], env: Mapping[str, str], store_url: str, *, inherits: bool = True
) -> None:
    """Serve until the end, which comes at the point."""
    loaded = Settings(**settings)
    app = create_app(loaded, store_url=store_url, secrets=SECRETS, env=env)
    services: Services = app.state.services
    worker_locks: Any = services.worker_locks if inherits else Childless(services.worker_locks)
    app.state.services = replace(services, worker_locks=worker_locks, **POINTS[point](services))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)

    class Told(Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            sys.stdout.write(f"{os.getpid()} {listener.getsockname()[1] if self.started else 0}\n")
            sys.stdout.flush()

    server = Told(server_config(app, loaded, protocol(wire_limits(app))), app, None)
    with logging_to(mask=services.mask):
        server.run(sockets=[listener])


def main() -> None:
    """Fork a gateway for each line, until there are no more; none outlives this process."""
    children: list[int] = []
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.environ["CRASH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
            live(**json.loads(line))
            os._exit(0)
        children.append(pid)
        children = [one for one in children if os.waitpid(one, os.WNOHANG)[0] == 0]
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
