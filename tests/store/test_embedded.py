"""The embedded server: found, started with every write on disk first, and told apart from one that cannot start."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from gateway.process.children import stop
from gateway.process.data_folder import DataFolder, FolderInUse, ServerRecord
from gateway.store import embedded
from gateway.store.client import connect
from tests.support.processes import is_alive, until


async def test_writes_survive_a_kill(tmp_path: Path) -> None:
    """What was answered is on disk: a kill -9 loses none of it."""
    folder = DataFolder(tmp_path)
    with folder.locked() as lock:
        server = embedded.EmbeddedServer(folder, lock)
        process = await server.start()
        client = connect(server.url)
        for number in range(50):
            await client.set(f"n{number}", number)
        process.kill()
        process.wait()
        process = await server.start()
        assert await client.dbsize() == 50
        await client.aclose()
        server.close(process)
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "valkey", "valkey.log"}


async def test_server_opens_no_port(tmp_path: Path) -> None:
    """The server answers on its socket alone, which only its own user may use."""
    folder = DataFolder(tmp_path)
    with folder.locked() as lock:
        server = embedded.EmbeddedServer(folder, lock)
        process = await server.start()
        client = connect(server.url)
        config = await client.config_get("port", "appendfsync", "appendonly", "save", "maxmemory-policy")
        assert config == {
            "port": "0",
            "appendfsync": "always",
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        assert server.socket.stat().st_mode & 0o777 == 0o700
        await client.aclose()
        server.close(process)


async def test_lock_lives_with_server(tmp_path: Path) -> None:
    """The folder's lock is held until the server is dead, though its starter let go of it."""
    folder = DataFolder(tmp_path)
    with folder.locked() as lock:
        server = embedded.EmbeddedServer(folder, lock)
        process = await server.start()
    with pytest.raises(FolderInUse, match=f"kill {process.pid}"), folder.locked(wait_s=0.1):
        pass
    server.close(process)
    with folder.locked(wait_s=0.1):
        pass


async def test_broken_log_is_explained(tmp_path: Path) -> None:
    """A server that cannot read its files ends in a message with its own last words."""
    (tmp_path / "valkey" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "valkey" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    folder = DataFolder(tmp_path)
    with folder.locked() as lock, pytest.raises(embedded.ServerFailed, match=r"ended at its start.*manifest"):
        await embedded.EmbeddedServer(folder, lock).start()


async def test_no_advice_to_cut_the_ledger(tmp_path: Path) -> None:
    """A store that cannot be read is explained without the server's advice to cut it."""
    folder = DataFolder(tmp_path)
    with folder.locked() as lock:
        server = embedded.EmbeddedServer(folder, lock)
        server.close(await server.start())
        (log,) = (tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof")
        log.write_bytes(b"*1\r\n$4\r\nPING\r\nnonsense\r\n" * 3)
        with pytest.raises(embedded.ServerFailed, match=r"Bad file format.*Restore a backup") as refusal:
            await server.start()
    assert "--fix" not in str(refusal.value)
    assert "check-aof" not in str(refusal.value)


async def test_stale_private_socket_is_removed(tmp_path: Path) -> None:
    """A socket folder that a killed gateway left behind is removed at the next start."""
    folder = DataFolder(tmp_path / ("d" * 100))
    with folder.locked() as lock:
        left = embedded.EmbeddedServer(folder, lock).socket
        folder.record_server(ServerRecord(1, left))
        fresh = embedded.EmbeddedServer(folder, lock)
        assert fresh.socket != left
        assert not left.parent.exists()
        fresh.close(None)
        assert not fresh.socket.parent.exists()


def test_child_dies_with_parent(tmp_path: Path) -> None:
    """A server ends when the process that started it is killed, whatever the reason."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        # Only the child runs this; it may never return into pytest.
        with contextlib.suppress(BaseException):
            process = embedded.launch(tmp_path, tmp_path / "s")
            asyncio.run(embedded.wait_ready(process, tmp_path / "s"))
            os.write(writer, str(process.pid).encode())
            signal.pause()
        os._exit(1)
    os.close(writer)
    server = int(os.read(reader, 32))
    os.close(reader)
    assert is_alive(server)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    until(lambda: not is_alive(server))


def test_stop_needs_no_answer(tmp_path: Path) -> None:
    """A server that hears no SIGTERM is killed after its time."""
    process = embedded.launch(tmp_path, tmp_path / "s")
    # Until it has a handler of its own SIGTERM ends it even when stopped.
    until(lambda: embedded.ask(tmp_path / "s", b"PING\r\n"))
    process.send_signal(signal.SIGSTOP)
    stop(process, 0.1)
    assert process.returncode == -signal.SIGKILL
