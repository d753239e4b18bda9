"""An artifact: its id, its base64 text, and the interface of a store of artifacts.

Only this module checks an id, before it becomes a path.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple, Protocol, cast

import pybase64
import structlog

from gateway.ids import BODY, new_id, time_of
from gateway.pictures.picture import Format, Picture, sniff
from gateway.pictures.spool import StorageFullError

_log = structlog.get_logger(__name__)

_NAME = re.compile(rf"img_{BODY}\.(png|jpeg|webp)")


class ArtifactsUnavailable(StorageFullError):
    """The store does not answer or rejects its credentials; treated like a full disk."""


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
    """The bytes of a stored artifact, as a stream."""

    size: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of a store: it is writable, or `reason` says why not. `free` bytes are None if unknown."""

    is_writable: bool
    free: int | None = None
    reason: str = ""


class ArtifactStore(Protocol):
    """A store of artifacts. Every method except `check` may raise ArtifactsUnavailable."""

    def describe(self, picture: Picture) -> Artifact:
        """A new artifact for the picture, not stored yet."""
        ...

    async def put(self, picture: Picture, artifact: Artifact | None = None) -> Artifact:
        """Store the picture whole or not at all, as that artifact or a new one. Raises StorageFullError."""
        ...

    async def open(self, artifact_id: str) -> Stored | None:
        """The bytes in order; None if the artifact is not stored or its bytes do not match its id."""
        ...

    async def delete(self, artifact_id: str) -> None:
        """Remove the artifact, if it is there."""
        ...

    async def sweep(self, now: float) -> int:
        """Remove the artifacts that expired before `now` (unix seconds), and return their number."""
        ...

    async def check(self) -> Readiness: ...

    async def close(self) -> None: ...


def describe(picture: Picture, ttl_s: int) -> Artifact:
    """A new artifact for the picture, not stored yet."""
    artifact_id = f"{new_id('img')}.{picture.format}"
    created = int(time_of(artifact_id).timestamp())
    blob = picture.blob
    return Artifact(
        artifact_id,
        picture.format,
        picture.width,
        picture.height,
        blob.size,
        created,
        created + ttl_s,
    )


def format_of(artifact_id: str) -> Format | None:
    """The format in an artifact's id; None for other text."""
    found = _NAME.fullmatch(artifact_id)
    if found is None:
        return None
    try:
        time_of(artifact_id)
    except ValueError:
        return None
    return cast(Format, found[1])


def matches(head: bytes, form: Format) -> bool:
    """True when a file that starts with `head` has the format."""
    return sniff(head) == form


def day_of(artifact_id: str) -> str:
    """The folder of an artifact: the day of its creation, `YYYY-MM-DD` in UTC."""
    return time_of(artifact_id).date().isoformat()


def day_end(folder: str) -> float | None:
    """The unix time from which a day's folder gets no more artifacts; None for another folder."""
    try:
        day = date.fromisoformat(folder)
        following = day + timedelta(days=1)
    except (ValueError, OverflowError):
        return None
    if day.isoformat() != folder:
        return None
    return datetime(following.year, following.month, following.day, tzinfo=UTC).timestamp()


def is_expired(name: str, ttl_s: int, now: float) -> bool:
    """True for the id of an expired artifact; False for other names."""
    return format_of(name) is not None and time_of(name).timestamp() + ttl_s <= now


async def remove_expired(store: ArtifactStore) -> None:
    """Remove the pictures that have expired by now. Raises ArtifactsUnavailable and OSError."""
    if removed := await store.sweep(time.time()):
        _log.info("removed expired pictures", pictures=removed)


async def base64_chunks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The base64 text of all chunks together, padded at its end only."""
    carry = b""
    async for chunk in chunks:
        data = carry + chunk if carry else chunk
        whole = len(data) - len(data) % 3
        carry = data[whole:]
        if whole:
            yield pybase64.b64encode(data[:whole] if carry else data)
    if carry:
        yield pybase64.b64encode(carry)


def base64_length(size: int) -> int:
    """Characters of the base64 of `size` bytes."""
    return (size + 2) // 3 * 4
