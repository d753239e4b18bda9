"""The callers' OpenAPI document, and its route, which needs no key.

Each process builds the document once, at the first request for it. The framework cannot derive the document: the image
routes read raw requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import orjson
from fastapi import APIRouter, Response

from gateway import __version__, errors
from gateway.api import document_examples as examples
from gateway.api.document_parts import (
    EVERY_ANSWER,
    RATES,
    describe_errors,
    error_examples,
    header_components,
    refer_to_headers,
    share_answers,
)
from gateway.api.document_schemas import describe_schemas, refer
from gateway.api.request import LONGEST_KEY
from gateway.api.tasks import MOST_LISTED
from gateway.catalogue.document import STRATEGIES
from gateway.errors import PublicError

router = APIRouter(tags=["document"])

Part = dict[str, Any]
Kinds = Sequence[type[PublicError]]

_ABOUT = """OpenAI's Images API, served by a gateway that sends each request to one of several upstreams.

Set the `base_url` of an OpenAI SDK to this server with `/v1` at its end, and use one of the gateway's keys as
`api_key`. The POST routes under `/v1/images` also answer without `/v1`."""

_ALWAYS: Kinds = (
    errors.InvalidValue,
    errors.RequestTimeout,
    errors.HeadersTooLarge,
    errors.InternalError,
    errors.Overloaded,
)
_KEYED: Kinds = (
    *_ALWAYS,
    errors.InvalidApiKey,
    errors.KeyDisabled,
    errors.AddressNotAllowed,
    errors.RateLimited,
    errors.QuotaStoreUnavailable,
)
_MAKING: Kinds = (
    *_KEYED,
    errors.UnknownParameter,
    errors.UnsupportedValue,
    errors.MissingParameter,
    errors.ModerationBlocked,
    errors.ModelNotAllowed,
    errors.UpstreamNotAllowed,
    errors.ModelNotFound,
    errors.TaskCanceled,
    errors.RequestTooLarge,
    errors.IdempotencyMismatch,
    errors.UpstreamOutcomeUnknown,
    errors.UpstreamBadResponse,
    errors.UpstreamFailed,
    errors.QueueFull,
    errors.InsufficientQuota,
    errors.ClientClosedRequest,
    errors.UpstreamError,
    errors.UpstreamUnavailable,
    errors.Paused,
    errors.StorageFull,
    errors.TaskStillRunning,
)

_OTHERS: Kinds = (errors.TaskNotFound, errors.ArtifactNotFound, errors.UnknownRoute, errors.UnsupportedEndpoint)

_TASK = ("x-gateway-task", "x-gateway-joined", "idempotent-replayed", *RATES)
_MADE = (
    *("x-gateway-upstream", "x-gateway-calls", "x-gateway-cost-usd", "x-gateway-size", "x-gateway-delivered"),
    "x-gateway-dropped-params",
)
_OF_FAILURES = (*EVERY_ANSWER, *_TASK, "x-gateway-cost-usd", "retry-after", "x-should-retry")

_STRING: Part = {"type": "string"}
_PUBLIC: Part = {"security": []}
_SECONDS: Part = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}


@router.get("/openapi.json", summary="This API as an OpenAPI document")
async def show_document() -> Response:
    return Response(render_document(), media_type="application/json", headers={"cache-control": "public, max-age=300"})


@cache
def render_document() -> bytes:
    """The document as JSON; a later call returns the same bytes."""
    return orjson.dumps(build_document())


def build_document() -> Part:
    """The document of every route outside the admin API: its parameters, examples, answers, headers and errors."""
    paths = _image_paths() | _task_paths() | _reading_paths() | _public_paths()
    shared = share_answers(paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": "imagegate", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in ("images", "tasks", "models", "key", "artifacts", "callbacks", "health")]
        + [{"name": "document"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "A key of the gateway."}},
            "headers": header_components(),
            "responses": shared,
            "examples": error_examples((*_MAKING, *_OTHERS)),
            "schemas": describe_schemas(),
        },
    }


def _describe(
    name: str, summary: str, tag: str, answers: Part, *, parameters: Sequence[Part] = (), is_public: bool = False
) -> Part:
    """One operation of a path, as an OpenAPI object."""
    made: Part = {"operationId": name, "summary": summary, "tags": [tag], "responses": answers}
    if parameters:
        made["parameters"] = list(parameters)
    return made | (_PUBLIC if is_public else {})


def _answer(about: str, content: Part, headers: Sequence[str] = ()) -> Part:
    return {"description": about, "headers": refer_to_headers((*EVERY_ANSWER, *headers)), "content": content}


def _json(schema: str, example: Any = None) -> Part:
    return {"application/json": {"schema": refer(schema)} | ({} if example is None else {"example": example})}


def _parameter(place: str, name: str, about: str, schema: Part, **more: Any) -> Part:
    made = {"name": name, "in": place, "description": about, "schema": schema}
    return made | ({"required": True} if place == "path" else {}) | more


def _request_headers() -> list[Part]:
    """The headers of an image request as OpenAPI parameters, without `Authorization` and those of the body."""
    found: Mapping[str, tuple[str, Part]] = {
        "Idempotency-Key": (
            "Requests with the same text are one task.",
            {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
        ),
        "Prefer": ("`respond-async`: a task at once. `wait=SECONDS`: a task after so long.", _STRING),
        "X-Gateway-Upstream": ("The only upstream, or `upstream/credential`, that may serve the request.", _STRING),
        "X-Gateway-Route": ("The strategy for this request.", {"type": "string", "enum": list(STRATEGIES)}),
        "X-Gateway-Webhook": ("An `https://` address that receives a message at the task's end.", _STRING),
        "X-Gateway-Dry-Run": ("`1`: answer with the plan and its prices, send nothing.", {"enum": ["0", "1"]}),
        "X-Request-Id": ("The request's id.", {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,100}$"}),
        "X-Stainless-Retry-Count": ("Earlier tries; OpenAI's SDKs send it.", {"type": "string", "pattern": "^[0-9]+$"}),
        "X-Stainless-Read-Timeout": ("The SDK's time-out in seconds.", _SECONDS),
        "X-Stainless-Timeout": ("The same, from other SDKs.", _SECONDS),
    }
    return [_parameter("header", name, about, schema) for name, (about, schema) in found.items()]


def _image_paths() -> Part:
    generations = {"application/json": {"schema": refer("GenerationRequest"), "examples": examples.GENERATIONS}}
    edits = {
        "multipart/form-data": {"schema": refer("EditForm"), "examples": examples.FORMS},
        "application/json": {"schema": refer("EditRequest"), "examples": examples.EDITS},
    }
    unserved = describe_errors((*_ALWAYS, errors.UnsupportedEndpoint))
    return {
        "/v1/images/generations": {"post": _describe_making("generate", "Make images from a prompt", generations)},
        "/v1/images/edits": {"post": _describe_making("edit", "Make images from a prompt and images", edits)},
        **{
            path: {"post": _describe(name, "Not served", "images", unserved, is_public=True)}
            for path, name in {
                "/v1/images/variations": "vary",
                "/v1/chat/completions": "complete_chat",
                "/v1/responses": "respond",
            }.items()
        },
    }


def _describe_making(name: str, summary: str, content: Part) -> Part:
    event = {"type": "string", "contentMediaType": "text/event-stream", "contentSchema": refer("ImageEvent")}
    answer = {"anyOf": [refer("ImagesAnswer"), refer("Plan")]}
    made = {
        "application/json": {"schema": answer},
        "text/event-stream": {"schema": event},
    }
    answers: Part = {
        "200": _answer("The images; with `stream` as events; or the plan of a dry run.", made, (*_TASK, *_MADE)),
        "202": _answer("The task, if `Prefer` asked for it.", _json("Task"), (*_TASK, "location", "retry-after")),
    }
    answers |= describe_errors(_MAKING, _OF_FAILURES)
    operation = _describe(name, summary, "images", answers, parameters=_request_headers())
    return operation | {"requestBody": {"required": True, "content": content}}


def _task_paths() -> Part:
    task_id = _parameter("path", "task_id", "The task's id.", _STRING)
    limit = {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 20}
    answers = {"200": _answer("The task.", _json("Task"), ("retry-after",))}
    answers |= describe_errors((*_KEYED, errors.TaskNotFound))
    page = [
        _parameter("query", "limit", "Tasks of one page.", limit),
        _parameter("query", "after", "The last id of the page before.", _STRING),
    ]
    listed = {"200": _answer("Tasks, newest first.", _json("TaskList"))} | describe_errors(_KEYED)
    cancel = "Cancel a task for which nothing was sent yet"
    return {
        "/v1/tasks": {"get": _describe("list_tasks", "This key's tasks", "tasks", listed, parameters=page)},
        "/v1/tasks/{task_id}": {
            "get": _describe("read_task", "One task of this key", "tasks", answers, parameters=[task_id]),
            "delete": _describe("cancel_task", cancel, "tasks", answers, parameters=[task_id]),
        },
    }


def _reading_paths() -> Part:
    model = _parameter("path", "model", "Its id, which may hold `/`.", _STRING, example="gpt-image-2")
    models = {"200": _answer("The models.", _json("ModelList"), RATES)} | describe_errors(_KEYED)
    one = {"200": _answer("The model.", _json("Model"), RATES)} | describe_errors((*_KEYED, errors.ModelNotFound))
    key = {"200": _answer("The key.", _json("Key"), RATES)} | describe_errors(_KEYED)
    about = "This key: its rights, its limits and the amounts it has spent"
    return {
        "/v1/models": {"get": _describe("list_models", "The models this key may use", "models", models)},
        "/v1/models/{model}": {"get": _describe("show_model", "One model", "models", one, parameters=[model])},
        "/v1/key": {"get": _describe("show_key", about, "key", key)},
    }


def _public_paths() -> Part:
    artifact = [
        _parameter("path", "artifact_id", "The picture's id.", _STRING),
        _parameter("query", "exp", "The end of the link, in unix seconds.", _STRING, required=True),
        _parameter("query", "sig", "The link's signature.", _STRING, required=True),
    ]
    pictures = {f"image/{form}": {"schema": {"type": "string", "format": "binary"}} for form in ("png", "jpeg", "webp")}
    read = {"200": _answer("The picture.", pictures)}
    read |= describe_errors((*_ALWAYS, errors.ArtifactNotFound, errors.StorageFull))
    called = [_parameter("path", name, "Of the signed address.", _STRING) for name in ("kind", "task_id", "call_id")]
    called.append(_parameter("query", "token", "The signature of the address.", _STRING))
    heard: Part = {"200": _answer("The hint was recorded, or needs nothing.", {})}
    heard |= describe_errors((*_ALWAYS, errors.UnknownRoute, errors.QuotaStoreUnavailable))
    alive = {"200": _answer("The process lives.", _json("Health", {"status": "ok"}))} | describe_errors(_ALWAYS)
    ready = {"200": _answer("It takes work.", _json("Health", {"status": "ok"}))} | describe_errors(_ALWAYS)
    ready["503"] = _answer(
        "It takes no work; or an error.",
        {"application/json": {"schema": {"anyOf": [refer("Unready"), refer("ErrorAnswer")]}}},
        ("retry-after", "x-should-retry"),
    )
    shown = {"200": _answer("The document.", {"application/json": {"schema": {"type": "object"}}})}
    shown |= describe_errors(_ALWAYS)
    routes = {
        ("/v1/artifacts/{artifact_id}", "get"): ("read_artifact", "A picture, by its signed link", "artifacts", read),
        ("/callbacks/{kind}/{task_id}/{call_id}", "post"): (
            "receive_callback",
            "A vendor's hint that a paid call has ended",
            "callbacks",
            heard,
        ),
        ("/healthz", "get"): ("healthz", "The process answers", "health", alive),
        ("/readyz", "get"): ("readyz", "The process takes new work", "health", ready),
        ("/openapi.json", "get"): ("show_document", "This API as an OpenAPI document", "document", shown),
    }
    parameters = {"read_artifact": artifact, "receive_callback": called}
    return {
        path: {method: _describe(*facts, parameters=parameters.get(facts[0], ()), is_public=True)}
        for (path, method), facts in routes.items()
    }
