"""An artifact: its id, the interface of a store of artifacts, and the store in a folder.

Only this module checks an id, before the id becomes a path. It never answers from memory for a deleted artifact.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import structlog

from gateway.ids import BODY, milliseconds_of, new_id, time_of
from gateway.pictures.picture import Format, Picture, sniff
from gateway.pictures.spool import CHUNK, Blob, StorageFullError, file_chunks, write_all

_log = structlog.get_logger(__name__)

_NAME = re.compile(rf"img_{BODY}\.(png|jpeg|webp)")


class ArtifactsUnavailable(StorageFullError):
    """The store fails, does not answer or rejects its credentials. It is handled like a full disk."""


class ArtifactsRefused(ArtifactsUnavailable):
    """The store rejects its credentials, which change only with a restart of the gateway."""

    is_lasting = True


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored picture. `size` is in bytes, `width` and `height` as displayed, `created` and `expires` unix seconds."""

    id: str
    format: Format
    width: int
    height: int
    size: int
    created: int
    expires: int


class Stored(NamedTuple):
    """A stored artifact: its size in bytes, and its bytes as a stream."""

    size: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of a store: it is writable, or `reason` has the fault. `free` is in bytes, None if unknown."""

    is_writable: bool
    free: int | None = None
    reason: str = ""


class ArtifactStore(Protocol):
    """A store of artifacts. Its methods `put`, `open`, `delete` and `sweep` may raise ArtifactsUnavailable."""

    def describe(self, picture: Picture) -> Artifact:
        """Make a new artifact for the picture. Stores nothing."""
        ...

    async def put(self, picture: Picture, artifact: Artifact | None = None) -> Artifact:
        """Store the picture, as `artifact` or else as a new one, and return the artifact. Raises StorageFullError.

        A reader sees the picture whole or not at all.
        """
        ...

    async def open(self, artifact_id: str) -> Stored | None:
        """Open a stored artifact. Returns None if it is not stored or its first bytes contradict its id's format."""
        ...

    async def delete(self, artifact_id: str) -> None:
        """Remove the artifact if it is stored."""
        ...

    async def sweep(self, now: float) -> int:
        """Remove the artifacts that have expired at `now` (unix seconds), and return their number."""
        ...

    async def check(self) -> Readiness: ...

    async def close(self) -> None: ...


def describe(picture: Picture, ttl_s: int) -> Artifact:
    """Make a new artifact for the picture, which expires after `ttl_s` seconds. Stores nothing."""
    # In milliseconds, as the id has it.
    now = time.time_ns() // 1_000_000
    created = now // 1000
    return Artifact(
        f"{new_id('img', at=now / 1000)}.{picture.format}",
        picture.format,
        picture.width,
        picture.height,
        picture.blob.size,
        created,
        created + ttl_s,
    )


def format_of(artifact_id: str) -> Format | None:
    """The format in an artifact's id; None for other text."""
    found = _NAME.fullmatch(artifact_id)
    if found is None:
        return None
    try:
        milliseconds_of(artifact_id)
    except ValueError:
        return None
    return cast(Format, found[1])


def matches(head: bytes, form: Format) -> bool:
    """True when a file that starts with `head` (12 bytes or more) claims the format."""
    return sniff(head) == form


def day_of(artifact_id: str) -> str:
    """The name of an artifact's folder: the day in its id, on which it was created, as `YYYY-MM-DD` in UTC."""
    return time_of(artifact_id).date().isoformat()


def day_end(folder: str) -> float | None:
    """The unix time at which the day of a folder ends in UTC; None for a name that is not a day."""
    try:
        day = date.fromisoformat(folder)
        following = day + timedelta(days=1)
    except (ValueError, OverflowError):
        return None
    if day.isoformat() != folder:
        return None
    return datetime(following.year, following.month, following.day, tzinfo=UTC).timestamp()


def is_expired(name: str, ttl_s: int, now: float) -> bool:
    """True for the id of an artifact that was created `ttl_s` seconds or more before `now`; False for other names."""
    return format_of(name) is not None and time_of(name).timestamp() + ttl_s <= now


async def remove_expired(store: ArtifactStore) -> None:
    """Remove the pictures that have expired by now, and log their number. Raises ArtifactsUnavailable."""
    if removed := await store.sweep(time.time()):
        _log.info("removed expired pictures", pictures=removed)


_NOT_LINKABLE = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HEAD = 12
"""Bytes of a file's start that show the format of a picture."""
_PIECE = 4 * 1024 * 1024
"""Bytes that are copied at a time."""

_LEFT_OVER_S = 3600
"""Seconds without a write after which an unfinished file counts as left by a dead process."""

RECENT_BYTES = 16 * 1024 * 1024
"""The most bytes of pictures that stay in memory for their first reader."""

_RECENT_S = 5.0
"""The most seconds for which they stay there."""


class _Recent:
    """The pictures that this process stored last, until their first reader is done. The oldest ones give way."""

    def __init__(self) -> None:
        self._pictures: dict[str, bytes] = {}
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def get(self, artifact_id: str) -> bytes | None:
        return self._pictures.get(artifact_id)

    def keep(self, artifact_id: str, data: bytes) -> None:
        if len(data) > RECENT_BYTES:
            return
        self._pictures[artifact_id] = data
        self._size += len(data)
        while self._size > RECENT_BYTES:
            self.drop(next(iter(self._pictures)))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_RECENT_S, self.clear)

    def drop(self, artifact_id: str) -> None:
        self._size -= len(self._pictures.pop(artifact_id, b""))

    def clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._pictures.clear()
        self._size, self._timer = 0, None


class LocalArtifacts:
    """Artifacts in `folder`, which replicas may share and which need not be on the spool's file system."""

    def __init__(self, folder: Path, ttl_s: int) -> None:
        self.folder = folder
        self._incoming = folder / "incoming"
        self._ttl_s = ttl_s
        self._recent = _Recent()

    def describe(self, picture: Picture) -> Artifact:
        return describe(picture, self._ttl_s)

    async def put(self, picture: Picture, artifact: Artifact | None = None) -> Artifact:
        artifact = artifact or self.describe(picture)
        try:
            await asyncio.to_thread(self._store, picture.blob, artifact.id)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise (StorageFullError if error.errno in _FULL else ArtifactsUnavailable)(reason) from error
        if picture.blob.data is not None and matches(picture.blob.data[:_HEAD], picture.format):
            self._recent.keep(artifact.id, picture.blob.data)
        return artifact

    async def open(self, artifact_id: str) -> Stored | None:
        if (data := self._recent.get(artifact_id)) is not None:
            return Stored(len(data), self._chunks(artifact_id, len(data)))
        form = format_of(artifact_id)
        if form is None:
            return None
        path = self.folder / day_of(artifact_id) / artifact_id
        try:
            size, start = await asyncio.to_thread(_look, path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtifactsUnavailable(os.strerror(error.errno or 0)) from error
        if not matches(start[:_HEAD], form):
            return None
        return Stored(size, _one_chunk(start) if len(start) == size else self._chunks(artifact_id, size))

    async def delete(self, artifact_id: str) -> None:
        if format_of(artifact_id) is None:
            return
        self._recent.drop(artifact_id)
        path = self.folder / day_of(artifact_id) / artifact_id
        try:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as error:
            raise ArtifactsUnavailable(os.strerror(error.errno or 0)) from error

    async def sweep(self, now: float) -> int:
        self._recent.clear()
        try:
            return await asyncio.to_thread(self._sweep, now)
        except OSError as error:
            raise ArtifactsUnavailable(os.strerror(error.errno or 0)) from error

    async def check(self) -> Readiness:
        try:
            return Readiness(True, await asyncio.to_thread(self._try_writing))
        except OSError as error:
            return Readiness(False, reason=os.strerror(error.errno or 0))

    async def close(self) -> None:
        """Drop the pictures in memory; no file stays open between calls."""
        self._recent.clear()

    async def _chunks(self, artifact_id: str, size: int) -> AsyncIterator[bytes]:
        """Yield the bytes of an artifact from memory while they are there, then from the file."""
        start = 0
        while start < size and (data := self._recent.get(artifact_id)) is not None:
            piece = data if size <= CHUNK else data[start : start + CHUNK]
            # A slow reader holds no more than the piece: the bytes may go meanwhile.
            del data
            yield piece
            start += len(piece)
        self._recent.drop(artifact_id)
        if start == size:
            return
        path = self.folder / day_of(artifact_id) / artifact_id
        try:
            async with contextlib.aclosing(file_chunks(path, start=start)) as rest:
                async for piece in rest:
                    yield piece
        except OSError as error:
            raise ArtifactsUnavailable(os.strerror(error.errno or 0)) from error

    def _store(self, blob: Blob, artifact_id: str) -> None:
        day = self.folder / day_of(artifact_id)
        final = day / artifact_id
        try:
            self._name(blob, final)
        except FileNotFoundError:
            # The first picture of a day, or of this store.
            self._incoming.mkdir(parents=True, exist_ok=True)
            day.mkdir(exist_ok=True)
            _sync_folder(self.folder)
            self._name(blob, final)
        _sync_folder(day)

    def _name(self, blob: Blob, final: Path) -> None:
        if blob.path is None or not _link(blob.path, final):
            self._copy(blob, final)

    def _copy(self, blob: Blob, final: Path) -> None:
        """Write a temporary file, then rename it: a process that dies leaves nothing under the final name."""
        aside = self._incoming / final.name
        try:
            # Each system call waits for other threads: no buffer, and a picture in memory in one piece.
            with blob.open() as source, aside.open("xb", buffering=0) as target:
                while piece := source.read(_PIECE):
                    write_all(target, [piece])
                os.fsync(target.fileno())
            aside.replace(final)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise

    def _sweep(self, now: float) -> int:
        count = 0
        for folder in _entries(self.folder):
            end = day_end(folder.name)
            if end is None or end - 86_400 + self._ttl_s > now:
                continue
            for file in _entries(folder):
                if is_expired(file.name, self._ttl_s, now):
                    file.unlink(missing_ok=True)
                    count += 1
            # Wait until every writer of that day is done: one may have made the folder and not used it yet.
            if end + self._ttl_s + _LEFT_OVER_S <= now:
                with contextlib.suppress(OSError):
                    folder.rmdir()
        for file in _entries(self._incoming):
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_mtime + _LEFT_OVER_S <= now:
                    file.unlink()
        return count

    def _try_writing(self) -> int:
        self._incoming.mkdir(parents=True, exist_ok=True)
        probe = self._incoming / new_id("check")
        probe.write_bytes(b"ok")
        probe.unlink()
        return shutil.disk_usage(self.folder).free


def _link(source: Path, final: Path) -> bool:
    """Flush the spool's file to disk and link it to its final name. Returns False if the file system has no links."""
    descriptor = os.open(source, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(source, final)
    except OSError as error:
        if error.errno in _NOT_LINKABLE:
            return False
        raise
    return True


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk, which makes a new name in it durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _look(path: Path) -> tuple[int, bytes]:
    """A file's size, and its first 12 bytes; all bytes of a file up to CHUNK, which then needs no second read."""
    # A buffer would cost more system calls than the file itself.
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return size, file.read(size if size <= CHUNK else _HEAD)


async def _one_chunk(data: bytes) -> AsyncIterator[bytes]:
    yield data
