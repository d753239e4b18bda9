"""Several real servers that belong together: a master with replicas and sentinels, a Cluster, and a door with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import redis as blocking
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.process.children import spawn, stop
from gateway.store.embedded import find_binary
from tests.support.ports import free_port
from tests.support.processes import until

SERVICE = "money"


class Server:
    """One server on a port of its own, with a folder that it keeps when it is killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._folder = folder / str(self.port)
        self._folder.mkdir()
        self._client = blocking.Redis(port=self.port, decode_responses=True, retry=Retry(NoBackoff(), 0))
        self._command = [str(find_binary()), *options, "--port", str(self.port), "--dir", str(self._folder)]
        self.start()

    def start(self) -> None:
        self.process = spawn(self._command, dies_by=signal.SIGKILL, stdout=-3)
        until(self._answers, what="a server's start")

    def ask(self, *words: object) -> Any:
        return self._client.execute_command(*words)

    def facts(self) -> dict[str, Any]:
        return self.ask("INFO")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self._client.close()
        stop(self.process, 5)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except blocking.ConnectionError:
            return False


class Sentinels:
    """A master, its replicas, and three sentinels that need two voices to put a replica in its place."""

    def __init__(self, folder: Path, replicas: int) -> None:
        memory = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--loglevel", "warning")
        self.master = Server(folder, *memory)
        self.replicas = [
            Server(folder, *memory, "--replicaof", f"127.0.0.1 {self.master.port}") for _ in range(replicas)
        ]
        self.sentinels = [Server(folder, str(self._configure(folder, number)), "--sentinel") for number in range(3)]
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{SERVICE}"
        # They look around every few seconds, which is longer than the tests take.
        self._tune(info_period=100, ask_period=100, publish_period=100)
        until(self._know_each_other, what="the sentinels' acquaintance")
        # Left so short, those who hear last of a new master would make it a replica again.
        self._tune(publish_period=500)
        # The master counts a replica while it is still being filled; one chosen then would have nothing.
        until(lambda: all(one.facts()["master_link_status"] == "up" for one in self.replicas), what="the replicas")

    def chosen(self) -> Server:
        """The replica that every sentinel calls the master by now."""
        return until(self._find_chosen, what="the sentinels' agreement on a replica")

    def change_master(self) -> None:
        """An orderly change; returns when the old master is a replica."""
        until(self._has_changed, what="the change of master")
        until(self._is_demoted, what="the old master's demotion")

    def close(self) -> None:
        for one in (*self.sentinels, *self.replicas, self.master):
            one.close()

    def _configure(self, folder: Path, number: int) -> Path:
        path = folder / f"sentinel{number}.conf"
        path.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 300\n"
            f"sentinel failover-timeout {SERVICE} 2000\n"
            "loglevel warning\n"
        )
        return path

    def _is_demoted(self) -> bool:
        try:
            return self.master.facts()["role"] == "slave"
        except blocking.ConnectionError:
            # A demoted server hangs up on everybody.
            return False

    def _find_chosen(self) -> Server | None:
        ports = {int(one.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1]) for one in self.sentinels}
        return next((one for one in self.replicas if ports == {one.port}), None)

    def _tune(self, **periods_ms: int) -> None:
        for one in self.sentinels:
            for name, period in periods_ms.items():
                one.ask("SENTINEL", "DEBUG", name.replace("_", "-"), period)

    def _has_changed(self) -> bool:
        asked = self.sentinels[0]
        if int(asked.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1]) != self.master.port:
            return True
        # One that knows too little of the replicas at that moment begins, gives up, and must be told again.
        with contextlib.suppress(blocking.ResponseError):
            asked.ask("SENTINEL", "FAILOVER", SERVICE)
        return False

    def _know_each_other(self) -> bool:
        known = [one.ask("SENTINEL", "MASTER", SERVICE) for one in self.sentinels]
        return all(
            (int(row["num-slaves"]), int(row["num-other-sentinels"])) == (len(self.replicas), 2) for row in known
        )


class Cluster:
    """Three nodes that share the slots between them."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [
            Server(
                *(folder, "--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--save", ""),
                *("--cluster-node-timeout", "2000", "--loglevel", "warning"),
            )
            for _ in range(3)
        ]
        for number, node in enumerate(self.nodes):
            first, last = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            # Nodes whose epochs are equal would first have to agree who is who.
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            bus = node.ask("CONFIG", "GET", "cluster-port")["cluster-port"]
            self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        until(lambda: all(self._is_whole(node) for node in self.nodes), what="the Cluster")

    def url(self, *nodes: Server) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}"

    def owner(self, slot: int) -> Server:
        rows = self.nodes[0].ask("CLUSTER", "SLOTS")
        port = next(int(row[2][1]) for row in rows if row[0] <= slot <= row[1])
        return next(node for node in self.nodes if node.port == port)

    def hand_over(self, slot: int, giver: Server, taker: Server) -> None:
        """Move an empty slot: from then on the giver sends everybody who asks for it to the taker."""
        name = taker.ask("CLUSTER", "MYID")
        for node in (taker, giver, *self.nodes):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)

    def flush(self) -> None:
        for node in self.nodes:
            node.ask("FLUSHALL")

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def _is_whole(self, node: Server) -> bool:
        facts = node.ask("CLUSTER", "INFO").splitlines()
        return {"cluster_state:ok", "cluster_known_nodes:3"} <= set(facts)


@contextlib.contextmanager
def folder_for_servers() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="igw-fleet-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def tls_door(inside: Path, certificate: Path) -> AsyncIterator[int]:
    """A port where TLS ends before a server on a Unix socket, as operators put it before one without."""

    async def let_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(inside))
        ways = [asyncio.create_task(_pass(reader, inner_writer)), asyncio.create_task(_pass(inner_reader, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, inner_writer):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    callers: set[asyncio.Task[None]] = set()

    def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = asyncio.create_task(let_in(reader, writer))
        callers.add(caller)
        caller.add_done_callback(callers.discard)

    proxy = await asyncio.start_server(keep, "127.0.0.1", 0, ssl=context)
    try:
        yield proxy.sockets[0].getsockname()[1]
    finally:
        proxy.close()
        await asyncio.gather(*callers)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
