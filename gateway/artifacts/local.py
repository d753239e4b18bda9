"""Artifacts in a folder: `YYYY-MM-DD/<id>`. A file gets its name only when all its bytes are on disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.artifacts.artifact import (
    Artifact,
    ArtifactsUnavailable,
    Readiness,
    Stored,
    day_end,
    day_of,
    describe,
    format_of,
    is_expired,
    matches,
)
from gateway.ids import new_id
from gateway.pictures.picture import Picture
from gateway.pictures.spool import CHUNK, Blob, StorageFullError, file_chunks

_NOT_LINKABLE = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HEAD = 12
"""Bytes of a file's start that show the format of a picture."""
_LEFT_OVER_S = 3600
"""A file still being written after this long belongs to a process that died."""


class LocalArtifacts:
    """Artifacts in `folder`, which replicas may share and which need not be on the spool's file system."""

    def __init__(self, folder: Path, ttl_s: int) -> None:
        self.folder = folder
        self._incoming = folder / "incoming"
        self._ttl_s = ttl_s

    def describe(self, picture: Picture) -> Artifact:
        return describe(picture, self._ttl_s)

    async def put(self, picture: Picture, artifact: Artifact | None = None) -> Artifact:
        artifact = artifact or self.describe(picture)
        try:
            await asyncio.to_thread(self._store, picture.blob, artifact.id)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise (StorageFullError if error.errno in _FULL else ArtifactsUnavailable)(reason) from error
        return artifact

    async def open(self, artifact_id: str) -> Stored | None:
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
        return Stored(size, _one_chunk(start) if len(start) == size else file_chunks(path))

    async def delete(self, artifact_id: str) -> None:
        if format_of(artifact_id) is None:
            return
        path = self.folder / day_of(artifact_id) / artifact_id
        try:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as error:
            raise ArtifactsUnavailable(os.strerror(error.errno or 0)) from error

    async def sweep(self, now: float) -> int:
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
        """Nothing to close: no file stays open between calls."""

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
            with blob.open() as source, aside.open("xb") as target:
                shutil.copyfileobj(source, target, CHUNK)
                target.flush()
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
    """Link the spool's file to its final name without a copy; False if the file system cannot."""
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
    """Write a folder to disk: a new name is on disk only then."""
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
    """A file's size and its start; of a small file all bytes, so that no second read is needed."""
    # A buffer would cost more system calls than the file itself.
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return size, file.read(size if size <= CHUNK else _HEAD)


async def _one_chunk(data: bytes) -> AsyncIterator[bytes]:
    yield data
