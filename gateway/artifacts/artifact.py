"""What an artifact is, how it is named, and what a store of artifacts can do.

Implemented by `local` and `objects`. A name is checked before it becomes a path, here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple, Protocol, cast

import pybase64

from gateway.ids import BODY, new_id, time_of
from gateway.pictures.picture import Format, Picture, sniff
from gateway.pictures.spool import StorageFullError

_NAME = re.compile(rf"img_{BODY}\.(png|jpeg|webp)")


class ArtifactsUnavailable(StorageFullError):
    """The store does not answer or refuses its credentials; callers treat it as they treat a full disk."""


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
    """The bytes of an artifact, on their way."""

    size: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the store takes bytes now; `free` is None where a store does not say how many, `reason` says why not."""

    is_writable: bool
    free: int | None = None
    reason: str = ""


class ArtifactStore(Protocol):
    """Every method may raise StoreUnavailable, except `check`."""

    def describe(self, picture: Picture) -> Artifact:
        """A new artifact for the picture, not stored yet."""
        ...

    async def put(self, picture: Picture, artifact: Artifact | None = None) -> Artifact:
        """Store it whole or not at all, as that artifact or as a new one. Raises StorageFullError."""
        ...

    async def open(self, artifact_id: str) -> Stored | None:
        """The bytes in order, or None where no such artifact is stored or its bytes are not what its name says."""
        ...

    async def delete(self, artifact_id: str) -> None:
        """Remove it; harmless when it is not there."""
        ...

    async def sweep(self, now: float) -> int:
        """Remove what expired before `now` (unix seconds) and answer how many artifacts those were."""
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
    """The format that an artifact's id names, or None where it is no artifact's id."""
    found = _NAME.fullmatch(artifact_id)
    if found is None:
        return None
    try:
        time_of(artifact_id)
    except ValueError:
        return None
    return cast(Format, found[1])


def matches(head: bytes, form: Format) -> bool:
    """Whether bytes that start like this are what the artifact's name says."""
    return sniff(head) == form


def day_of(artifact_id: str) -> str:
    """The folder of an artifact: the day it was made, `YYYY-MM-DD` in UTC."""
    return time_of(artifact_id).date().isoformat()


def day_end(folder: str) -> float | None:
    """The unix time at which a day's folder takes no more artifacts, or None where the folder is not a day's."""
    try:
        day = date.fromisoformat(folder)
        following = day + timedelta(days=1)
    except (ValueError, OverflowError):
        return None
    if day.isoformat() != folder:
        return None
    return datetime(following.year, following.month, following.day, tzinfo=UTC).timestamp()


def is_expired(name: str, ttl_s: int, now: float) -> bool:
    """Whether this is the id of an artifact that outlived its time; other files' names are never expired."""
    return format_of(name) is not None and time_of(name).timestamp() + ttl_s <= now


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
