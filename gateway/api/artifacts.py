"""The reading of stored pictures by signed links: the route for a picture, and links that a request has as references.

Only the signature and the end of a link decide; no key is checked.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from gateway import errors
from gateway.api.request import ServicesDep
from gateway.artifacts import ArtifactsUnavailable
from gateway.artifacts.artifact import Stored, format_of
from gateway.artifacts.links import find_artifact, verify
from gateway.pictures.spool import Blob, Spool
from gateway.services import Services

router = APIRouter(tags=["artifacts"])

_GONE = "This link is wrong or has expired. Pictures are kept for a limited time; request the image again."


@router.get("/artifacts/{artifact_id}", summary="A picture, by its signed link")
async def read_artifact(artifact_id: str, request: Request, services: ServicesDep) -> StreamingResponse:
    """Return the bytes of an artifact as a stream.

    Raises ArtifactNotFound for a wrong or expired link and for a picture that is not stored, and StorageFull if the
    picture storage does not answer.
    """
    now = int(time.time())
    if not verify(artifact_id, request.url.query, now, services.signing_key):
        raise errors.ArtifactNotFound(_GONE)
    stored = await _open(services, artifact_id)
    if stored is None:
        raise errors.ArtifactNotFound(_GONE)
    headers = {
        "content-length": str(stored.size),
        "x-content-type-options": "nosniff",
        # A browser that takes these bytes for a page may run nothing and load nothing.
        "content-security-policy": "default-src 'none'; sandbox",
        "content-disposition": f'inline; filename="{artifact_id}"',
        "cache-control": "private, max-age=3600, immutable",
        "cross-origin-resource-policy": "cross-origin",
    }
    return StreamingResponse(stored.chunks, media_type=f"image/{format_of(artifact_id)}", headers=headers)


async def read_own_link(services: Services, url: str, spool: Spool) -> Blob | None:
    """Copy the picture of this gateway's own link to the spool; None for another URL, an expired link, a lost picture.

    Raises StorageFull if the picture storage does not answer, StorageFullError if the spool's disk is full or the
    storage stops answering during the copy.
    """
    # The signature proves whose link it is: the host in it may be a proxy's, which this process need not reach.
    artifact_id = find_artifact(url, time.time(), services.signing_key)
    stored = await _open(services, artifact_id) if artifact_id else None
    if stored is None:
        return None
    writer = spool.writer()
    try:
        async with aclosing(cast(Any, stored.chunks)) as chunks:
            async for chunk in chunks:
                await writer.write(chunk)
        return await writer.finish()
    except BaseException:
        await writer.abort()
        raise


async def _open(services: Services, artifact_id: str) -> Stored | None:
    try:
        return await services.artifacts.open(artifact_id)
    except ArtifactsUnavailable as error:
        raise errors.StorageFull("The picture storage does not answer; try again shortly.", retry_after=5) from error
