"""The route of stored pictures. It is public: a signed link that has not expired is the right to read."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from gateway import errors
from gateway.api.request import ServicesDep
from gateway.artifacts import ArtifactsUnavailable
from gateway.artifacts.artifact import format_of
from gateway.artifacts.links import verify

router = APIRouter(tags=["artifacts"])

_GONE = "This link is wrong or has expired. Pictures are kept for a limited time; request the image again."


@router.get("/artifacts/{artifact_id}", summary="A picture, by its signed link")
async def read_artifact(artifact_id: str, request: Request, services: ServicesDep) -> StreamingResponse:
    """The bytes of an artifact. Raises ArtifactNotFound for every kind of wrong link."""
    now = int(time.time())
    if not verify(artifact_id, request.url.query, now, services.signing_key):
        raise errors.ArtifactNotFound(_GONE)
    try:
        stored = await services.artifacts.open(artifact_id)
    except ArtifactsUnavailable as error:
        raise errors.StorageFull("The picture storage does not answer; try again shortly.", retry_after=5) from error
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
