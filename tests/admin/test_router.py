"""The admin API's own description: complete, valid, and the same as what is served."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from openapi_spec_validator import validate

from gateway import errors
from gateway.admin import examples
from gateway.admin.guarded import GuardedRoute
from gateway.admin.router import PREFIX, admin_router, describe_routes
from gateway.api.document import build_document
from tests.support.markdown import code, read
from tests.support.openapi import answers, codes, components, operations, references, validator
from tests.support.operator_client import Office

ROUTES = [context.original_route for context in iter_route_contexts(admin_router().routes)]

PAGE = read(Path(__file__).parents[2] / "docs" / "admin.md")

each_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{min(route.methods)} {route.path}")


@pytest.fixture
def document(office: Office) -> dict[str, Any]:
    """As a viewer reads it."""
    return office.hire("reader").get("/openapi.json")


def test_every_route_is_described(document: dict[str, Any], office: Office) -> None:
    """Every admin route that is served is in the document, once, under a name of its own."""
    told = operations(document)
    served = {
        (method, str(context.path).replace(":path}", "}"))
        for context in iter_route_contexts(office.gateway.app.routes)
        if isinstance(context.original_route, APIRoute) and str(context.path).startswith(PREFIX)
        for method in context.original_route.methods or ()
    }
    assert set(told) == served
    names = [operation["operationId"] for operation in told.values()]
    assert len(names) == len(set(names))


def test_document_is_valid(document: dict[str, Any]) -> None:
    """It is an OpenAPI 3.1 document; each component that is named is there, and each that is there is named."""
    validate(document)
    assert set(references(document)) == components(document)


def test_every_operation_tells_its_refusals(document: dict[str, Any]) -> None:
    """Each operation says what it is for, who may, what it answers with which headers, and how it refuses."""
    for (method, path), operation in operations(document).items():
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["tags"], where
        assert operation["x-role"] in ("admin", "viewer"), where
        told = answers(document, operation)
        assert {"400", "401", "408", "413", "429", "431", "500", "503"} <= set(told), where
        assert ("403" in told) == (operation["x-role"] == "admin"), where
        # Whoever names one thing may name one that does not exist.
        assert ("404" in told) or "{" not in path or re.search("/limits/|/pauses/teams/", path), where
        for status, answer in told.items():
            assert "x-request-id" in answer["headers"], where
            if int(status) >= 400:
                assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer"), where
                assert "`" in answer["description"], where
                assert "retry-after" in answer["headers"], where


def test_both_documents_have_every_error(document: dict[str, Any]) -> None:
    """Each error of the gateway is in this document or in the callers', and those of operators are in this one."""
    told = {
        (int(status), code)
        for operation in operations(document).values()
        for status in operation["responses"]
        if int(status) >= 400
        for code in codes(document, operation, status)
    }
    assert {(kind.status, kind.code) for kind in errors.OF_OPERATORS} <= told
    callers = set(build_document()["components"]["schemas"]["ErrorCode"]["enum"])
    assert {str(code) for _, code in told} | callers == {kind.code for kind in errors.table()}


BODIES = [
    (method, path, name)
    for (method, path), operation in operations(describe_routes(admin_router(), PREFIX)).items()
    if "requestBody" in operation
    for name in operation["requestBody"]["content"]["application/json"]["examples"]
]


@pytest.mark.parametrize(("method", "path", "name"), BODIES, ids=str)
def test_every_body_example_runs(office: Office, document: dict[str, Any], method: str, path: str, name: str) -> None:
    """Each example fits its schema and is accepted, with an answer that fits its own."""
    operation = operations(document)[method, path]
    content = operation["requestBody"]["content"]["application/json"]
    body = content["examples"][name]["value"]
    validator(document, content["schema"]).validate(body)
    values = {parameter["name"]: parameter["example"] for parameter in operation.get("parameters", ())}
    if "key_id" in values:
        values["key_id"] = office.post("/keys", name="example")["id"]
    if "upstream" in values:
        values["upstream"] = "anyfast"
    where = path.removeprefix(PREFIX).format(**values)
    answer = office.ask(method, where, content=json.dumps(body), headers={"content-type": "application/json"})
    told = answers(document, operation)
    assert answer.is_success, answer.text
    assert str(answer.status_code) in told
    validator(document, told[str(answer.status_code)]["content"]["application/json"]["schema"]).validate(answer.json())


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    """Each route that takes a body shows one, and each name in a path has a value."""
    for operation in operations(document).values():
        assert ("requestBody" in operation) == (operation["operationId"] in examples.BODIES)
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] != "path" or parameter["example"]


@each_route
def test_answer_has_a_model(route: GuardedRoute) -> None:
    """What a route answers has a schema, except for the document itself."""
    assert route.response_model is not None
    assert route.path == "/openapi.json" or hasattr(route.response_model, "model_json_schema") or route.response_class


@each_route
def test_who_changes_must_be_admin(route: GuardedRoute) -> None:
    """A viewer may use exactly the routes that change nothing."""
    assert (route.role == "viewer") == (route.methods == {"GET"})


def test_undecided_route_is_refused() -> None:
    """A route that does not say who may call it cannot even be made."""

    async def anybody() -> None:
        """Says nothing about its caller."""

    with pytest.raises(TypeError, match="neither"):
        GuardedRoute("/open", anybody)


def test_every_route_is_told() -> None:
    """The page for operators has each route with its role, and no other."""
    rows = {(row["admin method"], code(row["path"])[0]): row["role"] for row in PAGE.table("admin method").rows}
    routes = {(min(route.methods or ()), route.path_format): str(route.role) for route in ROUTES}
    assert rows == routes


def test_every_example_works(office: Office) -> None:
    """Whoever pastes the page's examples gets what they promise."""
    lines = [line for language, block in PAGE.blocks if language == "sh" for line in block.splitlines()]
    examples = [line for line in lines if line.startswith("api ")]
    assert len(examples) > 20
    for line in examples:
        key = office.post("/keys", name="example")["id"]
        method, path, body = read_example(line.replace("key_01k0000000000000000000000", key))
        answer = office.ask(method, path, content=body, headers={"content-type": "application/json"})
        # The example's task is nobody's, and its message too.
        is_nobodys = "task_" in path or "msg_" in path
        assert answer.is_success or (answer.status_code == 404 and is_nobodys), (line, answer.text)


def read_example(line: str) -> tuple[str, str, str | None]:
    """Method, path and body of a call by curl."""
    words = shlex.split(line.partition(" > ")[0])
    path = next(word.removeprefix("$at") for word in words if word.startswith("$at"))
    body = words[words.index("-d") + 1] if "-d" in words else None
    method = words[words.index("-X") + 1] if "-X" in words else "GET" if body is None else "POST"
    return method, path, body
