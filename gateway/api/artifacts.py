"""Pictures by their signed links. Public: the signature is the right to read, and it expires."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from gateway import errors
from gateway.api.dependencies import ServicesDep
from gateway.artifacts import matches, media_type_of, verify

router = APIRouter(tags=["artifacts"])

_GONE = "This link is wrong or has expired; pictures are kept for a limited time. Ask for the image again."


@router.get("/artifacts/{artifact_id}", summary="A picture, by its signed link")
async def read_artifact(artifact_id: str, request: Request, services: ServicesDep) -> StreamingResponse:
    """Raises ArtifactNotFound for every kind of wrong link alike."""
    now = int(time.time())
    if not verify(artifact_id, request.url.query, now, services.signing_key):
        raise errors.ArtifactNotFound(_GONE)
    stored = await services.artifacts.open(artifact_id)
    if stored is None:
        raise errors.ArtifactNotFound(_GONE)
    size, chunks = stored
    head = await anext(chunks, b"")
    if not matches(head, artifact_id):
        raise errors.ArtifactNotFound(_GONE)
    headers = {
        "content-length": str(size),
        "x-content-type-options": "nosniff",
        # Whatever a browser is brought to take these bytes for, it may run nothing and load nothing.
        "content-security-policy": "default-src 'none'; sandbox",
        "content-disposition": f'inline; filename="{artifact_id}"',
        "cache-control": "private, max-age=3600, immutable",
        "cross-origin-resource-policy": "cross-origin",
    }
    return StreamingResponse(_chain(head, chunks), media_type=media_type_of(artifact_id), headers=headers)


async def _chain(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in chunks:
        yield chunk
