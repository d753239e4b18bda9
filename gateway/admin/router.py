"""All admin routes under one prefix, and the OpenAPI document that describes them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from gateway import errors
from gateway.admin import audit, changes, keys, limits, money, operators, reports, teams, upstreams, webhooks
from gateway.admin.access import ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import ErrorAnswer, refusals
from gateway.callers.operator_store import Role
from gateway.errors import PublicError

PREFIX = "/admin/api/v1"

VERSION = "1.1.0"
"""Of the API and not of the gateway: a new field or route raises the second number."""

_PARTS = (keys, teams, limits, reports, money, audit, changes, operators, upstreams, webhooks)

_ALWAYS: tuple[type[PublicError], ...] = (
    errors.InvalidValue,
    errors.InvalidApiKey,
    errors.RateLimited,
    errors.QuotaStoreUnavailable,
)
_WITH_BODY: tuple[type[PublicError], ...] = (
    errors.UnknownParameter,
    errors.MissingParameter,
    errors.RequestTimeout,
    errors.RequestTooLarge,
)

_ABOUT = """Keys, teams, limits, money and history of an imagegate gateway.

Every request needs `Authorization: Bearer TOKEN`, with the token of GATEWAY_ADMIN_TOKEN or an operator's. Dollars are
texts, answered with six digits, as in `"1.500000"`; times are ISO 8601 in UTC. Every error has OpenAI's form, with the
wrong field in `param`."""


def admin_router() -> APIRouter:
    """The whole admin API, without its prefix."""
    router = APIRouter(route_class=GuardedRoute)
    for part in _PARTS:
        router.include_router(part.router)
    document: dict[str, Any] = {}

    @router.get("/openapi.json", summary="This API as an OpenAPI document", tags=["document"])
    async def show_document(operator: ViewerDep) -> dict[str, Any]:
        return document

    document |= describe_routes(router, PREFIX)
    return router


def describe_routes(router: APIRouter, prefix: str) -> dict[str, Any]:
    """The document of a router's routes under `prefix`: FastAPI's, with the roles and the errors of every route."""
    holder = APIRouter()
    holder.include_router(router, prefix=prefix)
    document = get_openapi(title="imagegate admin API", version=VERSION, description=_ABOUT, routes=holder.routes)
    schemas = document["components"]["schemas"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    error = ErrorAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= error.pop("$defs") | {"ErrorAnswer": error}
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    needed: dict[str, list[str]] = {"token": []}
    document["security"] = [needed]
    for context in iter_route_contexts(holder.routes):
        route = context.original_route
        assert isinstance(route, GuardedRoute)
        for method in route.methods or ():
            _complete(document["paths"][prefix + route.path_format][method.lower()], route)
    return document


def _complete(operation: dict[str, Any], route: GuardedRoute) -> None:
    """Add the guard's part to an operation: its role and its errors."""
    operation["operationId"] = route.name
    operation["x-role"] = str(route.role)
    # FastAPI's own, which this API never answers: a wrong field is a 400.
    operation["responses"].pop("422", None)
    kinds = list(_ALWAYS)
    if route.role is Role.ADMIN:
        kinds.append(errors.RoleNotAllowed)
    if route.body_field is not None:
        kinds += _WITH_BODY
    for status, refusal in refusals(*kinds).items():
        shape = {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}
        operation["responses"].setdefault(
            str(status), {"description": refusal["description"], "content": {"application/json": shape}}
        )
