"""A run of a probe: it sends questions to one credential, through the vendor's own adapter, and returns the replies.

It never sends a paid call twice. It uses neither callers' keys, quotas nor the ledger: the operator pays.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from typing_extensions import override

from gateway.catalogue.catalogue import Target
from gateway.catalogue.document import Limits
from gateway.catalogue.vendors import VENDORS
from gateway.cli.probe.answers import Seen
from gateway.cli.probe.questions import Question
from gateway.cli.probe.samples import draw_plain
from gateway.delivery.bridge import Bridge, Collected
from gateway.jobs.job import Call, ImageJob, Sent, Size
from gateway.net.fetcher import Fetcher, FetchPolicy
from gateway.net.outside_text import Mask
from gateway.net.transport import HttpTransport, Transport
from gateway.pictures.picture import NotAPicture, Picture, PictureConverter
from gateway.pictures.spool import Blob, MemoryBudget, Spool
from gateway.upstreams import ADAPTERS, UpstreamClient
from gateway.upstreams.client import FormBody, Reply, fail_on_error, find_balance, find_images
from gateway.upstreams.verdict import CallFailed, Failure


class _RecordingClient(UpstreamClient):
    """A client that keeps the last reply to a paid call and to a free one; an adapter returns only parts of them."""

    def __init__(self, target: Target, paid: Transport, pooled: Transport, max_picture: int, mask: Mask) -> None:
        super().__init__(target, paid, pooled, max_picture, mask)
        self.submitted: Reply | None = None
        self.asked: Reply | None = None

    @override
    async def pay(self, path: str, body: dict[str, Any] | FormBody, spool: Spool) -> Reply:
        self.asked = None
        self.submitted = await super().pay(path, body, spool)
        return self.submitted

    @override
    async def ask(self, method: str, path: str, body: FormBody | None, spool: Spool) -> Reply:
        self.asked = await super().ask(method, path, body, spool)
        return self.asked


class ProbeRun:
    """The run of one credential's probe. Ask one question at a time."""

    def __init__(
        self, client: _RecordingClient, picture_converter: PictureConverter, fetcher: Fetcher, folder: Path
    ) -> None:
        self._client = client
        self._picture_converter = picture_converter
        self._folder = folder
        self._memory = MemoryBudget(2**26)
        adapter = ADAPTERS[client.target.config.kind](client, picture_converter)
        self._bridge = Bridge(client.target, adapter, fetcher)

    async def ask(self, question: Question) -> Seen:
        """Send a question, and return the reply or the failure.

        A question with a job is a paid call, sent once. The balance is read before and after it, if the vendor has one.
        """
        spool = Spool(self._folder, self._memory)
        try:
            if question.path is not None:
                return await self._ask_free(question.path, spool)
            if question.job is None:
                return await self._check(spool)
            before = await self._read_balance(spool)
            seen = await self._send_paid(question.job, spool)
            return replace(seen, balances=(before, await self._read_balance(spool)))
        finally:
            await spool.close()

    async def _ask_free(self, path: str, spool: Spool) -> Seen:
        try:
            reply = await self._client.ask("GET", path, None, spool)
            fail_on_error(reply)
        except CallFailed as failed:
            return Seen(failure=failed.failure)
        return Seen(submitted=reply.document)

    async def _check(self, spool: Spool) -> Seen:
        """Make the adapter's own free call."""
        self._client.asked = None
        try:
            await self._bridge.upstream.check(spool)
        except CallFailed as failed:
            return Seen(failure=failed.failure)
        return Seen(submitted=self._client.asked.document if self._client.asked else None)

    async def _send_paid(self, job: ImageJob, spool: Spool) -> Seen:
        began = time.monotonic()
        self._client.submitted = self._client.asked = None
        try:
            drawn = await self._draw(job, spool)
            inputs = await self._bridge.upstream.prepare(drawn, spool)
            made = await self._bridge.complete(_call(job), inputs, spool)
        except CallFailed as failed:
            failure = failed.failure
            if failure.phase == "status" and self._client.submitted is None:
                # A refused upload says nothing about the call itself.
                failure = replace(failure, phase="prepare")
            return Seen(failure=failure, seconds=time.monotonic() - began)
        return await self._read_reply(made, time.monotonic() - began)

    async def _read_reply(self, made: Collected, seconds: float) -> Seen:
        pictures = [await self._probe(one) for one, _ in made.pictures if isinstance(one, Blob)]
        submitted = self._client.submitted.document if self._client.submitted else None
        ended = None
        if not find_images(submitted) and self._client.asked is not None:
            ended = self._client.asked.document
        lost = next((one for one, _ in made.pictures if isinstance(one, Failure)), None)
        return Seen(
            failure=lost,
            submitted=submitted,
            ended=ended,
            pictures=tuple(one for one in pictures if one is not None),
            in_answer=any(found.blob is not None for found in find_images(submitted if ended is None else ended)),
            usage=made.usage,
            seconds=seconds,
        )

    async def _probe(self, blob: Blob) -> tuple[str, Size] | None:
        try:
            picture = await self._picture_converter.probe(blob)
        except NotAPicture:
            return None
        return picture.format, Size(picture.width, picture.height)

    async def _draw(self, job: ImageJob, spool: Spool) -> ImageJob:
        """Draw the job's pictures, and return the job with them in place of the placeholders."""
        references = tuple([await self._draw_one(one, spool) for one in job.references])
        mask = await self._draw_one(job.mask, spool, is_mask=True) if job.mask else None
        return replace(job, references=references, mask=mask)

    async def _draw_one(self, like: Picture, spool: Spool, *, is_mask: bool = False) -> Picture:
        return await self._picture_converter.probe(
            await spool.blob(draw_plain(like.width, like.height, is_mask=is_mask))
        )

    async def _read_balance(self, spool: Spool) -> Decimal | None:
        """Read the credits that are left; None if the vendor does not report them or the call fails."""
        if not VENDORS[self._client.target.config.kind].tells_balance:
            return None
        return find_balance((await self._check(spool)).submitted)


@asynccontextmanager
async def open_probe(target: Target, limits: Limits, folder: Path, mask: Mask) -> AsyncIterator[ProbeRun]:
    """Open a run for one credential. `folder` holds pictures in transit; `mask` hides secrets in the vendor's texts."""
    paid, pooled = (HttpTransport(fresh=fresh) for fresh in (True, False))
    picture_converter = PictureConverter(max_pixels=limits.pixels)
    fetcher = Fetcher(
        FetchPolicy(
            max_bytes=limits.image_bytes,
            timeout_s=limits.fetch_timeout,
            idle_s=min(10, limits.fetch_timeout),
            allowed_origins=frozenset({target.config.base_url}),
        )
    )
    try:
        client = _RecordingClient(target, paid, pooled, limits.image_bytes, mask)
        yield ProbeRun(client, picture_converter, fetcher, folder)
    finally:
        for transport in (paid, pooled):
            await transport.aclose()
        await fetcher.aclose()
        await picture_converter.close()


def _call(job: ImageJob) -> Call:
    return Call(
        id="probe",
        slots=tuple(range(job.n)),
        operation=job.operation,
        prompt=job.prompt,
        sent=Sent(size=job.size, quality=job.quality, output_format=job.output_format),
    )
