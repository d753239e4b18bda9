"""An upstream's bytes become an artifact: checked to be a picture, in the format and size promised, stored once.

Used by `intake` for every image that arrives. Never decides about money or retries.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.artifacts import Artifact, ArtifactStore
from gateway.jobs.sizes import Size
from gateway.pictures.picture import NotAPicture, Picture, PictureConverter
from gateway.pictures.spool import Blob, Spool, StorageFullError
from gateway.state.call_store import CallNote
from gateway.upstreams.verdict import CallFailed, Failure


@dataclass(frozen=True, slots=True)
class Developed:
    """One picture as it is to be handed out, and the size in which it came."""

    picture: Picture
    made: Size


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where pictures are checked, converted and stored."""

    picture_converter: PictureConverter
    artifacts: ArtifactStore

    async def develop(self, blob: Blob, note: CallNote, spool: Spool) -> Developed:
        """Check one image, and make it what the call promised.

        Raises CallFailed: `body` when it is no picture, `collect` when there is no room to convert it.
        """
        try:
            picture = await self.picture_converter.probe(blob, what="the upstream's image")
            made = Size(picture.width, picture.height)
            size = note.promised if note.other_size == "resize" and note.is_broken_by(made) else None
            if picture.format != note.format or size:
                picture = await self.picture_converter.convert(
                    picture,
                    note.format,
                    spool,
                    quality=100 if note.compression is None else note.compression,
                    size=(size.width, size.height) if size else None,
                )
            return Developed(picture, made)
        except NotAPicture as error:
            raise CallFailed(Failure("body", message=str(error))) from error
        except (StorageFullError, OSError) as error:
            raise _unstorable(error) from error

    async def store(self, picture: Picture, artifact: Artifact) -> None:
        """Keep a developed picture as the artifact that it was described as. Raises CallFailed."""
        try:
            await self.artifacts.put(picture, artifact)
        except (StorageFullError, OSError) as error:
            raise _unstorable(error) from error


def _unstorable(error: Exception) -> CallFailed:
    return CallFailed(Failure("collect", message=f"the picture could not be stored: {error}"))
