"""The first process of `imagegate serve`: it owns the data folder and the port, and starts and stops all others.

It alone decides the order of starts and stops. It never answers a request and never calls an upstream.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.callers.key_store import KeyStore
from gateway.catalogue.catalogue import Catalogue, load
from gateway.process.children import EXIT_CONFIG, ChildFailed, ChildWatch, name_exit, spawn, stop
from gateway.process.data_folder import DataFolder, load_secrets, record_simulator
from gateway.process.settings import Settings, StartRefused, variable
from gateway.server import demo
from gateway.server.banner import Facts, banner
from gateway.server.child_keeper import ChildKeeper, FirstLine
from gateway.server.listener import address_for_people, listen, port_of
from gateway.server.store_checks import check_store
from gateway.store.client import connect, describe
from gateway.store.embedded import EmbeddedServer

STORE_WAIT_S = 10.0
WORKER_START_S = 60.0
SIMULATOR_START_S = 20.0
SIMULATOR_LATENCY_S = 0.5

DRAIN_MARGIN_S = 10.0
"""Seconds that a worker gets after GATEWAY_DRAIN_S to record unfinished work."""

ABANDON_S = 5.0
"""Seconds that a worker gets after a second signal, or after its time is up, to record unfinished work."""

_WORKER_ENV = {"MALLOC_ARENA_MAX": "2"}
"""Defaults for variables of a worker's environment; the operator's own values replace them.

glibc keeps freed memory per arena, and makes eight arenas a core, for threads that only read, write and hash pieces;
with two the peak was lower and steadier, in the same time (docs/performance.md).
"""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Output:
    """The supervisor's output: `show` prints the banner, `say` prints events."""

    show: Callable[[str], None]
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _LoadingWorker:
    """A worker that loads its modules, and opens nothing before it gets a line from the pipe `begin`."""

    process: subprocess.Popen[bytes]
    ready: FirstLine
    begin: int


def serve(settings: Settings, env: Mapping[str, str], *, is_demo: bool, voice: Output) -> None:
    """Serve until a signal. Raises StartRefused (wrong configuration, folder or port in use).

    Raises StoreUnavailable and OSError for other faults.
    """
    # Read here so that a mistake in it ends the start; each worker reads it again.
    catalogue = load(settings.config, env)
    simulated = demo.is_simulated(catalogue, is_demo=is_demo)
    folder = DataFolder(settings.data_dir)
    with (
        folder.locked() as lock,
        folder.announced(_name_redis(settings)),
        listen(settings.host, settings.port) as listener,
    ):
        load_secrets(settings)
        folder.record_catalogue(settings.config)
        supervisor = Supervisor(settings, env, folder, lock, listener, voice)
        asyncio.run(supervisor.run(catalogue, is_demo=is_demo, is_simulated=simulated))


class Supervisor:
    """One run: `_start_and_watch` starts all processes, and `_stop` stops them in the reverse order."""

    def __init__(
        self,
        settings: Settings,
        env: Mapping[str, str],
        folder: DataFolder,
        lock: int,
        listener: socket.socket,
        voice: Output,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._lock = lock
        self._listener = listener
        self._voice = voice
        self._url = address_for_people(settings.host, port_of(listener))
        self._env = dict(env) | {variable("port"): str(port_of(listener))}
        self._env.pop(demo.SIMULATED_BY, None)
        self._server = EmbeddedServer(folder, lock) if settings.redis_url is None else None
        self._simulator_socket: socket.socket | None = None
        self._store: ChildKeeper | None = None
        self._simulator: ChildKeeper | None = None
        self._workers: list[ChildKeeper] = []
        self._loading: deque[_LoadingWorker] = deque()

    async def run(self, catalogue: Catalogue, *, is_demo: bool, is_simulated: bool) -> None:
        self._watch = ChildWatch()
        self._stopping = asyncio.Event()
        self._abandoning = asyncio.Event()
        for number in _STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._note_signal)
        work = asyncio.create_task(self._start_and_watch(catalogue, is_demo=is_demo, is_simulated=is_simulated))
        signalled = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((work, signalled), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            signalled.cancel()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await self._stop()
            self._watch.close()

    def _note_signal(self) -> None:
        if self._stopping.is_set():
            self._voice.say("Stopping now; unfinished pictures are abandoned, and recorded as unknown")
            self._abandoning.set()
        self._stopping.set()
        most_s = ABANDON_S if self._abandoning.is_set() else self._settings.drain_s + DRAIN_MARGIN_S + ABANDON_S
        self._folder.announce_stop(_name_redis(self._settings), time.time() + most_s)

    async def _start_and_watch(self, catalogue: Catalogue, *, is_demo: bool, is_simulated: bool) -> None:
        """Start all processes, show the banner, and wait. Raises StartRefused, OSError, StoreUnavailable."""
        secrets = load_secrets(self._settings)
        simulator = self._open_simulator() if is_simulated else None
        if simulator is not None:
            self._env[demo.SIMULATED_BY] = simulator
        self._load_workers()
        url = await self._start_store()
        if doubt := await check_store(url, secrets, STORE_WAIT_S, self._voice.say):
            self._voice.say(doubt)
        record_simulator(self._folder, simulator)
        key = await self._demo_key(url, secrets.pepper, is_demo=is_demo)
        await self._start_children()
        facts = Facts(
            url=self._settings.public_url or self._url,
            data_dir=self._folder.path,
            store="embedded" if self._server is not None else describe(url),
            command=_name_beside("imagegate") or f"{sys.executable} -m gateway",
            activation=f"source {script}; " if (script := _name_beside("activate")) else "",
            demo_key=key,
            simulator=simulator,
            on=tuple(target.label for target in catalogue.targets),
            off=tuple(catalogue.not_configured),
            unpriced=tuple(catalogue.unpriced()),
        )
        self._voice.show(banner(facts))
        kept = [keeper.task for keeper in (self._store, self._simulator, *self._workers) if keeper and keeper.task]
        done, _ = await asyncio.wait(kept, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _start_store(self) -> str:
        if self._server is None:
            assert self._settings.redis_url is not None
            return self._settings.redis_url.get_secret_value()
        self._store = self._keeper("The embedded server", self._server.start)
        await self._store.begin()
        return self._server.url

    def _open_simulator(self) -> str:
        """Return the URL of the simulator, which need not run yet: its socket keeps requests until it does."""
        if self._settings.simulator_url is not None:
            return self._settings.simulator_url
        self._simulator_socket = socket.create_server(("127.0.0.1", 0))
        self._simulator = self._keeper("The simulator", self._spawn_simulator)
        return address_for_people("127.0.0.1", port_of(self._simulator_socket))

    async def _start_children(self) -> None:
        """Start the simulator and the workers; a start takes half a second of one core."""
        for number in range(self._settings.workers):
            self._workers.append(self._keeper(f"Worker {number + 1}", self._start_worker))
        # One worker first, so that a mistake in the catalogue is reported once, and not by each worker.
        first = (self._workers[0],) if self._simulator is None else (self._simulator, self._workers[0])
        for keepers in (first, self._workers[1:]):
            try:
                async with asyncio.TaskGroup() as group:
                    for keeper in keepers:
                        group.create_task(keeper.begin())
            except* (StartRefused, OSError) as refusals:
                raise refusals.exceptions[0] from None

    def _keeper(self, name: str, start: Callable[[], Awaitable[subprocess.Popen[bytes]]]) -> ChildKeeper:
        return ChildKeeper(name, start, self._watch, self._voice.say)

    def _load_workers(self) -> None:
        """Start the workers' processes, which load their modules while the store starts."""
        # Where a process cannot be started now, the worker's keeper tries again later, and reports the reason.
        with suppress(OSError, MemoryError, subprocess.SubprocessError):
            for _ in range(self._settings.workers):
                self._loading.append(self._load_worker())

    def _load_worker(self) -> _LoadingWorker:
        listener = self._listener.fileno()
        waiting, begin = os.pipe()
        try:
            with FirstLine() as ready:
                fds = {"--fd": listener, "--ready-fd": ready.writer, "--begin-fd": waiting}
                options = [word for name, fd in fds.items() for word in (name, str(fd))]
                process = spawn(
                    [sys.executable, "-P", "-m", "gateway.server.worker", *options],
                    env=_WORKER_ENV | self._env,
                    # It holds the lock too, since the next start must not listen before this process has ended. It dies
                    # with a killed supervisor: its calls are on record, and the next worker adopts them.
                    dies_by=signal.SIGKILL,
                    pass_fds=(*fds.values(), self._lock),
                    # Replicas of other users may share that folder; its operator decides.
                    keeps_umask=(self._settings.storage_url or "").startswith("file:"),
                )
        except BaseException:
            os.close(begin)
            raise
        finally:
            os.close(waiting)
        return _LoadingWorker(process, ready, begin)

    async def _start_worker(self) -> subprocess.Popen[bytes]:
        worker = self._loading.popleft() if self._loading else self._load_worker()
        # A worker that has ended breaks the pipe; `_first_line` reports its end.
        with suppress(BrokenPipeError):
            os.write(worker.begin, b"begin\n")
        os.close(worker.begin)
        await self._first_line(worker.ready, worker.process, WORKER_START_S)
        return worker.process

    async def _spawn_simulator(self) -> subprocess.Popen[bytes]:
        assert self._simulator_socket is not None
        listener = self._simulator_socket.fileno()
        with FirstLine() as first:
            options = ("--fd", str(listener), "--latency", str(SIMULATOR_LATENCY_S))
            process = spawn(
                [sys.executable, "-P", "-m", "gateway.simulator", *options],
                dies_by=signal.SIGKILL,
                stdout=first.writer,
                pass_fds=(listener,),
            )
        await self._first_line(first, process, SIMULATOR_START_S)
        return process

    async def _first_line(self, pipe: FirstLine, process: subprocess.Popen[bytes], wait_s: float) -> str:
        """Wait for a child's first line, and return it; a child without one is stopped.

        Raises StartRefused when it can never start, ChildFailed when another start may succeed.
        """
        line: str | None = None
        try:
            line = await pipe.wait(wait_s)
        finally:
            if not line:
                stop(process, 0 if self._stopping.is_set() else 1)
        if line:
            return line
        if process.returncode == EXIT_CONFIG:
            raise StartRefused("The gateway cannot run with this configuration; the reason is above")
        how = f"was silent for {wait_s:.0f} s" if line is None else f"ended ({name_exit(process.returncode)})"
        raise ChildFailed(f"it {how} before it was ready")

    async def _demo_key(self, url: str, pepper: bytes, *, is_demo: bool) -> str | None:
        """Return the demo key, and make it if needed; outside demo mode disable all demo keys, and return None."""
        client = connect(url)
        try:
            keys = KeyStore(client, pepper)
            if is_demo:
                return await demo.demo_key(self._folder, keys)
            for key in await demo.disable_demo_keys(keys):
                self._voice.say(
                    f"The key {key.name!r} of demo mode ({key.id}) is disabled: it has no limits, and real upstreams "
                    "answer here. `imagegate serve --demo` enables it again"
                )
            return None
        finally:
            await client.aclose()

    async def _stop(self) -> None:
        """Stop all processes, the workers first: their paid pictures need the simulator and the store until the end."""
        # While it is open, the kernel accepts connections that no worker will answer.
        self._listener.close()
        while self._loading:
            worker = self._loading.popleft()
            os.close(worker.begin)
            # It has opened nothing.
            stop(worker.process, 0)
        workers = [process for keeper in self._workers if (process := await keeper.release()) is not None]
        await self._drain(workers)
        if self._simulator is not None and (process := await self._simulator.release()) is not None:
            stop(process, ABANDON_S)
        if self._simulator_socket is not None:
            self._simulator_socket.close()
        process = await self._store.release() if self._store is not None else None
        if self._server is not None:
            self._server.close(process)

    async def _drain(self, workers: list[subprocess.Popen[bytes]]) -> None:
        for process in workers:
            process.send_signal(signal.SIGTERM)
        exits = asyncio.gather(*(self._watch.exit_of(process) for process in workers))
        limit_s = self._settings.drain_s
        if await self._ends(exits, 1.0) or not workers:
            return
        self._voice.say(f"Stopping; unfinished pictures get up to {limit_s:.0f} s. Ctrl-C again abandons them")
        if await self._ends(exits, limit_s + DRAIN_MARGIN_S):
            return
        for process in workers:
            process.send_signal(signal.SIGINT)
        await asyncio.wait((exits,), timeout=ABANDON_S)
        for process in workers:
            process.kill()
        await exits

    async def _ends(self, exits: asyncio.Future[list[int]], wait_s: float) -> bool:
        """Wait up to `wait_s` seconds, or until a second signal; return True when all have ended."""
        abandoned = asyncio.create_task(self._abandoning.wait())
        await asyncio.wait((exits, abandoned), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        abandoned.cancel()
        return exits.done()


def _name_redis(settings: Settings) -> str | None:
    """Return the Redis of the settings without its password; None for the embedded server."""
    return None if settings.redis_url is None else describe(settings.redis_url.get_secret_value())


def _name_beside(name: str) -> str | None:
    """Return the path of a file beside this Python, for a shell in this folder; None where there is none.

    In a fresh checkout that folder is not on the PATH.
    """
    beside = Path(sys.executable).with_name(name)
    if not beside.exists():
        return None
    return str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside)
