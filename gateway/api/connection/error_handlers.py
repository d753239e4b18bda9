"""Errors as HTTP answers in OpenAI's shape: the gateway's own, and the framework's.

An answer to an error of the framework holds nothing of the request but its method, its path and a parameter's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway import errors
from gateway.errors import PublicError

_FOREIGN = (
    ("/openai/", "A client of Azure (`AzureOpenAI`)"),
    ("/v1beta/", "A client of Google's Gemini API"),
    ("/v1/messages", "A client of Anthropic's API"),
    ("/sdapi/", "A client of AUTOMATIC1111"),
    ("/api/generate", "A client of Ollama"),
)
"""Parts of other vendors' paths, and the clients that send them."""

_log = structlog.get_logger(__name__)


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(PublicError, _public)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(RequestValidationError, _invalid)


class ErrorResponse(JSONResponse):
    """An error in OpenAI's shape. Sending it writes its code to `scope["state"]["error_code"]`, for the log line."""

    def __init__(self, error: PublicError) -> None:
        super().__init__(error.body(), status_code=error.status, headers=error.all_headers())
        self._code = error.code

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["error_code"] = self._code
        await super().__call__(scope, receive, send)


def render(error: PublicError) -> JSONResponse:
    return ErrorResponse(error)


def write_last_answer(error: PublicError, request_id: str, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a whole HTTP/1.1 answer with an error and `connection: close`."""
    body = orjson.dumps(error.body())
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
        "connection": "close",
        **error.all_headers(),
    }
    lines = [b"%s: %s\r\n" % pair for pair in default_headers]
    lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items()]
    return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])


async def _public(request: Request, error: Exception) -> JSONResponse:
    return render(cast(PublicError, error))


async def _framework(request: Request, error: Exception) -> JSONResponse:
    """The answer to an error of Starlette: a 404 and a 405 keep their status, any other becomes a 400."""
    raised = cast(HTTPException, error)
    path = request.url.path[:200]
    if raised.status_code == 404:
        return render(errors.UnknownRoute(f"Unknown request URL: {request.method} {path}. {_describe_routes(path)}"))
    if raised.status_code == 405:
        headers = {name.lower(): text for name, text in (raised.headers or {}).items()}
        headers["allow"] = allowed = headers.get("allow", "").replace("GET", "GET, HEAD")
        made = errors.MethodNotAllowed(
            f"{request.method} is not allowed for {path}; send {allowed.replace(', ', ' or ')}."
        )
        made.headers |= headers
        return render(made)
    return render(errors.InvalidValue("The request cannot be read."))


def _describe_routes(path: str) -> str:
    """The right routes for a path that is not served; for a path of another vendor's client, the right client."""
    for part, client in _FOREIGN:
        if part in path:
            return (
                f"{client} sends this path. Use a client of OpenAI's API (in OpenAI's SDKs the class `OpenAI`), with "
                "this gateway's address and /v1 as its base URL and a key of this gateway as its API key."
            )
    routes = "The image routes are POST /v1/images/generations and POST /v1/images/edits."
    if path.rstrip("/") in ("", "/v1"):
        return f"This is imagegate, and it runs: set an SDK's `base_url` to this address, ending in /v1. {routes}"
    return routes


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """The answer 400 for a wrong path or query parameter, with its name and the validator's reason, but no value."""
    fault = cast(RequestValidationError, error).errors()[0]
    name, reason = str(fault["loc"][-1]), str(fault["msg"])
    return render(errors.InvalidValue(f"`{name}` is invalid: {reason}.", param=name))
