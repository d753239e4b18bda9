"""Random questions to every admin route, made from its schema and then spoiled: never a 5xx, always a plain refusal."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.gateways import error_of
from tests.support.operator_client import API, TOKEN, Office

CASES = 250

STRANGE: list[Any] = [
    *(None, True, 0, -1, 2**63, 10**40, 2.5, 1e308, "", "\x00", "é𝄞\u202e", " a ", "x" * 600, "=1+1", "../..", "%2F"),
    *("1.50", "-0.000001", "1e9", "NaN", "9" * 19, "2026-01-01", "7d", "99999w", "0001-01-01", "everyone", "team:x"),
    *([], [[]], ["x"], {}, {"a": {"b": None}}, {"x" * 100: "y"}, ["day", "day"], "key_nothing", "rec_" + "7" * 26),
    *("rec_" + "0" * 26, "rec_zzzzzzzzzzzzzzzzzzzzzzzzzz", "team:", "key_", "\ud800", "igw_" + "0" * 38),
]


@pytest.fixture
async def send(office: Office) -> AsyncIterator[Callable[..., Any]]:
    """Sends a request to an application in this loop; what is checked of each answer is checked here."""

    async def ask(method: str, path: str, content: bytes | None, headers: dict[str, str]) -> int:
        sent = {"authorization": f"Bearer {TOKEN}"} | headers
        answer = await client.request(method, API + path, content=content, headers=sent)
        assert answer.status_code < 500, (method, path, content, answer.text)
        if answer.is_error:
            error_of(answer)
        return answer.status_code

    async with (
        office.gateway.inside() as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        yield ask


async def test_random_questions_never_fail(office: Office, send: Callable[..., Any]) -> None:
    """Each operation with random paths, queries and bodies, half of them nearly right."""
    document = office.get("/openapi.json")
    known = {"key_id": office.gateway.record.id if office.gateway.record else "", "team": "design", "name": "eva"}
    operations = [
        (method.upper(), path.removeprefix(API), operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    chance = random.Random(7)
    statuses: set[int] = set()
    for number in range(CASES):
        method, path, operation = operations[number % len(operations)]
        question, query = path, []
        for parameter in operation.get("parameters", ()):
            name = parameter["name"]
            if parameter["in"] == "path":
                value = known.get(name, "x") if chance.random() < 0.6 else _text(chance.choice(STRANGE)) or "x"
                question = question.replace(f"{{{name}}}", quote(value.encode("utf-8", "replace"), safe=""))
            elif chance.random() < 0.4:
                query.append(f"{name}={quote(_text(chance.choice(STRANGE)).encode('utf-8', 'replace'))}")
        body, headers = None, {}
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            body = _spoil(chance, _make(chance, document, schema))
            headers = {"content-type": chance.choice(["application/json"] * 8 + ["text/plain", "application/x+json"])}
        statuses.add(await send(method, "?".join([question, "&".join(query)] if query else [question]), body, headers))
    assert {200, 400, 404} <= statuses


async def test_strange_heads_never_fail(send: Callable[..., Any]) -> None:
    """Broken tokens, types and lengths are refusals."""
    for headers in (
        {"authorization": "Bearer " + "x" * 5000},
        {"authorization": "Bearer igo_" + "é" * 38},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": ";;="},
        {"content-encoding": "gzip", "content-type": "application/json"},
    ):
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        assert await send("POST", "/keys", b'{"name": "x"', encoded) in (400, 401)


def _make(chance: random.Random, document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """A body by its schema, some of whose values are strange."""
    schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if chance.random() < 0.05:
        return chance.choice(STRANGE)
    if "anyOf" in schema:
        return _make(chance, document, chance.choice(schema["anyOf"]))
    match schema.get("type"):
        case "object" if "properties" in schema:
            needed = schema.get("required", [])
            named = [name for name in schema["properties"] if name in needed or chance.random() < 0.5]
            return {name: _make(chance, document, schema["properties"][name]) for name in named}
        case "array":
            return [_make(chance, document, schema.get("items", {})) for _ in range(chance.randint(0, 3))]
        case "boolean":
            return chance.random() < 0.5
        case "integer":
            return chance.choice([0, 1, 5, 10**6, -1])
        case "string":
            choices = schema.get("enum") or ["1.50", "design", "everyone", "2026-01-01T00:00:00Z", "10.0.0.0/8"]
            return chance.choice(choices)
        case "null":
            return None
        case _:
            return chance.choice(STRANGE)


def _spoil(chance: random.Random, body: Any) -> bytes:
    """Its bytes, now and then with one of them changed."""
    data = bytearray(json.dumps(body, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass"))
    if chance.random() < 0.2:
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
