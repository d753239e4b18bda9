"""A folder holds whole artifacts or none, whatever dies or fills up in between."""

import asyncio
import errno
import hashlib
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.artifacts.artifact import RECENT_BYTES, Artifact, ArtifactsUnavailable, LocalArtifacts, day_of
from gateway.ids import new_id
from gateway.pictures.picture import Picture
from gateway.pictures.spool import CHUNK, Blob, MemoryBudget, Spool, StorageFullError
from tests.support.made_pictures import encoded, picture
from tests.support.processes import until

WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.artifacts.artifact import LocalArtifacts
from gateway.pictures.picture import Picture
from gateway.pictures.spool import Blob

async def main():
    store = LocalArtifacts(Path(sys.argv[1]), 60)
    data = bytes.fromhex("89504e470d0a1a0a") + b"x" * 8_000_000
    blob = Blob(len(data), data=data)
    print("ready", flush=True)
    while True:
        await store.put(Picture(blob, "png", 1, 1, 1, False))

asyncio.run(main())
"""


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_file_is_linked_not_copied(tmp_path, image):
    """A picture that is a file on the same filesystem becomes an artifact without its bytes being copied."""
    artifact = await LocalArtifacts(tmp_path / "a", 60).put(image)
    stored = tmp_path / "a" / day_of(artifact.id) / artifact.id
    assert (image.blob.path is not None and stored.samefile(image.blob.path)) is (image.blob.path is not None)


async def test_other_filesystem_is_copied(tmp_path, image, monkeypatch):
    """Where the spool is on another filesystem the bytes are copied, and nothing is left beside them."""

    def link(source, target):
        raise OSError(errno.EXDEV, "another filesystem")

    monkeypatch.setattr(os, "link", link)
    store = LocalArtifacts(tmp_path / "a", 60)
    artifact = await store.put(image)
    assert [path.name for path in files(tmp_path / "a")] == [artifact.id]


async def test_failed_write_leaves_nothing(tmp_path):
    """A picture that does not fit on the disk leaves no artifact and no part of one."""
    spool = Spool(tmp_path / "spool", MemoryBudget(1 << 20), keep=1 << 20)
    big = Picture(await spool.blob(b"x" * 500_000), "png", 1, 1, 1, False)
    store = LocalArtifacts(tmp_path / "a", 60)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageFullError):
            await store.put(big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path / "a") == []
    await spool.close()


@pytest.mark.slow
def test_killed_writer_leaves_whole_artifacts(tmp_path):
    """A process killed while it stores leaves only whole artifacts under their names."""
    whole = hashlib.sha256(bytes.fromhex("89504e470d0a1a0a") + b"x" * 8_000_000).hexdigest()
    chance = random.Random(3)
    seen = 0
    for number in range(4):
        folder = tmp_path / str(number)
        with subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"ready\n"
            # Killed after so many bytes, wherever in a picture that is; the first writer has stored one by then.
            last = 10_000_000 if number == 0 else chance.randrange(20_000_000)
            until(lambda folder=folder, last=last: sum(path.stat().st_size for path in files(folder)) > last)
            writer.kill()
        for path in files(folder):
            if path.parent.name != "incoming":
                seen += 1
                assert hashlib.sha256(path.read_bytes()).hexdigest() == whole
    assert seen


async def test_sweep_clears_abandoned_writes(tmp_path):
    """A part of a file that a dead process left is removed after an hour, a newer one is not."""
    store = LocalArtifacts(tmp_path, 60)
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    now = time.time()
    for name, age in (("old", 4000), ("new", 10)):
        (incoming / name).write_bytes(b"part")
        os.utime(incoming / name, (now - age, now - age))
    assert await store.sweep(now) == 0
    assert [path.name for path in incoming.iterdir()] == ["new"]


async def test_sweep_removes_empty_days(tmp_path, image):
    """A past day's folder goes with its last artifact, and files that are not ours stay."""
    store = LocalArtifacts(tmp_path, 60)
    artifact = await store.put(image)
    old = new_id("img", at=86_400) + ".png"
    for day in ("1970-01-02", "1970-01-03", "notes"):
        (tmp_path / day).mkdir()
    (tmp_path / "1970-01-02" / old).write_bytes(b"x")
    (tmp_path / "1970-01-03" / "README").write_bytes(b"x")
    (tmp_path / "notes" / old).write_bytes(b"x")
    assert await store.sweep(artifact.created) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("spool", "incoming")) == [
        "1970-01-03",
        day_of(artifact.id),
        "notes",
    ]
    assert await store.open(artifact.id) is not None


async def test_unread_artifact_holds_no_file(tmp_path, image):
    """An artifact opened and never read keeps no file open."""
    store = LocalArtifacts(tmp_path, 60)
    artifact = await store.put(image)
    for _ in range(20):
        assert await store.open(artifact.id) is not None
    # Of this folder: other tests' servers in this process open files meanwhile.
    assert not [path for path in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(path)]


async def test_picture_lost_while_it_is_read(tmp_path, picture_converter, spool):
    """A picture that disappears between the open and the first read is reported as the storage's failure."""
    store = LocalArtifacts(tmp_path, 3600)
    large = await spool.blob(encoded(picture(), "png") + bytes(CHUNK))
    artifact = await store.put(await picture_converter.probe(large))
    stored = await store.open(artifact.id)
    await store.delete(artifact.id)
    with pytest.raises(ArtifactsUnavailable):
        await anext(aiter(stored.chunks))


async def test_folder_that_is_a_file(tmp_path, image):
    """A folder that cannot be one is reported as unavailable, and as not ready."""
    (tmp_path / "blocked").write_bytes(b"")
    store = LocalArtifacts(tmp_path / "blocked", 60)
    with pytest.raises(ArtifactsUnavailable):
        await store.put(image)
    assert not (await store.check()).is_writable


async def test_many_puts_at_once(tmp_path, image):
    """Pictures stored at the same moment each get an artifact of their own."""
    store = LocalArtifacts(tmp_path / "a", 60)
    artifacts = await asyncio.gather(*(store.put(image) for _ in range(30)))
    assert len({artifact.id for artifact in artifacts}) == len(files(tmp_path / "a")) == 30


def in_memory(size: int) -> Picture:
    data = bytes.fromhex("89504e470d0a1a0a") + os.urandom(size - 8)
    return Picture(Blob(size, data=data), "png", 1, 1, 1, False)


def put_aside(store: LocalArtifacts, artifact: Artifact) -> Path:
    """Move an artifact's file away, so that only memory can have its bytes."""
    path = store.folder / day_of(artifact.id) / artifact.id
    return path.rename(path.with_suffix(".aside"))


async def read(store: LocalArtifacts, artifact: Artifact) -> bytes | None:
    stored = await store.open(artifact.id)
    return None if stored is None else b"".join([piece async for piece in stored.chunks])


@pytest.mark.parametrize("size", [1000, CHUNK, 3 * CHUNK + 5])
async def test_first_reader_needs_no_disk(tmp_path, size):
    """The first reader of a picture that was just stored gets it from memory, a later one from the disk."""
    store, image = LocalArtifacts(tmp_path, 3600), in_memory(size)
    artifact = await store.put(image)
    aside = put_aside(store, artifact)
    assert await read(store, artifact) == image.blob.data
    assert await read(store, artifact) is None
    aside.rename(aside.with_suffix(".png"))
    assert await read(store, artifact) == image.blob.data


async def test_pictures_in_memory_are_bounded(tmp_path):
    """The oldest pictures leave the memory for newer ones, and one larger than all its room never enters it."""
    store, half = LocalArtifacts(tmp_path, 3600), RECENT_BYTES // 2
    artifacts = [await store.put(in_memory(size)) for size in (half, half, 1000, RECENT_BYTES + 1)]
    for artifact in artifacts:
        put_aside(store, artifact)
    assert [await store.open(artifact.id) is not None for artifact in artifacts] == [False, True, True, False]


async def test_pictures_leave_memory_in_time(tmp_path, monkeypatch):
    """A picture that nobody reads leaves the memory by itself, and is read from the disk then."""
    monkeypatch.setattr("gateway.artifacts.artifact._RECENT_S", 0.01)
    store, image = LocalArtifacts(tmp_path, 3600), in_memory(1000)
    artifact = await store.put(image)
    aside = put_aside(store, artifact)
    while await store.open(artifact.id) is not None:
        await asyncio.sleep(0.005)
    aside.rename(aside.with_suffix(".png"))
    assert await read(store, artifact) == image.blob.data


async def test_slow_reader_holds_no_picture(tmp_path):
    """A picture that leaves the memory while it is read comes on from the disk, from the same byte."""
    store, image = LocalArtifacts(tmp_path, 3600), in_memory(3 * CHUNK + 5)
    artifact = await store.put(image)
    stored = await store.open(artifact.id)
    first = await anext(aiter(stored.chunks))
    await store.put(in_memory(RECENT_BYTES))
    assert first + b"".join([piece async for piece in stored.chunks]) == image.blob.data
