"""The base of adapters whose vendors answer a paid call at once, on OpenAI's two paths. It never polls.

It sends the call, reads the answer and makes the free check. Subclasses write the fields and prepare the pictures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from decimal import Decimal
from typing import Any

from gateway.jobs.job import Call, Inputs, Ticket, UpstreamAnswer
from gateway.pictures.picture import PictureConverter
from gateway.pictures.spool import Spool
from gateway.upstreams.answers import fail_on_error, read_answer
from gateway.upstreams.client import UpstreamClient
from gateway.upstreams.inputs import edit_form


class Synchronous(ABC):
    """One credential and model. Its methods raise CallFailed."""

    def __init__(self, client: UpstreamClient, picture_converter: PictureConverter) -> None:
        self._client = client
        self._picture_converter = picture_converter
        self._model = client.target.config.model

    async def submit(self, call: Call, inputs: Inputs, spool: Spool) -> UpstreamAnswer | Ticket:
        fields = self._fields(call)
        if call.operation == "generation":
            reply = await self._client.pay("/v1/images/generations", fields, spool)
        else:
            reply = await self._client.pay("/v1/images/edits", edit_form(fields, inputs), spool)
        return read_answer(reply)

    async def poll(self, ticket: Ticket, spool: Spool) -> UpstreamAnswer | None:
        raise NotImplementedError("this dialect answers at once and gives no tickets")

    async def check(self, spool: Spool) -> Decimal | None:
        fail_on_error(await self._client.ask("GET", "/v1/models", None, spool))
        return None

    @staticmethod
    def read_ticket(document: Any) -> Ticket | None:
        return None

    @abstractmethod
    def _fields(self, call: Call) -> dict[str, Any]:
        """The fields of a call in the vendor's dialect."""
