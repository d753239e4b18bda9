"""Anyfast's dialect: synchronous, OpenAI-like, for `gpt-image-2` and for its variant `gpt-image-2-c`.

Where its documentation pages disagree, this module follows the narrower one; `docs/upstreams.md` lists each case.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from gateway.jobs.job import Call, ImageJob, Inputs, Shape, resolve
from gateway.pictures.picture import Picture, PictureConverter
from gateway.pictures.spool import Spool
from gateway.upstreams.base import Adapter
from gateway.upstreams.client import UpstreamClient
from gateway.upstreams.synchronous import Synchronous, make_mask, make_png, make_upright


class Anyfast(Synchronous):
    """The adapter of one Anyfast credential and model."""

    def __init__(self, client: UpstreamClient, picture_converter: PictureConverter) -> None:
        super().__init__(client, picture_converter)
        self._is_variant = self._model.endswith("-c")

    async def prepare(self, job: ImageJob, spool: Spool) -> Inputs:
        """Convert WebP, the mask and the masked image to PNG. Keep others, but turn the first if it is on its side."""
        references: list[Picture] = []
        for index, picture in enumerate(job.references):
            if picture.format == "webp" or (job.mask is not None and index == 0):
                picture = await make_png(self._picture_converter, picture, spool, param="image")
            elif index == 0:
                picture = await make_upright(self._picture_converter, picture, spool)
            references.append(picture)
        mask = await make_mask(self._picture_converter, job.mask, self._client.target, spool) if job.mask else None
        return Inputs(tuple(references), mask)

    @override
    def _fields(self, call: Call) -> dict[str, Any]:
        sent = call.sent
        fields: dict[str, Any] = {"model": self._model, "prompt": call.prompt, **sent.passed_fields}
        if sent.size is not None:
            fields["size"] = str(resolve(sent.size) if isinstance(sent.size, Shape) else sent.size)
        optional: dict[str, Any] = {
            "quality": sent.quality,
            "n": call.n if call.n > 1 else None,
            "output_format": sent.output_format,
            "output_compression": sent.compression if sent.output_format == "jpeg" else None,
        }
        if self._is_variant and call.operation == "generation":
            # Its default is a link. On edits two of three pages allow nothing else, so the field stays out there.
            optional["response_format"] = "b64_json"
        return fields | {name: value for name, value in optional.items() if value is not None}


ADAPTER: type[Adapter] = Anyfast
