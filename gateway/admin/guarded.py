"""The door of every admin route: the operator is known before the body is read, and each refusal is a public error.

The route class of all routers in `gateway.admin`. Never echoes what was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Message
from typing_extensions import override

from gateway import errors
from gateway.admin.access import authorize, known_admin, known_viewer
from gateway.admin.refusals import translated
from gateway.callers.operator_store import Role

BODY_BYTES = 65_536
"""The longest body that an operator may send."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_ROLES = {known_admin: Role.ADMIN, known_viewer: Role.VIEWER}


class GuardedRoute(APIRoute):
    """A route that says in its signature who may call it."""

    @override
    def get_route_handler(self) -> Handler:
        wanted = self.role
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            with translated():
                request.state.operator = await authorize(request, wanted)
                response = await handle(await _with_body(request))
            # Some answers hold a secret, and none is to be kept by a proxy.
            response.headers["cache-control"] = "no-store"
            return response

        return answer

    @property
    def role(self) -> Role:
        """The least role that may call it. Raises TypeError for an endpoint that does not say."""
        for dependency in self.dependant.dependencies:
            if dependency.call in _ROLES:
                return _ROLES[dependency.call]
        raise TypeError(f"{self.path} says neither `AdminDep` nor `ViewerDep`")


async def _with_body(request: Request) -> Request:
    """The request with its body read, at most so much of it: FastAPI itself would read any."""
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
