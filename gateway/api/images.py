"""The image routes: generations and edits. They read a request, load its pictures and send the pipeline's answer.

They read no body before the caller is known, and decide nothing about upstreams or money. OpenAI's routes that this
gateway does not serve are refused here too.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from gateway import errors, pipeline
from gateway.api.artifacts import read_own_link
from gateway.api.connection.error_handlers import render
from gateway.api.connection.middleware import Handover
from gateway.api.forms import Form, Source, read_form
from gateway.api.request import (
    CallerDep,
    ServicesDep,
    answer_within,
    keep_alive,
    read_preference,
    read_repeat,
    read_webhook,
    sdk_timeout,
)
from gateway.callers.auth import Caller
from gateway.catalogue.document import STRATEGIES, Strategy
from gateway.jobs import parameters
from gateway.jobs.job import Operation
from gateway.money import reservation
from gateway.net.fetcher import FetchFailed, FetchRefused
from gateway.pictures.picture import NotAPicture, Picture, check_mask
from gateway.pictures.spool import Blob, Spool, StorageFullError
from gateway.pipeline import CheckedRequest
from gateway.services import Services
from gateway.tasks import record
from gateway.tasks.answer import AnswerForm, Shaped
from gateway.tasks.record import RequestNote
from gateway.tasks.wait import CallerConnection, CallerDisconnected

router = APIRouter(tags=["images"])

_UNFETCHED = "Send the file itself, or a base64 data URL."


@router.post("/images/generations", summary="Make images from a prompt")
async def generate(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Serve OpenAI's `POST /v1/images/generations`, with a JSON or a multipart body."""
    return await _serve(request, services, caller, "generation")


@router.post("/images/edits", summary="Make images from a prompt and images")
async def edit(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Serve OpenAI's `POST /v1/images/edits`, with a multipart or a JSON body."""
    return await _serve(request, services, caller, "edit")


async def _serve(request: Request, services: Services, caller: Caller, operation: Operation) -> Response:
    if _is_dry(request):
        return await _quote(request, services, caller, operation)
    spool = services.new_spool()
    request.state.note = note = record.open_note(services, request.state.request_id, caller.key, operation)
    # The outermost middleware sees the last byte, and ends the wait.
    request.state.presence = presence = CallerConnection(departing=services.departing)
    try:
        await _check_room(services)
        asked = await _read(request, services, note, spool, presence)
        handover: Handover | None = request.scope["state"].get("handover")
        if handover is not None:
            handover.on_disconnect(presence.leave)
        shaped = await pipeline.serve(services, caller, asked)
    except errors.PublicError as error:
        note.answer = error
        if not any(name.startswith("x-ratelimit-") for name in error.headers):
            error.headers |= await reservation.look_at_rates(services.books, caller.identity)
        raise
    except CallerDisconnected:
        return _answer_disconnect()
    except BaseException:
        # Also when the process ends before the body does.
        note.answer = errors.InternalError("The gateway failed.")
        raise
    finally:
        # Once a task is open, its work owns the spool and the record, beyond this request.
        if not spool.is_kept:
            _record(services, note, presence)
            await spool.close()
    return TaskResponse(shaped, presence)


def _answer_disconnect() -> Response:
    """The answer 499 for a caller that disconnected. The log has its status; a client that still reads gets it too."""
    return render(
        errors.ClientClosedRequest(
            "The client ended its side of the connection before the answer, which this gateway takes for a disconnect. "
            "The work goes on, and a retry of the same request gets its result; keep the connection open until then."
        )
    )


def _record(services: Services, note: RequestNote, presence: CallerConnection) -> None:
    if presence.waiting is not None:
        record.record_joined(services, note, presence.waiting.task)
    elif note.answer is not None:
        record.record_refusal(services, note)
    # Otherwise the caller disconnected before anything began.


async def _quote(request: Request, services: Services, caller: Caller, operation: Operation) -> Response:
    """Return the answer of a dry run: the plan of the request. A dry run sends no call and writes no record."""
    spool = services.new_spool()
    request.state.note = note = record.open_note(services, request.state.request_id, caller.key, operation)
    try:
        found = await pipeline.quote(services, caller, await _read(request, services, note, spool, CallerConnection()))
    finally:
        await spool.close()
    return JSONResponse(found, headers=await reservation.look_at_rates(services.books, caller.identity))


def _is_dry(request: Request) -> bool:
    """True when X-Gateway-Dry-Run is 1; False when it is 0, empty or absent.

    Raises InvalidValue for any other value, since a dry run must never cost money.
    """
    text = request.headers.get("X-Gateway-Dry-Run", "")
    if text not in ("", "0", "1"):
        raise errors.InvalidValue(
            f"X-Gateway-Dry-Run must be 1, which answers what a request would cost, or 0; not {text!r:.60}."
        )
    return text == "1"


def _read_strategy(request: Request) -> Strategy | None:
    text = request.headers.get("X-Gateway-Route", "")
    found = next((one for one in STRATEGIES if one == text), None)
    if text and found is None:
        raise errors.InvalidValue(f"X-Gateway-Route must be one of {', '.join(STRATEGIES)}; not {text!r:.60}.")
    return found


async def _check_room(services: Services) -> None:
    if await services.disk_space.find_shortage() is not None:
        raise errors.StorageFull("The gateway has too little disk space for new pictures.", retry_after=60)


async def _read(
    request: Request, services: Services, note: RequestNote, spool: Spool, presence: CallerConnection
) -> CheckedRequest:
    document = services.catalogue.document
    form = await read_form(request, spool, document.limits, services.in_flight)
    params = parameters.read_params(
        form.fields,
        note.operation,
        is_text=form.is_text,
        refuse_unknown=document.unknown_fields == "refuse",
        scaled_sizes=services.catalogue.scaled_sizes,
    )
    note.model = params.model or document.default_model
    found = services.catalogue.find_model(note.model)
    note.is_model_known = found is not None
    references, mask = await _load_references(services, form, spool) if note.operation == "edit" else ((), None)
    note.job = job = parameters.make_job(params, references, mask)
    default_form = found[1].response_format if found and found[1] else "b64_json"
    patience = sdk_timeout(request)
    answer = AnswerForm(
        response_format=params.response_format or default_form,
        stream=params.stream,
        base_url=services.settings.public_url or str(request.base_url).rstrip("/"),
        answer_within=answer_within(patience, document.limits.answer_within),
        keep_alive=keep_alive(patience, document.limits.keep_alive),
        partial_images=params.partial_images,
    )
    if patience is not None:
        presence.patient_until = presence.began + answer.answer_within
    # A stream answers from the first second.
    prefer, seconds = ("answer", None) if params.stream else read_preference(request)
    if seconds is not None:
        answer = replace(answer, answer_within=min(answer.answer_within, seconds))
    repeat = await read_repeat(request, job, note.model, prefer, patience)
    webhook = await read_webhook(request, services)
    return CheckedRequest(
        job,
        note.model,
        answer,
        spool,
        note,
        presence,
        upstream=request.headers.get("x-gateway-upstream") or None,
        strategy=_read_strategy(request),
        repeat=repeat,
        may_promise=seconds is not None,
        webhook=webhook,
    )


async def _load_references(services: Services, form: Form, spool: Spool) -> tuple[tuple[Picture, ...], Picture | None]:
    """Load the references, in the order of the form, and the mask; remove their metadata.

    Raises MissingParameter without an image, else the PublicError of the first picture that cannot be loaded, or of a
    mask that does not fit the first image.
    """
    if not form.images:
        raise errors.MissingParameter("An edit needs at least one `image`.", param="image")
    sources = [*form.images, *([form.mask] if form.mask else [])]
    async with asyncio.TaskGroup() as group:
        loads = [group.create_task(_try_to_load(services, source, spool)) for source in sources]
    pictures: list[Picture] = []
    for load in loads:
        loaded = load.result()
        if isinstance(loaded, errors.PublicError):
            raise loaded
        pictures.append(loaded)
    if form.mask is None:
        return tuple(pictures), None
    mask = pictures.pop()
    try:
        check_mask(mask, pictures[0])
    except NotAPicture as error:
        raise errors.InvalidValue(error.explain(), param="mask") from error
    return tuple(pictures), mask


async def _try_to_load(services: Services, source: Source, spool: Spool) -> Picture | errors.PublicError:
    # Errors are returned, so that the caller gets the first in the order of its images.
    try:
        return await _load(services, source, spool)
    except errors.PublicError as error:
        return error
    except StorageFullError:
        return errors.StorageFull("The gateway's disk is full.", retry_after=60)


async def _load(services: Services, source: Source, spool: Spool) -> Picture:
    blob = source.blob if source.blob is not None else await _fetch(services, source, spool)
    try:
        # A JPEG cannot be transparent, so it is no mask.
        right = "PNG or WebP" if source.name.startswith("mask") else "PNG, JPEG or WebP"
        picture = await services.picture_converter.probe(blob, what=f"`{source.name}`", right=right)
        return await services.picture_converter.strip(picture, spool)
    except NotAPicture as error:
        raise errors.InvalidValue(error.explain(), param=source.name) from error


async def _fetch(services: Services, source: Source, spool: Spool) -> Blob:
    url = source.url or ""
    try:
        own = await read_own_link(services, url, spool)
        return own if own is not None else await services.reference_fetcher.fetch(url, spool)
    except FetchRefused as error:
        fault = f"`{source.name}` is refused: {error}"
        raise errors.InvalidValue(f"{fault}. {_UNFETCHED}", param=source.name) from error
    except FetchFailed as error:
        fault = f"`{source.name}` could not be downloaded: {error}"
        raise errors.InvalidValue(f"{fault}. {_UNFETCHED}", param=source.name) from error


@router.post("/images/variations", summary="Not served: retired by OpenAI")
async def vary() -> None:
    raise errors.UnsupportedEndpoint(
        "Variations were retired by OpenAI. Send the image and a prompt to /v1/images/edits instead."
    )


@router.post("/chat/completions", summary="Not served: this gateway makes images")
@router.post("/responses", summary="Not served: this gateway makes images")
async def refuse_text() -> None:
    raise errors.UnsupportedEndpoint(
        "This gateway serves images only: POST /v1/images/generations or /v1/images/edits. "
        "Point your SDK for chat and responses at another base_url."
    )


class TaskResponse(Response):
    """The answer of a task. Its body is made while it is sent, and ends early if the caller disconnects.

    If the caller disconnected before the first byte, the answer is the error 499. The framework's own streaming
    response needs a second asyncio task to watch the connection.
    """

    def __init__(self, shaped: Shaped, presence: CallerConnection) -> None:
        self.status_code = shaped.status
        self.media_type = shaped.media_type
        self.background = None
        self._shaped = shaped
        self._presence = presence
        headers = {**shaped.headers, "content-type": _describe(shaped.media_type)}
        if shaped.length is not None:
            headers["content-length"] = str(shaped.length)
        # The base class would add the length of its own body.
        self.raw_headers = [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # Close the pictures now, not at the next garbage collection.
            async with aclosing(cast(Any, self._shaped.body)):
                if not self._presence.gone.done():
                    await self._send(send)
                    return
        except CallerDisconnected:
            return
        await _answer_disconnect()(scope, receive, send)

    async def _send(self, send: Send) -> None:
        left = self._shaped.length
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._shaped.body:
            if self._presence.gone.done():
                return
            left = None if left is None else left - len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left != 0})
        if left != 0:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _describe(media_type: str) -> str:
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


DIRECT_ROUTES = {f"/v1/images/{name}": endpoint for name, endpoint in (("generations", generate), ("edits", edit))}
"""The paths of the endpoints that are called without the framework's router, and these endpoints."""
