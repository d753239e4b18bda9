"""Paths and methods: callers' sloppy spellings, operators' paths by their bytes alone, HEAD as GET."""

from __future__ import annotations

import re
from http.client import HTTPResponse

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gateway.api.connection.middleware import DirectRoutes, Edge
from gateway.api.connection.request_line import BASES, OPERATOR_PREFIXES
from gateway.money.ledger_results import Scope
from tests.support.gateways import OFFICIAL, Gateway, Gateways, error_of, small
from tests.support.operator_client import API, TOKEN
from tests.support.plain_pictures import data_url, png
from tests.support.raw_http import QUICK, Served, get, serving

DRY = {"x-gateway-dry-run": "1"}


def ask_callers_routes(gateway: Gateway, base: str, end: str) -> dict[str, object]:
    """What each of a caller's routes answers when `base` stands in place of `/v1` and `end` at the path's end."""
    # The whole URL, since httpx takes what follows two slashes for a host.
    base = gateway.url + base
    edit = {"prompt": "a cat", "model": OFFICIAL, "images": [{"image_url": data_url(png())}]}
    asked = {
        "generations": gateway.post(f"{base}/images/generations{end}", json=small(), headers=DRY),
        "edits": gateway.post(f"{base}/images/edits{end}", json=edit, headers=DRY),
        "models": gateway.get(f"{base}/models{end}"),
        "model": gateway.get(f"{base}/models/{OFFICIAL}{end}"),
        "key": gateway.get(f"{base}/key{end}"),
        "tasks": gateway.get(f"{base}/tasks{end}"),
        "task": gateway.get(f"{base}/tasks/task_none{end}"),
        "artifact": gateway.get(f"{base}/artifacts/art_none{end}"),
        "chat": gateway.post(f"{base}/chat/completions{end}", json={}),
        "no key": gateway.client.post(f"{base}/images/generations{end}", json=small()),
    }
    return {name: (one.status_code, one.json().get("object") or error_of(one)["code"]) for name, one in asked.items()}


def test_callers_paths_may_be_sloppy(gateway: Gateway) -> None:
    """Each spelling in the table reaches the same route as `/v1`, and none is redirected."""
    expected = ask_callers_routes(gateway, "/v1", "")
    assert expected == {
        "generations": (200, "image.plan"),
        "edits": (200, "image.plan"),
        "models": (200, "list"),
        "model": (200, "model"),
        "key": (200, "key"),
        "tasks": (200, "list"),
        "task": (404, "task_not_found"),
        "artifact": (404, "artifact_not_found"),
        "chat": (404, "unsupported_endpoint"),
        "no key": (401, "invalid_api_key"),
    }
    for number, base in enumerate(BASES):
        # Every base with one of the ends, and both ends with some base.
        end = ("", "/")[number % 2]
        assert ask_callers_routes(gateway, base, end) == expected, (base, end)
    assert ask_callers_routes(gateway, "/v1", "/") == expected
    assert ask_callers_routes(gateway, "", "//") == expected


@pytest.mark.parametrize(
    "path",
    ["/v2/images/generations", "/v1/v1/v1/models", "/v1/image/generations", "/V1/models", "/v1/models/../key", "/v1/"],
)
def test_other_spellings_are_unknown(gateway: Gateway, path: str) -> None:
    """A path beside the table is a 404, and no redirect."""
    answer = gateway.post(path, json=small())
    assert answer.status_code in (404, 405), path
    assert "location" not in answer.headers


def test_sloppy_request_counts_as_any_other(gateways: Gateways) -> None:
    """A request in another spelling is one of the process's requests, and is refused when it is one too many."""
    gateway = gateways.open(limits={"requests": 1})
    gateway.simulator.fault("latency", seconds=0.5)
    assert gateway.generate(headers={"x-stainless-read-timeout": "0.2"}).status_code == 504
    for path in ("/v1/images/generations", "/images/generations/"):
        answer = gateway.post(path, json=small())
        assert (answer.status_code, error_of(answer)["code"]) == (503, "overloaded"), path


def spellings(path: str) -> list[str]:
    """Request targets that some server or proxy takes for `path`, which has two segments."""
    _, first, last = path.split("/")
    return [
        f"/{first.title()}/{last}",
        f"/{first.upper()}/{last}",
        f"//{first}/{last}",
        f"///{first}/{last}",
        f"/./{first}/{last}",
        f"/x/../{first}/{last}",
        f"/v1/../{first}/{last}",
        f"/{first}/../{first}/{last}",
        f"/%{ord(first[0]):02x}{first[1:]}/{last}",
        f"/{first[:-1]}%{ord(first[-1]):02X}/{last}",
        "/" + "".join(f"%{ord(char):02x}" for char in first) + f"/{last}",
        f"/%{ord(first[0].upper()):02x}{first[1:]}/{last}",
        f"/{first}%2f{last}",
        f"/{first}%2F{last}",
        f"/{first}%5C{last}",
        f"/{first}\\{last}",
        f"/{first}//{last}",
        f"/{first}/./{last}",
        f"/{first}/%2e/{last}",
        f"/{first}/{last}/",
        f"/{first}/{last}%2f",
        f"/{first}/{last}%00",
        f"/{first}/{last}%20",
        f"/{first}/{last};a=b",
        f"/{first};a=b/{last}",
        f"/{first}./{last}",
        f"/{first}%20/{last}",
        f"/%20{first}/{last}",
        f"/%2f{first}/{last}",
        f"/%2e/{first}/{last}",
        f"/{first}/%{ord(last[0]):02x}{last[1:]}",
        f"/v1/{first}/{last}",
        f"/v1/v1/{first}/{last}",
        f"/v1//{first}/{last}",
        f"/v1/images/generations/{first}/{last}",
        f"/api/{first}/{last}",
    ]


def status_of(served: Served, target: str) -> int:
    return int(served.ask(get(target)).split()[1])


def test_operators_paths_match_byte_for_byte() -> None:
    """Of 36 spellings of each operators' path only its own is served: a proxy that refuses its bytes refuses it."""

    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    paths = [f"{prefix}/open" for prefix in OPERATOR_PREFIXES]
    routes = [Route(path, answer) for path in (*OPERATOR_PREFIXES, *paths)]
    inner = Starlette(routes=routes)
    inner.router.redirect_slashes = False
    with serving(QUICK, Edge(DirectRoutes(inner, routes={}), is_simulated=False)) as served:
        assert [status_of(served, path) for path in (*OPERATOR_PREFIXES, *paths)] == [200] * 8
        reached = [
            target for path in paths for target in spellings(path) if status_of(served, target) not in (400, 404)
        ]
        assert reached == []


def test_admin_api_matches_byte_for_byte(gateways: Gateways) -> None:
    """The admin API itself is reached by no other spelling: not even its 401 shows."""
    gateway = gateways.open(settings={"admin_token": TOKEN})
    served = Served(port=int(gateway.url.rpartition(":")[2]))
    token = f"Authorization: Bearer {TOKEN}"
    assert b" 200 " in served.ask(get(f"{API}/me", token)).splitlines()[0]
    for target in spellings("/admin/api"):
        line = served.ask(get(f"{target}/v1/me", token)).splitlines()[0]
        assert re.search(rb" 40[04] ", line), (target, line)


# HEAD


def ask_raw(gateway: Gateway, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and everything that follows them up to the end of the connection."""
    served = Served(port=int(gateway.url.rpartition(":")[2]))
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\nConnection: close\r\n\r\n"
    head, _, body = served.ask(head.encode()).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), fields, body


def test_head_is_get_without_body(gateway: Gateway) -> None:
    """HEAD has GET's status and headers at every route that GET has, and no body."""
    link = gateway.generate(response_format="url").json()["data"][0]["url"].removeprefix(gateway.url)
    paths = ["/healthz", "/readyz", "/v1/models", f"/v1/models/{OFFICIAL}", "/v1/key", "/v1/tasks", "/models/", link]
    for path in (*paths, link + "0", "/v1/nothing", "/v1/images/edits"):
        status, fields, body = ask_raw(gateway, "GET", path)
        head_status, head_fields, nothing = ask_raw(gateway, "HEAD", path)
        assert (head_status, nothing) == (status, b""), path
        assert body, path
        for name in ("content-type", "content-length", "allow", "cache-control"):
            assert head_fields.get(name) == fields.get(name), (path, name)
        assert (status == 200) == (path in paths), path


def test_connection_goes_on_after_head(gateway: Gateway) -> None:
    """A HEAD leaves its connection to the next request."""
    link = gateway.generate(response_format="url").json()["data"][0]["url"].removeprefix(gateway.url)
    with Served(port=int(gateway.url.rpartition(":")[2])).connect() as wire:
        for method in ("HEAD", "GET", "HEAD", "GET"):
            wire.sendall(f"{method} {link} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = HTTPResponse(wire, method=method)
            answer.begin()
            assert answer.status == 200
            assert len(answer.read()) == (int(answer.headers["content-length"]) if method == "GET" else 0)


@pytest.mark.parametrize("name", ["%0Aother", "design%0A", "de%0Asign", "%00", "%7F"])
def test_control_characters_name_no_team(gateways: Gateways, name: str) -> None:
    """An operator's path with a control character is refused, and changes the limits of no other team."""
    gateway = gateways.open(settings={"admin_token": TOKEN})
    path, headers = f"/admin/api/v1/limits/teams/{name}", {"authorization": f"Bearer {TOKEN}"}
    answer = gateway.client.put(path, json={"usd_day": "1"}, headers=headers)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_value")
    assert gateway.ask_ledger(lambda ledger: ledger.limits_of(Scope(team="design"))) == {}
