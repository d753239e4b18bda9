"""OpenAI's own dialect, as its published specification has it for GPT image models, at any endpoint that speaks it.

Synchronous, and nearly what the gateway's callers speak themselves. A lesser endpoint is narrowed in the catalogue.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from gateway.job import Answer, Call, ImageJob, Inputs, Ticket
from gateway.pictures import Darkroom
from gateway.sizes import Shape, resolve
from gateway.spool import Spool
from gateway.upstreams.line import Line
from gateway.upstreams.preparing import edit_form, make_png
from gateway.upstreams.reading import fail_on_error, read_answer


class OpenAI:
    """One credential and model at one endpoint."""

    def __init__(self, line: Line, darkroom: Darkroom) -> None:
        self._line = line
        self._darkroom = darkroom
        self._model = line.target.config.model

    async def prepare(self, job: ImageJob, spool: Spool) -> Inputs:
        """Pictures pass as they are. A mask must be a PNG, and its image upright, so that both have one size."""
        if job.mask is None:
            return Inputs(job.references)
        first, *rest = job.references
        upright = await make_png(self._darkroom, first, spool, param="image")
        return Inputs((upright, *rest), await make_png(self._darkroom, job.mask, spool, param="mask"))

    async def submit(self, call: Call, inputs: Inputs, spool: Spool) -> Answer | Ticket:
        fields = self._fields(call)
        if call.operation == "generation":
            reply = await self._line.pay("/v1/images/generations", fields, spool)
        else:
            reply = await self._line.pay("/v1/images/edits", edit_form(fields, inputs), spool)
        return read_answer(reply)

    async def poll(self, ticket: Ticket, spool: Spool) -> Answer | None:
        raise NotImplementedError("this dialect answers at once and gives no tickets")

    async def check(self, spool: Spool) -> Decimal | None:
        fail_on_error(await self._line.ask("GET", "/v1/models", None, spool))
        return None

    def _fields(self, call: Call) -> dict[str, Any]:
        size = resolve(call.size) if isinstance(call.size, Shape) else call.size
        # Never `response_format`: these models refuse it, and always answer base64.
        optional: dict[str, Any] = {
            "quality": call.quality,
            "n": call.n if call.n > 1 else None,
            "background": call.background,
            "output_format": call.output_format,
            "output_compression": None if call.output_format == "png" else call.compression,
            "moderation": call.moderation,
            "user": call.end_user,
        }
        # The default of `size` is not the same on both paths, so `auto` is always said.
        fields = {"model": self._model, "prompt": call.prompt, "size": str(size or "auto")}
        return fields | {name: value for name, value in optional.items() if value is not None}
