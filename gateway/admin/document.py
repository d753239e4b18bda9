"""The admin API as an OpenAPI document: FastAPI's, with the refusals that every route shares and the role it needs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from gateway import errors
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import ErrorAnswer, refusals
from gateway.callers.operator_store import Role
from gateway.errors import PublicError

VERSION = "1.0.0"
"""Of the API and not of the gateway: a field or route that is added raises the second number."""

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


def describe_routes(router: APIRouter, prefix: str) -> dict[str, Any]:
    """The document of a router's routes, as they are served under `prefix`."""
    holder = APIRouter()
    holder.include_router(router, prefix=prefix)
    document = get_openapi(title="imagegate admin API", version=VERSION, description=_ABOUT, routes=holder.routes)
    schemas = document["components"]["schemas"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    facts = ErrorAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= facts.pop("$defs") | {"ErrorAnswer": facts}
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
    """Tell what the guard adds to an operation."""
    operation["operationId"] = route.name
    operation["x-role"] = str(route.role)
    # FastAPI's own, which this API never answers: a wrong field is a 400.
    operation["responses"].pop("422", None)
    kinds = list(_ALWAYS)
    if route.role is Role.ADMIN:
        kinds.append(errors.RoleNotAllowed)
    if route.body_field is not None:
        kinds += _WITH_BODY
    for status, told in refusals(*kinds).items():
        shape = {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}
        operation["responses"].setdefault(
            str(status), {"description": told["description"], "content": {"application/json": shape}}
        )
