"""An upstream's bytes become an artifact: checked to be a picture, in the format and size promised, stored once.

Called by `dispatch` for every image that arrives. Never decides about money or retries.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.artifacts import Artifact, ArtifactStore
from gateway.document import OtherSize
from gateway.job import ImageJob, Usage
from gateway.pictures import Darkroom, NotAPicture
from gateway.sizes import Size
from gateway.spool import Blob, Spool, StorageFullError
from gateway.verdict import CallFailed, Failure


@dataclass(frozen=True, slots=True)
class Image:
    """One delivered image of a task: its slot, where it is stored, which upstream and target made it.

    `target` is the label of the upstream's credential. `usage` is its whole call's, and stands at its last image
    only. `usd` is its share of the call's bill, in µ$; None where no price is known. `made` is the size in which the
    upstream made it. One that is withheld is of a size that nobody wants: it is paid for and kept, but not handed out.
    """

    slot: int
    artifact: Artifact
    made: Size
    upstream: str
    target: str
    revised_prompt: str | None = None
    usage: Usage | None = None
    usd: int | None = None
    is_withheld: bool = False

    @property
    def size(self) -> Size:
        """The size in which it is handed out."""
        return Size(self.artifact.width, self.artifact.height)


@dataclass(frozen=True, slots=True)
class Promise:
    """The size that was to be made, None where only the upstream knew, and what becomes of a picture of another."""

    size: Size | None = None
    other_size: OtherSize = "tell"

    def is_broken_by(self, made: Size) -> bool:
        return self.size is not None and made != self.size


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where pictures are checked, converted and stored."""

    darkroom: Darkroom
    artifacts: ArtifactStore

    async def receive(self, blob: Blob, job: ImageJob, spool: Spool, promise: Promise) -> tuple[Artifact, Size]:
        """Store one image; answers the size in which it came, too.

        Raises CallFailed: `body` when it is no picture, `collect` when it cannot be stored.
        """
        try:
            picture = await self.darkroom.probe(blob, what="the upstream's image")
            made = Size(picture.width, picture.height)
            size = promise.size if promise.other_size == "resize" and promise.is_broken_by(made) else None
            if picture.format != job.output_format or size:
                picture = await self.darkroom.convert(
                    picture,
                    job.output_format,
                    spool,
                    quality=100 if job.output_compression is None else job.output_compression,
                    size=(size.width, size.height) if size else None,
                )
            return await self.artifacts.put(picture), made
        except NotAPicture as error:
            raise CallFailed(Failure("body", message=str(error))) from error
        except (StorageFullError, OSError) as error:
            raise CallFailed(Failure("collect", message=f"the picture could not be stored: {error}")) from error
