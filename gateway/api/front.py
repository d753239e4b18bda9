"""The image routes in front of the framework's router: the same functions, found by one look-up and called at once.

Added by `app` inside the outermost layer. They are refused here while too many requests are under way, before a body is
read. The router knows the routes too, for its lists, and serves whatever is not taken here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api.connection.error_handlers import render
from gateway.api.dependencies import get_caller, get_services
from gateway.callers.auth import Caller
from gateway.errors import PublicError
from gateway.process.admission import AdmittedRequest
from gateway.services import Services

Endpoint = Callable[[Request, Services, Caller], Awaitable[Response]]


class DirectRoutes:
    """`routes` are endpoints of POST by path. The framework's way to them costs as much as half of their own work."""

    def __init__(self, app: ASGIApp, *, routes: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._routes = dict(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._routes:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        services = get_services(request)
        with AdmittedRequest(services.admission) as places:
            try:
                places.enter(len(services.running))
                caller = await get_caller(request, services)
                places.enter_key(caller.key.id)
                response = await self._routes[scope["path"]](request, services, caller)
            except PublicError as error:
                response = render(error)
            await response(scope, receive, send)
