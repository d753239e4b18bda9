"""Artifacts in object storage (S3 and compatible stores, Google Cloud Storage, Azure): `<prefix>/YYYY-MM-DD/<id>`.

Objects appear whole or not at all. The gateway does not remove the parts of a failed upload: a lifecycle rule of
the bucket must do so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from gateway.artifacts.artifact import (
    Artifact,
    ArtifactsRefused,
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
from gateway.pictures.picture import Picture
from gateway.pictures.spool import CHUNK

if TYPE_CHECKING:
    from obstore import BytesStream
    from obstore.store import ObjectStore

_PART = 5 * 1024 * 1024
"""Bytes of one part of a multipart upload: the least that S3 allows."""

_PARTS_AT_ONCE = 2
_CHECK_S = 5.0
_DELETE_AT_ONCE = 1000


_CLIENT: dict[str, Any] = {"connect_timeout": "5s", "timeout": "600s"}
"""`timeout` is for a whole download, whose reader may be slow; the library's default is 30 s."""

_RETRY: dict[str, Any] = {"max_retries": 5}


def open_objects(url: str, ttl_s: int) -> ObjectArtifacts:
    """Open the bucket or container at `url`. Raises ValueError, which never holds the URL's query."""
    parts = urlsplit(url)
    options: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    plain = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    # This code does not see an endpoint in the environment; an operator who sets one to http:// wants http.
    client = _CLIENT | {"allow_http": not options.get("endpoint", "").startswith("https://")}
    try:
        store = from_url(plain, config=options or None, client_options=client, retry_config=_RETRY)  # type: ignore[call-overload]
    except (BaseError, ValueError) as error:
        names = ", ".join(options) or "none"
        raise ValueError(f"the storage URL {plain} cannot be opened; its options: {names}") from error
    return ObjectArtifacts(store, ttl_s)


class ObjectArtifacts:
    def __init__(self, store: ObjectStore, ttl_s: int) -> None:
        self._store = store
        self._ttl_s = ttl_s

    def describe(self, picture: Picture) -> Artifact:
        return describe(picture, self._ttl_s)

    async def put(self, picture: Picture, artifact: Artifact | None = None) -> Artifact:
        artifact = artifact or self.describe(picture)
        blob = picture.blob
        try:
            await obstore.put_async(
                self._store,
                _key(artifact.id),
                blob.path if blob.path is not None else blob.data or b"",
                attributes={"Content-Type": picture.media_type},
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        return artifact

    async def open(self, artifact_id: str) -> Stored | None:
        form = format_of(artifact_id)
        if form is None:
            return None
        try:
            found = await obstore.get_async(self._store, _key(artifact_id))
            stream = found.stream(min_chunk_size=CHUNK)
            # The type says bytes, but the library returns its own buffer type, which servers and base64 do not accept.
            first = bytes(await anext(aiter(stream), b""))
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        return Stored(found.meta["size"], _chunks(first, stream)) if matches(first[:12], form) else None

    async def delete(self, artifact_id: str) -> None:
        if format_of(artifact_id) is not None:
            await self._delete([_key(artifact_id)])

    async def sweep(self, now: float) -> int:
        count = 0
        try:
            listing = await obstore.list_with_delimiter_async(self._store)
            for folder in listing["common_prefixes"]:
                end = day_end(folder.rpartition("/")[2])
                if end is None or end - 86_400 + self._ttl_s > now:
                    continue
                async for batch in obstore.list(self._store, folder, chunk_size=_DELETE_AT_ONCE):
                    paths = (entry["path"] for entry in batch)
                    expired = [path for path in paths if is_expired(path.rpartition("/")[2], self._ttl_s, now)]
                    await self._delete(expired)
                    count += len(expired)
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        return count

    async def check(self) -> Readiness:
        try:
            async with asyncio.timeout(_CHECK_S):
                await obstore.put_async(self._store, "writable", b"ok")
        except TimeoutError:
            return Readiness(False, reason=f"no answer within {_CHECK_S:.0f} s")
        except (BaseError, OSError) as error:
            return Readiness(False, reason=str(_unavailable(error)))
        return Readiness(True)

    async def close(self) -> None:
        """Do nothing: the connections end with the object."""

    async def _delete(self, keys: list[str]) -> None:
        if not keys:
            return
        try:
            try:
                await obstore.delete_async(self._store, keys)
            except FileNotFoundError:
                # Google and Azure refuse to delete an object that another replica has deleted: go on with the rest.
                for key in keys:
                    with suppress(FileNotFoundError):
                        await obstore.delete_async(self._store, key)
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error


def _key(artifact_id: str) -> str:
    return f"{day_of(artifact_id)}/{artifact_id}"


async def _chunks(first: bytes, stream: BytesStream) -> AsyncIterator[bytes]:
    yield first
    try:
        async for piece in stream:
            yield bytes(piece)
    except (BaseError, OSError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> ArtifactsUnavailable:
    """The error to raise: its message has the first line only, without query strings, which may hold a signature."""
    first = re.sub(r"\?\S*", "", str(error).splitlines()[0] if str(error) else "")
    is_refusal = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    return (ArtifactsRefused if is_refusal else ArtifactsUnavailable)(f"{type(error).__name__}: {first[:300]}")
