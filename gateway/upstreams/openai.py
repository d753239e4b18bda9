"""OpenAI's own dialect, from its published specification for GPT image models, at any endpoint that speaks it.

It is synchronous, and close to the gateway's own API. The catalogue describes an endpoint that supports less.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from gateway.jobs.job import Call, ImageJob, Inputs, Shape, resolve
from gateway.pictures.spool import Spool
from gateway.upstreams.base import Adapter
from gateway.upstreams.synchronous import Synchronous, make_mask, make_png, make_upright


class OpenAI(Synchronous):
    """The adapter of one credential and model at one endpoint."""

    async def prepare(self, job: ImageJob, spool: Spool) -> Inputs:
        """Turn the first picture if it is on its side, keep the others. With a mask, convert it and the mask to PNG."""
        if job.mask is None:
            turned = [await make_upright(self._picture_converter, one, spool) for one in job.references[:1]]
            return Inputs((*turned, *job.references[1:]))
        first, *rest = job.references
        upright = await make_png(self._picture_converter, first, spool, param="image")
        return Inputs((upright, *rest), await make_mask(self._picture_converter, job.mask, self._client.target, spool))

    @override
    def _fields(self, call: Call) -> dict[str, Any]:
        sent = call.sent
        size = resolve(sent.size) if isinstance(sent.size, Shape) else sent.size
        # Never `response_format`: these models refuse it, and always answer with base64.
        optional: dict[str, Any] = {
            "quality": sent.quality,
            "n": call.n if call.n > 1 else None,
            "background": sent.background,
            "output_format": sent.output_format,
            "output_compression": None if sent.output_format == "png" else sent.compression,
            "user": sent.end_user,
            **sent.passed_fields,
        }
        # The default of `size` differs between the two paths, so `auto` is always sent.
        fields = {"model": self._model, "prompt": call.prompt, "size": str(size or "auto")}
        return fields | {name: value for name, value in optional.items() if value is not None}


ADAPTER: type[Adapter] = OpenAI
