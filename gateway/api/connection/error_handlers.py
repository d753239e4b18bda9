"""Every error in OpenAI's shape: ours, the framework's, and those nobody foresaw. Never echoes what was sent."""

from __future__ import annotations

from typing import cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway import errors
from gateway.errors import PublicError

_log = structlog.get_logger(__name__)


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(PublicError, _public)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(RequestValidationError, _invalid)


def render(error: PublicError) -> JSONResponse:
    return JSONResponse(error.body(), status_code=error.status, headers=error.all_headers())


async def _public(request: Request, error: Exception) -> JSONResponse:
    return render(cast(PublicError, error))


async def _framework(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own 404 and 405, and whatever else it raises by number."""
    raised = cast(HTTPException, error)
    path = request.url.path[:200]
    if raised.status_code == 404:
        return render(
            errors.UnknownRoute(
                f"Unknown request URL: {request.method} {path}. The image routes are POST /v1/images/generations "
                "and POST /v1/images/edits."
            )
        )
    if raised.status_code == 405:
        made = errors.MethodNotAllowed(f"{request.method} is not allowed for {path}.")
        made.headers |= dict(raised.headers or {})
        return render(made)
    return render(errors.InvalidValue("The request cannot be read."))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Of what stands beside the body. Names and words are ours; what was sent is in neither."""
    fault = cast(RequestValidationError, error).errors()[0]
    name, reason = str(fault["loc"][-1]), str(fault["msg"])
    return render(errors.InvalidValue(f"`{name}` is not as it must be: {reason}.", param=name))
