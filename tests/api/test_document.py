"""The callers' OpenAPI document: valid, complete, and the same as what is checked and served."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from gateway import errors
from gateway.api.document import build_document
from gateway.api.document_parts import ANSWER_HEADERS
from gateway.app import EXPOSED
from gateway.jobs.job import Operation
from gateway.jobs.parameter_table import PARAMETERS, PICTURE_NAMES
from gateway.jobs.parameters import read_params
from tests.support.gateways import EDITS, GENERATIONS, Gateway, error_of
from tests.support.openapi import answers, codes, components, operations, references, resolve, validator
from tests.support.plain_pictures import data_url, mask, png

DOCUMENT = build_document()
OPERATIONS = operations(DOCUMENT)
REQUESTS: dict[str, Operation] = {"GenerationRequest": "generation", "EditRequest": "edit", "EditForm": "edit"}

TEXTS = ["auto", "a", "1k", "2K", "8K", "low", "max", "hd", "png", "gif", "opaque", "url", "b64_json", "vivid", "true"]
SIZES = ["1024x1024", "1536X1024", "16:9", " 3:2 ", "1024", "big", "0x0", "16:", "x"]
LENGTHS = [size for most in (32, 200, 512, 4096, 32_000) for size in (most, most + 1)]
NUMBERS = [-1, 0, 1, 2.0, 1.5, 3, 4, 10, 11, 100, 101, 10**30]
OTHERS: list[Any] = [None, "", " ", "\u3000\n", "a\x00b", True, False, [], ["a"], {}, {"a": 1}]
VALUES = [*TEXTS, *SIZES, *("y" * length for length in LENGTHS), *NUMBERS, *OTHERS]


def schema_of(name: str) -> dict[str, Any]:
    return DOCUMENT["components"]["schemas"][name]


def is_read(operation: Operation, field: str, value: Any) -> bool:
    """True when the gateway's own check passes the value of this field."""
    fields = {"prompt": "a cat", field: value}
    try:
        read_params(fields, operation, is_text=False, refuse_unknown=True)
    except errors.PublicError as error:
        return error.param != field
    return True


def test_document_is_valid() -> None:
    """It is an OpenAPI 3.1 document, each reference leads somewhere, and each component is used."""
    validate(DOCUMENT)
    assert set(references(DOCUMENT)) == components(DOCUMENT)


def test_every_route_is_described(gateway: Gateway) -> None:
    """The document has the served routes and no others, and a key is needed exactly where it says so."""
    served = {(method.upper(), path) for path, methods in gateway.app.openapi()["paths"].items() for method in methods}
    assert {key for key in served if key[0] not in ("HEAD", "OPTIONS")} == set(OPERATIONS)
    for (method, path), operation in OPERATIONS.items():
        is_closed = gateway.client.request(method, path).status_code == 401
        assert is_closed == (operation.get("security") != []), f"{method} {path}"
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))


def test_document_needs_no_key(gateway: Gateway) -> None:
    """Anybody may read it, and a proxy may keep it."""
    answer = gateway.client.get("/openapi.json")
    assert answer.json() == json.loads(json.dumps(DOCUMENT))
    assert "public" in answer.headers["cache-control"]


@pytest.mark.parametrize("name", REQUESTS)
def test_every_parameter_is_described(name: str) -> None:
    """A request's properties are the parameters of the table and the names of pictures, and no others."""
    described = {field.removesuffix("[]") for field in schema_of(name)["properties"]}
    described |= {f"{prefix.removeprefix('^')}*" for prefix in schema_of(name)["patternProperties"]}
    assert described == set(PARAMETERS) | set(PICTURE_NAMES)
    assert schema_of(name)["required"] == ["prompt"]


@pytest.mark.parametrize("field", [field for field, one in PARAMETERS.items() if one.kind != "pictures"])
def test_parameter_is_described_as_checked(field: str) -> None:
    """A value that the document allows is read, and one that it does not is refused, at every edge of every range."""
    name, place = (field, "properties") if field != "frame_*" else ("frame_count", "patternProperties")
    described = [schema_of(request)[place][field.replace("frame_*", "^frame_")] for request in REQUESTS]
    assert described[0] == described[1] == described[2]
    check = validator(DOCUMENT, described[0])
    for value in VALUES:
        assert check.is_valid(value) == is_read("edit", name, value), (field, str(value)[:40])


@pytest.mark.parametrize("field", PICTURE_NAMES)
def test_pictures_of_generations_are_refused_as_described(field: str) -> None:
    """A generation's schema allows no picture under any name, and neither does the gateway."""
    check = validator(DOCUMENT, schema_of("GenerationRequest")["properties"][field])
    for value in (None, "", True, data_url(png())):
        assert check.is_valid(value) == is_read("generation", field, value), (field, value)


PICTURE = data_url(mask())

REFERENCES: list[tuple[Any, bool]] = [
    *((PICTURE, True), ([PICTURE], True), ([{"image_url": PICTURE}], True), ("", True), (None, True)),
    *(("no picture", False), (["no picture"], False), ([""], False), ([{}], False), (5, False), ([None], False)),
    *(([{"file_id": "f"}], False), ({"image_url": PICTURE, "file_id": "f"}, False), ({"image_url": ""}, False)),
]


@pytest.mark.parametrize(("value", "is_right"), REFERENCES, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("field", ["mask", "image_urls"])
def test_pictures_of_edits_are_read_as_described(gateway: Gateway, field: str, value: Any, is_right: bool) -> None:
    """A picture in JSON is read where the schema allows it, and refused where it does not."""
    assert validator(DOCUMENT, schema_of("EditRequest")["properties"][field]).is_valid(value) == is_right
    body = {"prompt": "a cat", "image": PICTURE, field: value}
    if field != "mask" and value not in ("", None):
        del body["image"]
    answer = gateway.post(EDITS, headers={"x-gateway-dry-run": "1"}, json=body)
    assert (answer.status_code == 200) == is_right, answer.text


def test_every_error_is_described() -> None:
    """Each error of callers is in the list of codes and has an example; each status says its codes and their type."""
    wanted = {kind for kind in errors.table() if kind not in errors.OF_OPERATORS}
    assert set(schema_of("ErrorCode")["enum"]) == {kind.code for kind in wanted}
    described: set[tuple[int, str]] = set()
    for operation in OPERATIONS.values():
        for status, answer in answers(DOCUMENT, operation).items():
            if int(status) < 400 or "examples" not in answer["content"]["application/json"]:
                continue
            content = answer["content"]["application/json"]
            described |= {(int(status), code) for code in codes(DOCUMENT, operation, status)}
            for example in content["examples"].values():
                validator(DOCUMENT, content["schema"]).validate(resolve(DOCUMENT, example)["value"])
    # No route answers these two: there is no such path, or no such method.
    assert {(kind.status, kind.code) for kind in wanted} - described == {(405, "method_not_allowed")}


def test_every_header_is_described() -> None:
    """Each header that a browser may read is described, and some answer has it."""
    assert set(EXPOSED) == set(ANSWER_HEADERS) == set(DOCUMENT["components"]["headers"])
    used = {
        name
        for operation in OPERATIONS.values()
        for one in answers(DOCUMENT, operation).values()
        for name in one["headers"]
    }
    assert used == set(EXPOSED)


EXAMPLES = [
    (path, kind, name)
    for (_, path), operation in OPERATIONS.items()
    for kind, content in operation.get("requestBody", {"content": {}})["content"].items()
    for name in content["examples"]
]


@pytest.mark.parametrize(("path", "kind", "name"), EXAMPLES, ids=str)
def test_every_example_runs(gateway: Gateway, path: str, kind: str, name: str) -> None:
    """Each example of a request fits its schema and is served, with an answer and headers that are described."""
    content = OPERATIONS["POST", path]["requestBody"]["content"][kind]
    body = content["examples"][name]["value"]
    validator(DOCUMENT, content["schema"]).validate(body)
    if kind == "application/json":
        answer = gateway.post(path, json=body)
    else:
        parts = [(key, one) for key, value in body.items() for one in (value if isinstance(value, list) else [value])]
        answer = gateway.post(path, files=[(key, (None, str(value))) for key, value in parts])
    assert answer.status_code == 200, answer.text
    fits(answer, "POST", path)
    assert not {"x-gateway-dropped-params"} & set(answer.headers)


def fits(answer: httpx.Response, method: str, path: str) -> None:
    """The answer's status, headers and content are as the document describes them."""
    described = answers(DOCUMENT, OPERATIONS[method, path])
    assert str(answer.status_code) in described, (path, answer.status_code, answer.text)
    one = described[str(answer.status_code)]
    own = {name for name in answer.headers if name.startswith(("x-", "retry-", "idempotent-", "location"))}
    undescribed = own - set(one["headers"]) - {"x-accel-buffering", "x-content-type-options"}
    assert not undescribed, (path, answer.status_code, undescribed)
    for name in own & set(one["headers"]):
        header = resolve(DOCUMENT, one["headers"][name])
        validator(DOCUMENT, header["schema"]).validate(answer.headers[name])
    kind = answer.headers["content-type"].partition(";")[0]
    schema = one["content"][kind]["schema"]
    if kind == "application/json":
        validator(DOCUMENT, schema).validate(answer.json())
    elif kind == "text/event-stream":
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
        assert lines
        for line in lines:
            validator(DOCUMENT, schema["contentSchema"]).validate(json.loads(line))


def test_other_answers_fit(gateway: Gateway) -> None:
    """Tasks, models, keys, plans, links and the health of the process are answered as described."""
    gateway.set_limit("usd_total", 10_000_000)
    gateway.set_limit("images_minute", 50)
    promised = gateway.generate({"prefer": "respond-async"}, response_format="url")
    fits(promised, "POST", GENERATIONS)
    gateway.settle()
    task = f"/v1/tasks/{promised.json()['task_id']}"
    made = gateway.get(task)
    fits(made, "GET", "/v1/tasks/{task_id}")
    assert made.json()["status"] == "succeeded"
    fits(gateway.request("DELETE", task), "DELETE", "/v1/tasks/{task_id}")
    fits(gateway.client.get(made.json()["result"]["data"][0]["url"]), "GET", "/v1/artifacts/{artifact_id}")
    fits(gateway.generate({"x-gateway-dry-run": "1"}), "POST", GENERATIONS)
    fits(gateway.generate({"idempotency-key": "k"}), "POST", GENERATIONS)
    fits(gateway.generate({"idempotency-key": "k"}), "POST", GENERATIONS)
    for path in ("/v1/tasks", "/v1/models", "/v1/key", "/healthz", "/readyz", "/openapi.json"):
        fits(gateway.get(path), "GET", path)
    fits(gateway.get("/v1/models/gpt-image-2"), "GET", "/v1/models/{model}")


def test_refusals_fit(gateway: Gateway) -> None:
    """Refusals of every kind have a code that the document names for that route and status."""
    wrong = {"authorization": "Bearer igw_wrong"}
    gateway.set_limit("images_day", 1)
    refused = [
        ("POST", GENERATIONS, gateway.client.post(GENERATIONS, json={"prompt": "a"}, headers=wrong)),
        ("GET", "/v1/key", gateway.client.get("/v1/key", headers=wrong)),
        ("POST", GENERATIONS, gateway.generate(prompt="")),
        ("POST", GENERATIONS, gateway.generate(sise="1024x1024")),
        ("POST", GENERATIONS, gateway.generate(n=11)),
        ("POST", GENERATIONS, gateway.generate(background="transparent")),
        ("POST", GENERATIONS, gateway.generate(model="none")),
        ("POST", GENERATIONS, gateway.generate({"x-gateway-upstream": "anyfast"})),
        ("POST", GENERATIONS, gateway.generate(n=2)),
        ("POST", GENERATIONS, gateway.generate(user="x" * 5 * 2**20)),
        ("POST", "/v1/images/variations", gateway.post("/v1/images/variations")),
        ("GET", "/v1/tasks/{task_id}", gateway.get("/v1/tasks/task_x")),
        ("GET", "/v1/tasks", gateway.get("/v1/tasks?limit=0")),
        ("GET", "/v1/models/{model}", gateway.get("/v1/models/none")),
        ("GET", "/v1/artifacts/{artifact_id}", gateway.get("/v1/artifacts/art_x?exp=1&sig=2")),
        ("POST", "/callbacks/{kind}/{task_id}/{call_id}", gateway.post("/callbacks/a/b/c?token=d")),
    ]
    for method, path, answer in refused:
        assert error_of(answer)["code"] in codes(DOCUMENT, OPERATIONS[method, path], str(answer.status_code)), path
        fits(answer, method, path)
    assert len({error_of(answer)["code"] for *_, answer in refused}) >= 12
