"""What every adapter can do, in wire order. `dispatch` and `bridge` know upstreams only by this.

An adapter never sees its key, never retries a paid POST, and states every failure as a `CallFailed`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from gateway.jobs.job import Call, ImageJob, Inputs, Ticket, UpstreamAnswer
from gateway.pictures.spool import Spool


class Adapter(Protocol):
    """One target's dialect. All methods raise CallFailed."""

    async def prepare(self, job: ImageJob, spool: Spool) -> Inputs:
        """All that a call needs and that costs nothing: pictures converted, references uploaded."""
        ...

    async def submit(self, call: Call, inputs: Inputs, spool: Spool) -> UpstreamAnswer | Ticket:
        """The paid POST, sent once."""
        ...

    async def poll(self, ticket: Ticket, spool: Spool) -> UpstreamAnswer | None:
        """The ticket's images; None while it runs."""
        ...

    async def check(self, spool: Spool) -> Decimal | None:
        """A call that makes and costs nothing, to see whether the key works; the credits that it has left, if told."""
        ...
