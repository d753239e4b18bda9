"""Temporary bytes: in memory while they are small, on disk above it, gone when their spool closes."""

import asyncio
import contextlib
import hashlib
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pictures import spool as spools
from gateway.pictures.spool import CHUNK, PAID_KEEP, Blob, MemoryBudget, Spool, StorageFullError, file_chunks

KEEP = 1000


def spool(folder: Path, memory: int = 10_000) -> Spool:
    return Spool(folder / "spool", MemoryBudget(memory), KEEP)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("size", "in_memory"), [(0, True), (1, True), (KEEP, True), (KEEP + 1, False), (2**20, False)])
async def test_small_blobs_stay_in_memory(tmp_path: Path, size: int, in_memory: bool) -> None:
    """Up to the threshold bytes are kept in memory and counted; above it they are a file."""
    one, data = spool(tmp_path), os.urandom(size)
    blob = await one.blob(data)
    assert (blob.size, blob.digest()) == (size, hashlib.sha256(data).hexdigest())
    assert (blob.path is None, len(files(tmp_path))) == (in_memory, 0 if in_memory else 1)
    assert one.memory.used == (size if in_memory else 0)
    assert await blob.read() == data
    assert b"".join([piece async for piece in blob.chunks(300)]) == data
    with blob.open() as reader:
        assert reader.read() == data
    assert ("memory" if in_memory else "file") in repr(blob)


class Counting(ThreadPoolExecutor):
    """Threads that count what they are asked."""

    asked = 0

    def submit(self, *args, **kwargs):
        self.asked += 1
        return super().submit(*args, **kwargs)


def knows_what_it_has(path: Path) -> bool:
    """Whether the filesystem can tell without a wait what of a file is in memory."""
    with path.open("rb") as file, contextlib.suppress(OSError, AttributeError):
        return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
    return False


@pytest.mark.parametrize("size", [0, 1, KEEP, KEEP + 1, 3 * KEEP, 10 * KEEP + 7])
async def test_file_in_memory_needs_one_thread(tmp_path: Path, size: int) -> None:
    """A file that was just written is read on without a hand-over to a thread for each piece."""
    path, data = tmp_path / "file", os.urandom(size)
    path.write_bytes(data)
    with Counting(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        assert b"".join([piece async for piece in file_chunks(path, KEEP)]) == data
    assert threads.asked == 1 or not knows_what_it_has(path)


def give_part(descriptor: int, buffers: Sequence[memoryview], at: int, flags: int) -> int:
    """A kernel that has all but the last byte in memory."""
    return len(os.pread(descriptor, len(buffers[0]) - 1, at))


def give_nothing(*_: object) -> int:
    """A kernel that would have to fetch it."""
    raise BlockingIOError


@pytest.mark.parametrize("kernel", [give_part, give_nothing, None], ids=["a part", "nothing", "no such question"])
async def test_file_on_disk_is_read_in_threads(tmp_path: Path, monkeypatch, kernel) -> None:
    """What the kernel does not have in memory, or where it cannot say so, is fetched by threads, and all of it."""
    path, data = tmp_path / "file", os.urandom(5 * KEEP + 7)
    path.write_bytes(data)
    if kernel is None:
        monkeypatch.setattr(spools, "_NOWAIT", None)
    else:
        # No test can tell a kernel what to forget: it reads ahead as it likes.
        monkeypatch.setattr(os, "preadv", kernel)
    with Counting(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        assert b"".join([piece async for piece in file_chunks(path, KEEP)]) == data
    assert threads.asked == 6


async def test_temporary_files_are_private(tmp_path: Path) -> None:
    """Nobody else on the machine reads what is on its way through."""
    await spool(tmp_path).blob(b"x" * 5000)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


async def test_full_budget_sends_bytes_to_disk(tmp_path: Path) -> None:
    """When the memory that all share is taken, even small bytes are a file."""
    one = spool(tmp_path, memory=1500)
    first, second, third = [await one.blob(b"x" * size) for size in (1000, 501, 500)]
    assert [blob.path is None for blob in (first, second, third)] == [True, False, True]
    assert one.memory.used == 1500
    assert await second.read() == b"x" * 501


@settings(max_examples=25, deadline=None)
@given(pieces=st.lists(st.binary(max_size=3 * KEEP), max_size=6))
async def test_pieces_come_back_whole(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    """However bytes are cut, the blob is their sum, and its head their first 64."""
    one = spool(tmp_path_factory.mktemp("s"))
    writer = one.writer()
    for piece in pieces:
        await writer.write(piece)
    blob, data = await writer.finish(), b"".join(pieces)
    assert await blob.read() == data
    assert (blob.digest(), blob.size, writer.size) == (hashlib.sha256(data).hexdigest(), len(data), len(data))
    assert writer.head == data[:64]
    await one.close()


async def test_close_leaves_nothing(tmp_path: Path) -> None:
    """Closing removes the files and gives the memory back, once."""
    one, other = spool(tmp_path), MemoryBudget(100)
    await one.blob(b"x" * 500)
    await one.blob(b"x" * 5000)
    unfinished = one.writer()
    await unfinished.write(b"x" * 5000)
    assert one.claim(other, 60)
    await one.close()
    await one.close()
    await unfinished.abort()
    assert (one.memory.used, other.used, one.is_closed) == (0, 0, True)
    assert list((tmp_path / "spool").iterdir()) == []


async def test_nothing_enters_a_closed_spool(tmp_path: Path) -> None:
    """After closing there is nobody left to give memory back or to remove a file."""
    one = spool(tmp_path)
    small, large = one.writer(), one.writer()
    await small.write(b"x")
    await one.close()
    with pytest.raises(RuntimeError, match="closed"):
        await small.finish()
    with pytest.raises(RuntimeError, match="closed"):
        await large.write(b"x" * 5000)
    with pytest.raises(RuntimeError, match="closed"):
        one.new_path()
    assert one.memory.used == 0


async def test_aborted_writer_leaves_no_file(tmp_path: Path) -> None:
    """What arrived half is dropped while its spool goes on."""
    one = spool(tmp_path)
    for size in (10, 5000):
        writer = one.writer()
        await writer.write(b"x" * size)
        await writer.abort()
    assert files(tmp_path) == []
    assert await (await one.blob(b"y" * 5000)).read() == b"y" * 5000


async def test_adopted_file_is_described(tmp_path: Path) -> None:
    """A file that other code wrote is a blob like any other, and goes with the spool."""
    one = spool(tmp_path)
    first, second = one.new_path(), one.new_path()
    assert first != second
    first.write_bytes(b"made elsewhere")
    assert await one.adopt(first) == Blob(14, path=first)
    await one.close()
    assert not first.exists()


async def test_spools_do_not_meet(tmp_path: Path) -> None:
    """Two spools in one folder close without touching each other's files."""
    one, two = spool(tmp_path), spool(tmp_path)
    kept = await two.blob(b"x" * 5000)
    await one.blob(b"y" * 5000)
    await one.close()
    assert await kept.read() == b"x" * 5000


def test_budget_counts_exactly() -> None:
    """A budget hands out its limit and no byte more, and takes nothing when it refuses."""
    budget = MemoryBudget(10)
    assert budget.take(4)
    assert budget.take(6)
    assert not budget.take(1)
    assert budget.take(0)
    budget.give(6)
    assert not budget.take(7)
    assert budget.used == 4


async def test_refused_claim_is_not_given_back(tmp_path: Path) -> None:
    """A claim that failed has taken nothing, so closing gives nothing for it."""
    one, budget = spool(tmp_path), MemoryBudget(10)
    assert one.claim(budget, 8)
    assert not one.claim(budget, 3)
    await one.close()
    assert budget.used == 0


async def test_unusable_folder_is_a_full_storage(tmp_path: Path) -> None:
    """A disk that refuses even the folder is the same condition as one that refuses bytes."""
    (tmp_path / "spool").write_text("a file stands where the folder should be")
    with pytest.raises(StorageFullError, match="File exists"):
        await spool(tmp_path).blob(b"x" * 5000)


FULL = """
import asyncio, pathlib, resource, signal, sys
from gateway.pictures.spool import MemoryBudget, Spool, StorageFullError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

async def main():
    folder = pathlib.Path(sys.argv[1])
    spool = Spool(folder, MemoryBudget(0), 100)
    writer = spool.writer()
    try:
        for _ in range(int(sys.argv[3])):
            await writer.write(b"x" * int(sys.argv[2]))
        await writer.finish()
    except StorageFullError as error:
        print(error)
    await writer.abort()
    await spool.close()
    print(list(folder.iterdir()))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("size", "times"),
    [
        pytest.param(50_000, 1, id="while writing"),
        pytest.param(600_000, 2, id="in a later piece"),
        pytest.param(101, 100, id="when the last buffer is written"),
    ],
)
def test_full_disk_is_told_and_cleaned(tmp_path: Path, size: int, times: int) -> None:
    """A disk that takes no more ends in one known error, whenever it shows, and leaves no file."""
    script = textwrap.dedent(FULL)
    command = [sys.executable, "-c", script, str(tmp_path / "spool"), str(size), str(times)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["File too large", "[]"]


@pytest.mark.parametrize("pieces", [[b"a" * 2_000_000], [b"a" * 1000, b"b" * 1_500_000, b"c" * 1_500_000]])
async def test_paid_bytes_wait_for_space(tmp_path: Path, pieces: list[bytes]) -> None:
    """Bytes of a paid picture wait until the disk takes them, and are whole; others are refused at once."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    patient, hasty = (Spool(tmp_path, MemoryBudget(0)) for _ in range(2))
    patient.patience_s = 60

    async def store(spool: Spool) -> Blob:
        writer = spool.writer()
        try:
            for piece in pieces:
                await writer.write(piece)
            return await writer.finish()
        except StorageFullError:
            await writer.abort()
            raise

    # Beyond its limit a write takes a part and then fails, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, before[1]))
    try:
        waiting = asyncio.create_task(store(patient))
        with pytest.raises(StorageFullError):
            await store(hasty)
        assert not waiting.done()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    blob = await waiting
    assert blob.path is not None
    assert blob.path.read_bytes() == b"".join(pieces)
    await asyncio.gather(patient.close(), hasty.close())


async def test_paid_pictures_stay_in_memory_within_the_budget(tmp_path: Path) -> None:
    """A paid picture of megabytes stays in memory while the budget has room for it, and goes to disk above that."""
    memory = MemoryBudget(PAID_KEEP + CHUNK)
    one = Spool(tmp_path / "spool", memory)
    one.expect_paid()
    data = os.urandom(PAID_KEEP)
    first = one.writer()
    for start in range(0, len(data), CHUNK):
        await first.write(data[start : start + CHUNK])
        assert memory.used >= first.size - CHUNK
    kept = await first.finish()
    assert kept.data == data
    assert memory.used == PAID_KEEP
    second = await one.blob(data)
    assert second.path is not None
    assert await second.read() == data
    assert memory.used == PAID_KEEP
    await one.close()
    assert memory.used == 0


async def test_larger_paid_picture_gives_its_memory_back(tmp_path: Path) -> None:
    """A picture that outgrows its limit goes to disk whole, and one that breaks off holds nothing."""
    memory = MemoryBudget(1 << 30)
    one = Spool(tmp_path / "spool", memory)
    one.expect_paid()
    writers = [one.writer(), one.writer()]
    piece = os.urandom(CHUNK)
    for _ in range(5):
        for writer in writers:
            await writer.write(piece)
    assert memory.used > 0
    await writers[0].abort()
    for _ in range(PAID_KEEP // CHUNK):
        await writers[1].write(piece)
    assert memory.used == 0
    blob = await writers[1].finish()
    assert await blob.read() == piece * (5 + PAID_KEEP // CHUNK)
    await one.close()
