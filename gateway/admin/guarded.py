"""The route class of the admin API: it identifies the operator before it reads the body.

It raises errors of validation, of the ledger's arguments and of the store as PublicErrors.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Message
from typing_extensions import override

from gateway import errors
from gateway.admin.access import authorize, known_admin, known_viewer
from gateway.callers.operator_store import Role
from gateway.operations.limits import public_arguments
from gateway.store.client import StoreUnavailable

BODY_BYTES = 65_536
"""The longest body, in bytes, that an operator may send."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_ROLES = {known_admin: Role.ADMIN, known_viewer: Role.VIEWER}


class GuardedRoute(APIRoute):
    """A route that checks the token, and the role that its signature names, before it reads the body."""

    @override
    def get_route_handler(self) -> Handler:
        wanted = self.role
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            with _public_errors():
                request.state.operator = await authorize(request, wanted)
                response = await handle(await _with_body(request))
            # Some answers hold a secret; no proxy may keep one.
            response.headers["cache-control"] = "no-store"
            return response

        return answer

    @property
    def role(self) -> Role:
        """The least role that may call this route. Raises TypeError for an endpoint that names no role."""
        for dependency in self.dependant.dependencies:
            if dependency.call in _ROLES:
                return _ROLES[dependency.call]
        raise TypeError(f"{self.path} has neither `AdminDep` nor `ViewerDep`")


async def _with_body(request: Request) -> Request:
    """Read the whole body, and return a request that holds it: FastAPI itself would read any length.

    Raises RequestTooLarge for a body above BODY_BYTES, RequestTimeout for one that breaks off.
    """
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > BODY_BYTES:
                raise errors.RequestTooLarge(f"A request to the admin API may have at most {BODY_BYTES:,} bytes.")
    except ClientDisconnect as error:
        raise errors.RequestTimeout("The request's body ended before it was complete.") from error

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return Request(request.scope, receive)


@contextmanager
def _public_errors() -> Iterator[None]:
    """Raise errors of validation, of the ledger's arguments and of the store, within the context, as PublicErrors."""
    try:
        with public_arguments():
            yield
    except RequestValidationError as error:
        raise explain(error.errors()[0]) from error
    except StoreUnavailable as error:
        raise errors.QuotaStoreUnavailable(
            "The gateway's Redis does not answer. Try again shortly.", retry_after=5
        ) from error


def explain(detail: dict[str, Any]) -> errors.PublicError:
    """One error of pydantic as a PublicError, which names the field unless the whole body is wrong."""
    kind, place = str(detail["type"]), detail["loc"]
    if kind == "json_invalid" or (place == ("body",) and kind != "missing"):
        return errors.InvalidValue("The body must be a JSON object, sent as application/json.")
    if place == ("body",):
        return errors.MissingParameter("This needs a body: a JSON object, sent as application/json.")
    # A place begins with `body`, `path` or `query`.
    param = ".".join(str(part) for part in place[1:])[:200]
    if kind == "missing":
        return errors.MissingParameter(f"`{param}` is required.", param=param)
    if kind == "extra_forbidden":
        return errors.UnknownParameter("There is no such field.", param=param)
    reason = str(detail["msg"]).removeprefix("Value error, ")
    return errors.InvalidValue(f"`{param}` is not valid: {reason[:300]}.", param=param)
