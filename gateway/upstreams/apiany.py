"""apiany's dialect: it uploads references, submits a task, polls it and reads its result.

Edits without a mask are generations with `input_images`, because the edits endpoint takes neither quality nor n.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import structlog

from gateway.jobs.job import Call, ImageJob, Inputs, Shape, Size, Ticket, UpstreamAnswer
from gateway.net.outside_text import read_url
from gateway.pictures.picture import Picture, PictureConverter
from gateway.pictures.spool import Spool
from gateway.upstreams.base import Adapter
from gateway.upstreams.client import (
    Reply,
    UpstreamClient,
    fail_on_error,
    fail_without_image,
    find_balance,
    find_credits,
    find_images,
    find_usage,
    is_failed_task_billed,
    read_answer,
)
from gateway.upstreams.error_facts import find_error, find_reason
from gateway.upstreams.synchronous import FilePart, MultipartBody, list_texts, make_mask, make_png, make_upright
from gateway.upstreams.verdict import CallFailed, Failure

DONE = frozenset({"completed", "succeeded", "success", "succeed", "done", "finished"})
FAILED = frozenset({"failed", "failure", "fail", "error", "cancelled", "canceled", "expired", "timeout", "rejected"})
_POLL_PATH = re.compile(r"/v1/[!-~]{1,900}")

RUNNING = frozenset({"pending", "processing", "queued", "running", "in_progress"})

_log = structlog.get_logger(__name__)


class Apiany:
    """The adapter of one apiany credential and model."""

    def __init__(self, client: UpstreamClient, picture_converter: PictureConverter) -> None:
        self._client = client
        self._picture_converter = picture_converter
        self._model = client.target.config.model
        self._unknown_statuses: set[str] = set()

    async def prepare(self, job: ImageJob, spool: Spool) -> Inputs:
        """Upload each reference and return the URLs. Turn the first one before if it lies on its side.

        With a mask, convert the first reference and the mask to PNG instead, and upload nothing.
        """
        if job.mask:
            picture = await make_png(self._picture_converter, job.references[0], spool, param="image")
            return Inputs((picture,), await make_mask(self._picture_converter, job.mask, self._client.target, spool))
        first = [await make_upright(self._picture_converter, picture, spool) for picture in job.references[:1]]
        uploads = (self._upload_with_retry(picture, spool) for picture in (*first, *job.references[1:]))
        urls = await asyncio.gather(*uploads, return_exceptions=True)
        for url in urls:
            if isinstance(url, BaseException):
                raise url
        return Inputs(urls=tuple(url for url in urls if isinstance(url, str)), takes_callback=True)

    async def submit(self, call: Call, inputs: Inputs, spool: Spool) -> UpstreamAnswer | Ticket:
        sent = call.sent
        fields: dict[str, Any] = {"model": self._model, "prompt": call.prompt, **sent.passed_fields}
        fields |= _size_fields(sent.size)
        if inputs.mask:
            files = [_file("image", inputs.references[0]), _file("mask", inputs.mask)]
            return self._read_submission(
                await self._client.pay("/v1/images/edits", MultipartBody(list_texts(fields), files), spool)
            )
        if sent.quality:
            fields["quality"] = sent.quality
        if call.n > 1:
            fields["n"] = call.n
        if inputs.urls:
            fields["input_images"] = list(inputs.urls)
        if call.callback_url:
            fields["callback_url"] = call.callback_url
        return self._read_submission(await self._client.pay("/v1/images/generations", fields, spool))

    async def poll(self, ticket: Ticket, spool: Spool) -> UpstreamAnswer | None:
        # A ticket from a callback or from another process may have no path.
        path = ticket.poll_path or _poll_path(ticket.id, None)
        reply = await self._client.ask("GET", path, None, spool)
        if not reply.is_ok or not isinstance(reply.document, dict):
            fail_on_error(reply)
            raise CallFailed(Failure("status", status=reply.status, message=reply.problem or "not a task"))
        status = str(reply.document.get("status") or "").lower()
        if status in FAILED:
            raise CallFailed(_task_failure(reply, status))
        images = find_images(reply.document, reply.mask) if status in DONE or not status else []
        if images:
            return UpstreamAnswer(tuple(images), find_usage(reply.document), find_credits(reply.document))
        if status in DONE:
            raise CallFailed(fail_without_image(reply, "the task has ended without an image"))
        if not status:
            fail_on_error(reply)
        if status not in RUNNING:
            self._log_unknown_status(reply.mask.clean(status, 100))
        return None

    async def check(self, spool: Spool) -> Decimal | None:
        reply = await self._client.ask("GET", "/v1/credits/balance", None, spool)
        fail_on_error(reply)
        return find_balance(reply.document)

    @staticmethod
    def read_ticket(document: Any) -> Ticket | None:
        """The ticket that a submission's answer or a callback names; None if it names none."""
        given = document.get("task_id") if isinstance(document, dict) else None
        # A number is a ticket too: the task is paid for, so it must not be lost over a type.
        ticket_id = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else ""
        return Ticket(ticket_id, _poll_path(ticket_id, document.get("poll_url"))) if ticket_id else None

    def _read_submission(self, reply: Reply) -> UpstreamAnswer | Ticket:
        ticket = self.read_ticket(reply.document)
        if reply.is_ok and ticket and not find_images(reply.document):
            return ticket
        return read_answer(reply)

    async def _upload_with_retry(self, picture: Picture, spool: Spool) -> str:
        try:
            return await self._upload(picture, spool)
        except CallFailed as failed:
            if failed.failure.phase != "prepare":
                raise
        return await self._upload(picture, spool)

    async def _upload(self, picture: Picture, spool: Spool) -> str:
        body = MultipartBody([], [_file("file", picture)])
        try:
            reply = await self._client.ask("POST", "/v1/images/upload", body, spool)
            fail_on_error(reply)
        except CallFailed as failed:
            # No upload is billed, whatever its outcome. The caller knows its field by another name than the vendor.
            failure = replace(failed.failure, param=failed.failure.param and "image")
            raise CallFailed(_as_prepare(failure)) from failed
        document = reply.document if isinstance(reply.document, dict) else {}
        nested = document.get("data")
        url = document.get("url") or (nested.get("url") if isinstance(nested, dict) else None)
        if not isinstance(url, str):
            raise CallFailed(Failure("prepare", status=reply.status, message="the upload's answer has no url"))
        return url

    def _log_unknown_status(self, status: str) -> None:
        if status not in self._unknown_statuses and len(self._unknown_statuses) < 100:
            self._unknown_statuses.add(status)
            _log.warning("unknown task status, taken as running", upstream=self._client.target.upstream, status=status)


def _size_fields(size: Size | Shape | None) -> dict[str, str]:
    if size is None:
        return {"size": "auto"}
    if isinstance(size, Shape):
        return {"size": size.ratio, "resolution": size.tier}
    return {"size": str(size)}


def _poll_path(ticket_id: str, poll_url: Any) -> str:
    """The path to poll: that of `poll_url`. Its origin is ignored: the key is sent to the configured origin alone.

    The documented path replaces one that is missing or not a plain path of `/v1/`, so that no paid ticket is lost.
    """
    url = read_url(poll_url)
    if url and _POLL_PATH.fullmatch(url.path) and ".." not in url.path:
        return url.path
    return f"/v1/tasks/{quote(ticket_id, safe='', errors='replace')}"


def _task_failure(reply: Reply, status: str) -> Failure:
    facts = find_error(reply.document, reply.mask) or find_reason(reply.document, reply.mask)
    code, kind, message, param = facts or (None, None, "", None)
    if status in ("expired", "timeout"):
        code = "expired"
    is_billed = is_failed_task_billed(reply.document)
    return Failure(
        "task", spoke=True, code=code or status, type=kind, message=message, param=param, is_billed=is_billed
    )


def _as_prepare(failure: Failure) -> Failure:
    if failure.phase == "status" and failure.status is not None and failure.status < 500:
        return failure
    return Failure("prepare", status=failure.status, message=failure.message, retry_after=failure.retry_after)


def _file(name: str, picture: Picture) -> FilePart:
    return FilePart(name, f"{name}.{picture.format}", picture.media_type, picture.blob)


ADAPTER: type[Adapter] = Apiany
