"""The interface of every adapter, in the order of the requests of a call.

An adapter leaves the key to its client, never retries a paid POST, and raises an upstream's failures as CallFailed.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Protocol

from gateway.jobs.job import Call, ImageJob, Inputs, Ticket, UpstreamAnswer
from gateway.pictures.picture import PictureConverter
from gateway.pictures.spool import Spool
from gateway.upstreams.client import UpstreamClient


class Adapter(Protocol):
    """One target's dialect. The asynchronous methods raise CallFailed."""

    def __init__(self, client: UpstreamClient, picture_converter: PictureConverter) -> None: ...

    async def prepare(self, job: ImageJob, spool: Spool) -> Inputs:
        """Do the free work before a job's calls: convert pictures, upload references. Raises StorageFullError too."""
        ...

    async def submit(self, call: Call, inputs: Inputs, spool: Spool) -> UpstreamAnswer | Ticket:
        """Send the paid POST, once. Returns the images, or a ticket to poll."""
        ...

    async def poll(self, ticket: Ticket, spool: Spool) -> UpstreamAnswer | None:
        """Poll a ticket once. Returns its images, or None while the work runs."""
        ...

    async def check(self, spool: Spool) -> Decimal | None:
        """Make a free call, which fails if the key does not work. Returns the credits left, or None if not reported."""
        ...

    @staticmethod
    def read_ticket(document: Any) -> Ticket | None:
        """The ticket that a callback names; None where it names none, or where the vendor sends no callbacks."""
        ...
