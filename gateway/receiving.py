"""An upstream's bytes become an artifact: checked to be a picture, in the format that was asked for, stored once.

Called by `dispatch` for every image that arrives. Never decides about money or retries.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.artifacts import Artifact, ArtifactStore
from gateway.job import ImageJob, Usage
from gateway.pictures import Darkroom, NotAPicture
from gateway.spool import Blob, Spool, StorageFullError
from gateway.verdict import CallFailed, Failure


@dataclass(frozen=True, slots=True)
class Image:
    """One delivered image of a task: its slot, where it is stored, which upstream and target made it.

    `target` is the label of the upstream's credential. `usage` is its whole call's, and stands at its last image
    only. `usd` is its share of the call's bill, in µ$; None where no price is known.
    """

    slot: int
    artifact: Artifact
    upstream: str
    target: str
    revised_prompt: str | None = None
    usage: Usage | None = None
    usd: int | None = None


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where pictures are checked, converted and stored."""

    darkroom: Darkroom
    artifacts: ArtifactStore

    async def receive(self, blob: Blob, job: ImageJob, spool: Spool) -> Artifact:
        """Store one image. Raises CallFailed: `body` when it is no picture, `collect` when it cannot be stored."""
        try:
            picture = await self.darkroom.probe(blob, what="the upstream's image")
            if picture.format != job.output_format:
                picture = await self.darkroom.convert(
                    picture,
                    job.output_format,
                    spool,
                    quality=100 if job.output_compression is None else job.output_compression,
                )
            return await self.artifacts.put(picture)
        except NotAPicture as error:
            raise CallFailed(Failure("body", message=str(error))) from error
        except (StorageFullError, OSError) as error:
            raise CallFailed(Failure("collect", message=f"the picture could not be stored: {error}")) from error
