"""All admin routes under one prefix, and the OpenAPI document that describes them."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from gateway import errors
from gateway.admin import audit, changes, keys, limits, money, operators, pauses, reports, teams, upstreams, webhooks
from gateway.admin.access import ViewerDep
from gateway.admin.examples import BODIES, VALUES
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import KINDS, ErrorAnswer
from gateway.api.document_parts import (
    OF_ERRORS,
    describe_errors,
    error_examples,
    header_components,
    refer_to_headers,
    share_answers,
)
from gateway.callers.operator_store import Role
from gateway.errors import PublicError

PREFIX = "/admin/api/v1"

VERSION = "1.2.0"
"""The version of the API and not of the gateway: a new field or route raises the second number."""

_PARTS = (keys, teams, limits, reports, money, audit, changes, operators, upstreams, pauses, webhooks)

_ALWAYS: tuple[type[PublicError], ...] = (
    errors.InvalidValue,
    errors.InvalidApiKey,
    errors.RequestTimeout,
    errors.RequestTooLarge,
    errors.RateLimited,
    errors.HeadersTooLarge,
    errors.InternalError,
    errors.QuotaStoreUnavailable,
    errors.Overloaded,
)

_HEADERS = ("x-request-id", "x-gateway-simulated", "cache-control")

_ABOUT = """Keys, teams, limits, money and history of an imagegate gateway.

Every request needs `Authorization: Bearer TOKEN`, with the token of GATEWAY_ADMIN_TOKEN or an operator's. Dollars are
texts, answered with six digits, as in `"1.500000"`; times are ISO 8601 in UTC. Every error has OpenAI's form, with the
wrong field in `param`."""


def admin_router() -> APIRouter:
    """Return the routes of the whole admin API, without its prefix. The first request for its document builds it."""
    router = APIRouter(route_class=GuardedRoute)
    for part in _PARTS:
        router.include_router(part.router)
    build = cache(lambda: describe_routes(router, PREFIX))

    @router.get("/openapi.json", summary="This API as an OpenAPI document", tags=["document"])
    async def show_document(operator: ViewerDep) -> dict[str, Any]:
        return build()

    return router


def describe_routes(router: APIRouter, prefix: str) -> dict[str, Any]:
    """The OpenAPI document of a router's routes under `prefix`.

    It is FastAPI's document, with the role, the errors, the headers and the examples of every route.
    """
    holder = APIRouter()
    holder.include_router(router, prefix=prefix)
    document = get_openapi(title="imagegate admin API", version=VERSION, description=_ABOUT, routes=holder.routes)
    components = document["components"]
    schemas = components["schemas"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    error = ErrorAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= error.pop("$defs") | {"ErrorAnswer": error}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    needed: dict[str, list[str]] = {"token": []}
    document["security"] = [needed]
    known = set[type[PublicError]]()
    for context in iter_route_contexts(holder.routes):
        route = context.original_route
        assert isinstance(route, GuardedRoute)
        for method in route.methods or ():
            operation = document["paths"][prefix + route.path_format][method.lower()]
            known |= set(_complete(operation, route))
            _add_examples(operation, route)
    components["examples"] = error_examples(sorted(known, key=lambda kind: kind.__name__))
    components["headers"] = {name: one for name, one in header_components().items() if name in (*_HEADERS, *OF_ERRORS)}
    components["headers"]["cache-control"] = {
        "description": "Some answers hold a secret; no proxy may keep one.",
        "schema": {"const": "no-store"},
    }
    components["headers"]["content-disposition"] = {
        "description": "The name of the file, of an answer in CSV.",
        "schema": {"type": "string"},
    }
    components["responses"] = share_answers(document["paths"])
    return document


def _complete(operation: dict[str, Any], route: GuardedRoute) -> list[type[PublicError]]:
    """Add to an operation its role and its headers, and replace its errors. Return the errors."""
    operation["operationId"] = route.name
    operation["x-role"] = str(route.role)
    kinds = list(_ALWAYS)
    if route.role is Role.ADMIN:
        kinds.append(errors.RoleNotAllowed)
    if route.body_field is not None:
        kinds.append(errors.MissingParameter)
    if route.body_field is not None or route.dependant.query_params:
        kinds.append(errors.UnknownParameter)
    by_name = {kind.__name__: kind for kind in errors.table()}
    own = [by_name[name] for answer in route.responses.values() for name in answer.get(KINDS, ())]
    # Without FastAPI's own 422, which this API never answers: a wrong field is a 400.
    answers = {status: answer for status, answer in operation["responses"].items() if int(status) < 400}
    for answer in answers.values():
        more = ("content-disposition",) if "text/csv" in answer.get("content", {}) else ()
        answer["description"] = operation["summary"]
        answer["headers"] = refer_to_headers((*_HEADERS, *more))
    operation["responses"] = answers | describe_errors([*kinds, *own])
    return [*kinds, *own]


def _add_examples(operation: dict[str, Any], route: GuardedRoute) -> None:
    if (bodies := BODIES.get(route.name)) is not None:
        content = operation["requestBody"]["content"]["application/json"]
        content["examples"] = {name: {"summary": name, "value": body} for name, body in bodies.items()}
    for parameter in operation.get("parameters", ()):
        if (example := VALUES.get(parameter["name"])) is not None and parameter["in"] == "path":
            parameter["example"] = example
