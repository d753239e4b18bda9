"""Classes of faults that were published for gateways and consoles of this kind, each asked of this one.

`docs/security.md` has the table: the class, what was seen elsewhere, what prevents it here.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.catalogue.catalogue import CatalogueError
from gateway.catalogue.catalogue import read as read_catalogue
from tests.support.gateways import EDITS, GENERATIONS, Gateway, Gateways, error_of, small
from tests.support.operator_client import API, TOKEN, Office
from tests.support.wire_requests import read_status

CPU_S = 0.25
"""Seconds of processor time that one short request may cost the gateway's thread."""


@pytest.fixture
def office(gateways: Gateways) -> Office:
    return Office(gateways.open(settings={"admin_token": TOKEN}))


@pytest.fixture
def gateway(office: Office) -> Gateway:
    return office.gateway


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port of an attacker's, to which nothing may connect."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("name", ["api_base", "base_url", "api_key", "proxy", "custom_llm_provider", "model_config"])
def test_caller_names_no_upstream_address(gateway: Gateway, listener: socket.socket, name: str) -> None:
    """A field or header that elsewhere sends the operator's key to an address of the caller's does nothing here."""
    there = f"http://127.0.0.1:{listener.getsockname()[1]}"
    heads = ["x-portkey-custom-host", "helicone-target-url", "x-upstream-url", "x-openai-base-url", "x-forwarded-host"]
    answer = gateway.generate(headers=dict.fromkeys(heads, there), **{name: there})
    assert answer.status_code == 200, answer.text
    assert len(gateway.simulator.book()) == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{}/", "https://a.test@127.0.0.1:{}/", "http://127.0.0.1:{}\\@a.test/"]
)
def test_caller_opens_no_inner_address(gateway: Gateway, listener: socket.socket, url: str) -> None:
    """A picture's URL or a webhook that leads inside is refused, also where two parsers would read it differently."""
    there = url.format(listener.getsockname()[1])
    edit = gateway.post(EDITS, json={"prompt": "a cat", "images": [{"image_url": there}]})
    hook = gateway.generate(headers={"x-gateway-webhook": there})
    assert (edit.status_code, hook.status_code) == (400, 400), (edit.text, hook.text)
    assert "127.0.0.1" not in edit.text


SECRET = "igw_" + "s3cr3t" * 6 + "zz"


@pytest.mark.parametrize("header", [f"Bearer {SECRET}", SECRET, f"Basic {SECRET}", f"bearer  {SECRET}"])
def test_wrong_key_is_not_repeated(gateway: Gateway, header: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither the answer to a wrong key nor the log repeats it."""
    answer = gateway.client.get("/v1/models", headers={"authorization": header})
    assert answer.status_code == 401
    assert SECRET[4:20] not in answer.text + str(answer.headers) + "".join(capfd.readouterr())


TRAVERSALS = ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "....//etc/passwd", "a%00.png"]
TRAVERSALS += [
    "/etc/passwd",
    "%252e%252e%252fetc%252fpasswd",
    "..%5c..%5cwin.ini",
    "art_x.png/../../x",
    "file:%2f%2f%2fetc",
]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_ids_are_no_paths(gateway: Gateway, name: str) -> None:
    """An id with a path in it finds nothing, at every route that takes one."""
    for path in ("/v1/artifacts/", "/v1/tasks/", "/v1/models/", "/callbacks/apiany/"):
        answer = gateway.get(path + name + ("/x" if path.startswith("/callbacks") else ""))
        assert answer.status_code in (400, 404, 405), (path, answer.status_code)
        assert "root:" not in answer.text


TOKENS = ["", "null", "undefined", "admin", "sk-1234", "password", "123456", "igw_", "*", "' OR '1'='1", "demo", "test"]
TOKENS += ["eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhZG1pbiIsInJvbGUiOiJhZG1pbiJ9."]
TOKENS += ["eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYWRtaW4ifQ.A1qzzK3mUqzyQPqvOXYmyLiQCRZrCN9bkXTTZC7gr3M"]


def test_no_default_or_unsigned_token_opens(office: Office) -> None:
    """Default passwords, tokens without a signature and empty ones open neither API; neither does the other's token."""
    gateway = office.gateway
    gateway.services.wrong_keys.forget()
    for token in TOKENS:
        for path in ("/v1/models", f"{API}/keys"):
            answer = gateway.client.get(path, headers={"authorization": f"Bearer {token}".strip()})
            assert answer.status_code in (401, 429), (path, token)
    assert gateway.client.get("/v1/models", headers={"authorization": f"Bearer {TOKEN}"}).status_code in (401, 429)
    assert gateway.client.get(f"{API}/keys", headers=gateway.auth).status_code in (401, 429)


@pytest.mark.parametrize(
    "name", ["x-api-key", "api-key", "x-goog-api-key", "x-auth-token", "cookie", "token", "x-litellm-key"]
)
def test_other_header_grants_no_more(office: Office, name: str) -> None:
    """A key in another header opens no more than in its own: no admin route, and no model that the key may not use."""
    _, secret = office.gateway.new_key(models=("gpt-image-2",))
    for value in (secret, f"Bearer {secret}", TOKEN):
        client = office.gateway.client
        assert client.get(f"{API}/keys", headers={name: value}).status_code == 401
        answer = client.post(GENERATIONS, json=small(), headers={name: value})
        assert answer.status_code in (401, 403), answer.text
    assert not office.gateway.simulator.book()


SPELLINGS = [
    "//admin/api/v1/keys",
    "/admin//api/v1/keys",
    "/./admin/api/v1/keys",
    "/v1/../admin/api/v1/keys",
    "/ADMIN/api/v1/keys",
]
SPELLINGS += [
    "/%61dmin/api/v1/keys",
    "/admin/api/v1/keys;x",
    "/admin%2fapi/v1/keys",
    "/admin/api/v1/keys%20",
]
SPELLINGS += [
    "/admin/api/v1/keys%00",
    "/v1/models/..;/admin/api/v1/keys",
    "/admin\\api\\v1\\keys",
    "/admin/api/v1/keys?x=/v1/models",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_avoids_the_check(office: Office, path: str) -> None:
    """No spelling of an admin route, and no header that renames a request, avoids the check of the token."""
    heads = ["X-Original-URL: /v1/models", "X-Rewrite-URL: /v1/models", "X-HTTP-Method-Override: GET"]
    heads += ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-User: admin", "X-Requested-With: XMLHttpRequest"]
    for extra in (heads, []):
        head = "\r\n".join(
            [f"GET {path} HTTP/1.1", "Host: here", f"Authorization: Bearer {office.gateway.key}", *extra]
        )
        assert read_status(office.gateway.url, [head.encode() + b"\r\n\r\n"]) in (400, 401, 404, 405, 429), path


AMOUNTS: list[Any] = [
    -1,
    "-1",
    "-0.000001",
    "NaN",
    "Infinity",
    "1e9",
    "1e-9",
    1.5,
    "0x10",
    "１",
    "9" * 30,
    True,
    [],
    "1;2",
]


@pytest.mark.parametrize("amount", AMOUNTS)
def test_strange_amounts_move_no_limit(office: Office, amount: Any) -> None:
    """A negative, infinite or odd number neither raises a limit nor buys more than it pays for."""
    gateway = office.gateway
    gateway.set_limit("usd_total", 100_000)
    before = gateway.standings(key=gateway.record.id if gateway.record else "")
    path = f"/limits/key/{gateway.record.id if gateway.record else ''}"
    answers = [office.ask(method, path, json={"usd_total": amount}) for method in ("PUT", "PATCH", "POST")]
    assert all(400 <= answer.status_code < 500 for answer in answers), [answer.text for answer in answers]
    if amount is not True:
        assert gateway.generate(n=amount).status_code == 400
    assert gateway.standings(key=gateway.record.id if gateway.record else "").limits == before.limits
    assert not gateway.simulator.book()


NAMES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "=HYPERLINK(1)",
    "{{7*7}}",
    "${7*7}",
    "%(x)s",
    "{0.__class__}",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_only_text(office: Office, name: str) -> None:
    """A name with markup, a formula or a template is text of a JSON answer, or is refused; nothing evaluates it."""
    answer = office.ask("POST", "/keys", json={"name": name})
    prompt = office.gateway.generate(size=name, prompt=name)
    for one in (answer, prompt):
        assert one.headers["content-type"].startswith("application/json")
        assert "49" not in error_of(one)["message"] if one.is_error else one.json()["name"] == name
    assert prompt.status_code == 400


def test_no_line_of_a_log_is_a_callers(gateway: Gateway, capfd: pytest.CaptureFixture[str]) -> None:
    """A request id, path or field with the end of a line in it begins no line of the log and no header."""
    forged = "x%0d%0aset-cookie:a=b%0aFORGED level=error"
    answers = [
        gateway.get(f"/v1/tasks/{forged}"),
        gateway.get(f"/v1/{forged}"),
        gateway.generate(model="a\r\nFORGED b"),
    ]
    answers += [gateway.get("/v1/models", headers={"x-request-id": "a b\tFORGED"})]
    assert all(
        "set-cookie" not in answer.headers and "FORGED" not in answer.headers["x-request-id"] for answer in answers
    )
    assert not re.search(r"(?m)^\s*FORGED", "".join(capfd.readouterr()))


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['touch PWNED']", "!!python/name:os.system", "!env HOME"]
)
def test_catalogue_makes_no_objects(tmp_path: Path, tag: str) -> None:
    """A tag in the operator's file is a mistake with a line; nothing of it runs."""
    path = tmp_path / "gateway.yaml"
    path.write_text(f"default_model: {tag}\n")
    with pytest.raises(CatalogueError):
        read_catalogue(path)


LONG = 40_000
BACKTRACKS: list[dict[str, Any]] = [
    {"size": "1" * LONG + "x"},
    {"size": "1x" * LONG},
    {"aspect_ratio": "1:" * LONG},
    {"aspect_ratio": " " * LONG + "x"},
    {"image": "data:" + ";a" * LONG + ","},
    {"images": [{"image_url": "https://" + "a." * (LONG // 2) + "!"}]},
    {"model": "a/" * LONG},
    {"quality": "-" * LONG},
    {"user": "\t" * LONG + "x"},
]


@pytest.mark.parametrize("fields", BACKTRACKS, ids=lambda fields: next(iter(fields)))
def test_no_text_costs_more_than_its_length(gateway: Gateway, fields: dict[str, Any]) -> None:
    """Text on which a careless expression backtracks costs the gateway no noticeable time."""
    clock = time.pthread_getcpuclockid(gateway.app.state.serving[1].ident)
    heads = {"prefer": "wait=" + "1" * 3000 + "x," * 500, "x-gateway-route": "a;" * 1500}
    began = time.clock_gettime(clock)
    answer = gateway.post(EDITS, json={"prompt": "a cat", **fields}, headers=heads)
    assert time.clock_gettime(clock) - began < CPU_S
    assert 400 <= answer.status_code < 500


def test_another_keys_objects_do_not_exist(gateway: Gateway) -> None:
    """Another key's task is not read, cancelled, listed or replayed by a guessed Idempotency-Key."""
    made = gateway.generate(headers={"idempotency-key": "k"})
    task = made.headers["x-gateway-task"]
    _, secret = gateway.new_key()
    stranger = {"authorization": f"Bearer {secret}"}
    assert gateway.get(f"/v1/tasks/{task}", headers=stranger).status_code == 404
    assert gateway.request("DELETE", f"/v1/tasks/{task}", headers=stranger).status_code == 404
    assert gateway.get("/v1/tasks", headers=stranger).json()["data"] == []
    replayed = gateway.generate(headers={"idempotency-key": "k", **stranger})
    assert replayed.headers["x-gateway-task"] != task
    assert "idempotent-replayed" not in replayed.headers


@pytest.mark.parametrize("pattern", ["*", "%", "key_*", "key_%", "[a-z]", "?", "key_" + "%" * 200, "{igw}:*"])
def test_no_pattern_finds_a_key(office: Office, pattern: str) -> None:
    """A wildcard where an id or a name belongs matches nothing."""
    quoted = "".join(f"%{byte:02x}" for byte in pattern.encode())
    for method in ("GET", "DELETE", "PATCH"):
        body = {"json": {"disabled": True}} if method == "PATCH" else {}
        assert office.ask(method, f"/keys/{quoted}", **body).status_code in (400, 404)
    assert office.gateway.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    "field", ["id", "role", "secret", "hint", "created", "is_admin", "allowed_routes", "spend", "__proto__"]
)
def test_no_field_is_assigned_by_its_name(office: Office, field: str) -> None:
    """A field that a key has and a caller of the route may not set is refused, and so is one that it does not have."""
    answer = office.ask("POST", "/keys", json={"name": "x", field: "admin"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "unknown_parameter")
    assert json.dumps("admin") not in answer.text
