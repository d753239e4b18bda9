"""The spool: temporary bytes of uploads, upstream answers and downloads, until their Spool closes.

Small blobs stay in memory while the budget allows it; others go into temporary files. This module never interprets
the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import itertools
import os
import shutil
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

CHUNK = 192 * 1024
"""Bytes of one chunk: three times a power of two, so that base64 carries no byte over to the next chunk."""

_FLUSH = 1024 * 1024
"""Bytes that a writer collects for each write but its first: for fewer a thread costs more than the write."""

_CRUMB = 4096

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
"""Linux's flag (preadv(2)) for a read that fails instead of waiting for the disk; None on other systems."""

_names = itertools.count(1)
"""The numbers that name temporary files: all spools of a process share one folder."""


PAID_PATIENCE_S = 600.0
"""The most seconds that a paid picture waits for space on the disk."""

PAID_KEEP = 2 * 1024 * 1024
"""The most bytes of a paid picture in memory: most have fewer, and are stored and answered milliseconds later."""

SPACE_PAUSE_S = 0.5
"""Seconds between two attempts to store something."""

Stored = TypeVar("Stored")


class StorageFullError(Exception):
    """Bytes cannot be stored: a disk is full or fails, or the picture storage is unavailable."""

    is_lasting = False
    """True for an error that another attempt would not end."""


class MemoryBudget:
    """A limit on bytes that all spools of a process share: bytes in memory, or bytes of running requests' bodies."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """Reserve `size` bytes and return True. If they are not free, reserve nothing and return False."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        self.used -= size


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that never change, in memory (`data`) or in a file (`path`). Their Spool removes the file as it closes."""

    size: int
    data: bytes | None = None
    path: Path | None = None

    def __repr__(self) -> str:
        return f"Blob({self.size} bytes, {'memory' if self.path is None else 'file'})"

    def digest(self) -> str:
        """The SHA-256 of the bytes, in hex. Blocks while it reads a file: call it in a thread if `path` is set."""
        if self.path is None:
            return hashlib.sha256(self.data or b"").hexdigest()
        found, buffer = hashlib.sha256(), bytearray(min(self.size, _FLUSH))
        with self.path.open("rb", buffering=0) as file, memoryview(buffer) as view:
            while count := file.readinto(buffer):
                found.update(view[:count])
        return found.hexdigest()

    def open(self) -> BinaryIO:
        """Open a seekable binary reader, for blocking code in a thread. The caller closes it."""
        if self.path is not None:
            return self.path.open("rb")
        return io.BytesIO(self.data or b"")

    async def chunks(self, size: int = CHUNK) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from first to last, at most `size` at a time."""
        if self.path is None:
            view = self.data or b""
            for start in range(0, len(view), size):
                yield view[start : start + size]
            return
        async with contextlib.aclosing(file_chunks(self.path, size)) as pieces:
            async for piece in pieces:
                yield piece

    async def read(self) -> bytes:
        """Return all bytes at once: for small blobs only."""
        if self.path is None:
            return self.data or b""
        return await asyncio.to_thread(self.path.read_bytes)


async def file_chunks(path: Path, size: int = CHUNK, start: int = 0) -> AsyncGenerator[bytes, None]:
    """Yield a file's bytes from `start` to the last, at most `size` at a time. Opens it only at the first chunk."""
    opening = asyncio.ensure_future(asyncio.to_thread(_open_and_read, path, size, start))
    try:
        file, piece = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread goes on and opens the file: close it then.
        opening.add_done_callback(_close_opened)
        raise
    with file:
        end, at = os.fstat(file.fileno()).st_size, start
        buffer = bytearray(min(size, max(0, end - at - len(piece))))
        while piece:
            yield piece
            at += len(piece)
            # Only at its end does a file give less than requested, so there is no read of the end itself.
            piece = b"" if at >= end else await _read_on(file.fileno(), buffer, at, min(size, end - at))


async def _read_on(descriptor: int, buffer: bytearray, at: int, size: int) -> bytes:
    """Read `size` bytes of a file from the offset `at`, in a thread unless the page cache is known to hold them."""
    if _NOWAIT is not None:
        # A thread costs as much as copying a hundred kilobytes.
        with contextlib.suppress(OSError), memoryview(buffer)[:size] as view:
            if os.preadv(descriptor, [view], at, _NOWAIT) == size:
                return bytes(view)
    return await asyncio.to_thread(os.pread, descriptor, size, at)


def _open_and_read(path: Path, size: int, start: int) -> tuple[BinaryIO, bytes]:
    # One use of a thread costs as much as reading a hundred kilobytes.
    file = path.open("rb", buffering=0)
    try:
        file.seek(start)
        return file, file.read(size)
    except OSError:
        file.close()
        raise


def _close_opened(opening: asyncio.Future[tuple[BinaryIO, bytes]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


class Spool:
    """The temporary bytes of one request. `close` removes their files and releases their memory.

    `keep` is the largest blob that stays in memory, in bytes, and `memory` the budget of all spools.
    """

    def __init__(self, folder: Path, memory: MemoryBudget, keep: int = CHUNK) -> None:
        self._folder = folder
        self._paths: list[Path] = []
        self.memory = memory
        self.keep = keep
        self.is_closed = False
        self.is_kept = False
        """True when the task's work closes this spool, and the request does not."""
        self.patience_s = 0.0
        """The most seconds that bytes wait for space on the disk: above 0 for paid pictures alone."""
        self._claims: list[tuple[MemoryBudget, int]] = []
        self._held = 0

    def expect_paid(self) -> None:
        """From now on wait for space on the disk, and keep larger pictures in memory: paid ones come."""
        self.patience_s, self.keep = PAID_PATIENCE_S, max(self.keep, PAID_KEEP)

    def claim(self, budget: MemoryBudget, size: int) -> bool:
        """Take `size` bytes of a budget until this spool closes. If they are not free, take none and return False."""
        if self.is_closed:
            raise RuntimeError("this spool is closed")
        if not budget.take(size):
            return False
        self._claims.append((budget, size))
        return True

    async def await_space(self, store: Callable[[], Awaitable[Stored]]) -> Stored:
        """Call `store` and return its result. After a StorageFullError, pause and call it again.

        Raises the StorageFullError after `patience_s` seconds, and at once if its `is_lasting` is True.
        """
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return await store()
            except StorageFullError as error:
                if error.is_lasting or time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(SPACE_PAUSE_S)

    def new_path(self) -> Path:
        """Return a path for a new temporary file, which is removed when this spool closes.

        Creates the folder, but not the file. Raises OSError, and RuntimeError on a closed spool.
        """
        if self.is_closed:
            raise RuntimeError("this spool is closed")
        if not self._paths:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._paths.append(self._folder / str(next(_names)))
        return self._paths[-1]

    def writer(self) -> BlobWriter:
        return BlobWriter(self)

    def hold(self, size: int) -> bool:
        """Take `size` bytes of the memory budget until this spool closes; return False if they are not free."""
        if self.is_closed:
            raise RuntimeError("this spool is closed")
        if not self.memory.take(size):
            return False
        self._held += size
        return True

    def free(self, size: int) -> None:
        """Give back `size` bytes that `hold` took."""
        if not self.is_closed:
            self.memory.give(size)
            self._held -= size

    async def blob(self, data: bytes) -> Blob:
        """Store these bytes, in memory or in a temporary file, and return their blob. Raises StorageFullError."""
        if len(data) <= self.keep and self.hold(len(data)):
            return Blob(len(data), data=data)
        writer = self.writer()
        await writer.write(data)
        return await writer.finish()

    async def adopt(self, path: Path) -> Blob:
        """Return the blob of a file that was written at a path from `new_path`."""
        return Blob((await asyncio.to_thread(path.stat)).st_size, path=path)

    async def close(self) -> None:
        """Remove every temporary file, and release all claimed bytes of budgets. A second call does nothing."""
        if self.is_closed:
            return
        self.is_closed = True
        for budget, size in self._claims:
            budget.give(size)
        self._claims.clear()
        self.memory.give(self._held)
        if self._paths:
            await asyncio.to_thread(_remove, self._paths)


class BlobWriter:
    """Writes bytes that arrive in pieces into one Blob. `size` counts them; `head` has the first 64.

    Above CHUNK it collects bytes only if the memory budget has them free.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._held = 0
        self._pieces: list[bytes] = []
        self._waiting = 0
        # Tiny pieces are joined first: single objects would cost 30 times their bytes.
        self._crumbs = bytearray()
        self._file: io.FileIO | None = None
        self._path: Path | None = None
        self.size = 0
        self.head = b""

    async def write(self, data: bytes) -> None:
        """Append bytes, which may go to a file. Raises StorageFullError if the file cannot be written."""
        if len(self.head) < 64:
            self.head += bytes(data[: 64 - len(self.head)])
        if len(data) < _CRUMB:
            self._crumbs += data
        if len(data) >= _CRUMB or len(self._crumbs) >= _CRUMB:
            self._discard_file()
        if len(data) >= _CRUMB:
            self._pieces.append(data)
        self._waiting += len(data)
        self.size += len(data)
        if self._waiting >= _FLUSH if self._file is not None else not self._may_keep():
            await self._flush()

    def _may_keep(self) -> bool:
        """True while all bytes so far may stay in memory."""
        most = self._spool.keep
        if self.size > most:
            return False
        if self.size > max(CHUNK, self._held):
            step = min(self.size + _FLUSH, most) - self._held
            if not self._spool.hold(step):
                return False
            self._held += step
        return True

    async def finish(self) -> Blob:
        """Close the writer and return its Blob. Raises StorageFullError if a file cannot be written."""
        if self._file is None and (self.size <= self._held or self._spool.hold(self.size - self._held)):
            self._spool.free(max(0, self._held - self.size))
            self._held = 0
            self._discard_file()
            return Blob(self.size, data=b"".join(self._pieces))
        await self._flush(is_last=True)
        return Blob(self.size, path=self._path)

    async def abort(self) -> None:
        """Discard the bytes written so far, and remove the file."""
        self._pieces.clear()
        self._crumbs.clear()
        self._give_back()
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    async def _flush(self, *, is_last: bool = False) -> None:
        self._discard_file()
        pieces = self._pieces
        self._pieces = []
        self._waiting = 0
        await self._spool.await_space(lambda: self._write_file(pieces, is_last))
        self._give_back()

    def _give_back(self) -> None:
        self._spool.free(self._held)
        self._held = 0

    async def _write_file(self, pieces: list[bytes], is_last: bool) -> None:
        try:
            if self._path is None:
                self._path = self._spool.new_path()
            await asyncio.to_thread(self._put, pieces, is_last)
        except OSError as error:
            raise StorageFullError(os.strerror(error.errno or 0)) from error

    def _discard_file(self) -> None:
        if self._crumbs:
            self._pieces.append(bytes(self._crumbs))
            self._crumbs.clear()

    def _put(self, pieces: list[bytes], is_last: bool) -> None:
        assert self._path is not None
        if self._file is None:
            self._file = self._path.open("xb", buffering=0)
        start = self._file.tell()
        try:
            write_all(self._file, pieces)
        except OSError:
            # Another attempt writes all pieces again.
            self._file.seek(start)
            self._file.truncate()
            raise
        if is_last:
            self._file.close()


def write_all(file: io.FileIO, pieces: Sequence[bytes]) -> None:
    """Write all bytes of the pieces to a file without a buffer. Blocks. Raises OSError."""
    if not pieces:
        return
    # One call for all: each call releases the interpreter lock and waits for it again.
    written = os.writev(file.fileno(), pieces)
    rest = memoryview(b"".join(pieces))[written:] if written < sum(map(len, pieces)) else b""
    while rest:
        rest = rest[file.write(rest) :]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def clear_spools(own: Path) -> None:
    """Remove the folder `own`, and each folder beside it whose name is no running process's id. Blocks."""
    if not own.parent.is_dir():
        return
    for folder in own.parent.iterdir():
        is_gone = folder == own or not Path("/proc", folder.name).exists()
        if is_gone:
            shutil.rmtree(folder, ignore_errors=True)
