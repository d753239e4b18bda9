"""Heads that a client should not have sent: ambiguous ones, other vendors' ones, and text that is no number or URL."""

from __future__ import annotations

from http.client import HTTPResponse

import pytest

from tests.support.gateways import Gateway, error_of, small
from tests.support.raw_http import Served, get, refusal

# Heads that two readers could read in two ways


AMBIGUOUS: list[tuple[list[str], str]] = [
    (["Host: a", "Host: b"], "Host"),
    (["Host: a", "Host: a"], "Host"),
    ([], "Host"),
    (["Host:"], "Host"),
    (["Host: a b"], "Host"),
    (["Host: [x"], "Host"),
    (["Host: a/b"], "Host"),
    (["Host: a@b"], "Host"),
    (["Host: a:b"], "Host"),
    (["Host: a:999999"], "Host"),
    (["Host: a", "Idempotency-Key: 1", "Idempotency-Key: 2"], "Idempotency-Key"),
    (["Host: a", "Authorization: Bearer a", "authorization: Bearer b"], "Authorization"),
    (["Host: a", "Content-Type: application/json", "Content-Type: text/plain"], "Content-Type"),
    (["Host: a", "X-Gateway-Dry-Run: 1", "X-Gateway-Dry-Run: 0"], "X-Gateway-Dry-Run"),
    (["Host: a", "X-Gateway-Upstream: a", "X-Gateway-Upstream: b"], "X-Gateway-Upstream"),
    (["Host: a", "X-Gateway-Route: cost", "X-Gateway-Route: latency"], "X-Gateway-Route"),
    (["Host: a", "Content-Length: 0", "Content-Length: 0"], "HTTP/1.1"),
    (["Host: a", "Content-Length: 0, 0"], "HTTP/1.1"),
    (["Host: a", "Content-Length: 0", "Transfer-Encoding: chunked"], "HTTP/1.1"),
    (["Host: a", "Transfer-Encoding: gzip, chunked"], "Transfer-Encoding"),
    (["Host: a", "Transfer-Encoding: chunked, chunked"], "HTTP/1.1"),
    (["Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], "HTTP/1.1"),
    (["Host: a", "Transfer-Encoding: identity"], "Transfer-Encoding"),
    (["Host: a", "Transfer-Encoding: xchunked"], "Transfer-Encoding"),
    (["Host: a", "Transfer-Encoding:"], "HTTP/1.1"),
]
"""The lines of a head, and a word of the message that refuses it."""


def test_ambiguous_head_is_refused(gateway: Gateway) -> None:
    """A head that a proxy and this server could read differently is a 400 that names the header."""
    served = Served(port=int(gateway.url.rpartition(":")[2]))
    for lines, named in AMBIGUOUS:
        head = "\r\n".join(["POST /v1/images/generations HTTP/1.1", "Connection: close", *lines, "", ""]).encode()
        status, code, message = refusal(served.ask(head))
        assert (status, code) == (400, "invalid_value"), lines
        assert named in message, lines


def test_usual_hosts_are_served(gateway: Gateway) -> None:
    """Names and addresses that real proxies send are hosts."""
    served = Served(port=int(gateway.url.rpartition(":")[2]))
    for host in ("a", "a:80", "127.0.0.1:8080", "[::1]:8080", "img_gate.corp", "xn--bcher-kva.example:", "A.B-c.d"):
        head = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert served.ask(head.encode()).split()[1] == b"200", host
    assert served.ask(b"GET /healthz HTTP/1.0\r\n\r\n").split()[1] == b"200"


@pytest.mark.parametrize("version", ["0.9", "2.0", "1.2", "3.0"])
def test_other_versions_are_refused(gateway: Gateway, version: str) -> None:
    """A request of another version of HTTP is a 400, whose own framing nobody guesses."""
    served = Served(port=int(gateway.url.rpartition(":")[2]))
    assert refusal(served.ask(f"GET /healthz HTTP/{version}\r\nHost: a\r\n\r\n".encode()))[0] == 400


# Clients of other vendors


@pytest.mark.parametrize(
    ("path", "client"),
    [
        ("/openai/deployments/gpt-image-2/images/generations?api-version=2025-04-01-preview", "AzureOpenAI"),
        ("/openai/v1/images/generations", "AzureOpenAI"),
        ("/v1/openai/deployments/gpt-image-2/images/edits", "AzureOpenAI"),
        ("/v1beta/models/gemini-2.5-flash-image:generateContent", "Gemini"),
        ("/v1/messages", "Anthropic"),
        ("/sdapi/v1/txt2img", "AUTOMATIC1111"),
        ("/api/generate", "Ollama"),
    ],
)
def test_other_vendors_path_names_right_client(gateway: Gateway, path: str, client: str) -> None:
    """A path of another vendor's client is a 404 that names this client, the right one and its base URL."""
    error = error_of(answer := gateway.client.post(path, json=small(), headers={"api-key": gateway.key}))
    assert (answer.status_code, error["code"]) == (404, "unknown_url")
    assert client in error["message"]
    assert "the class `OpenAI`" in error["message"]
    assert "/v1" in error["message"]


@pytest.mark.parametrize(
    ("header", "client"), [("api-key", "AzureOpenAI"), ("x-api-key", "Anthropic"), ("x-goog-api-key", "Gemini")]
)
def test_other_vendors_header_names_right_client(gateway: Gateway, header: str, client: str) -> None:
    """A key in the header of another vendor's client is a 401 that says so, and never repeats the key."""
    error = error_of(answer := gateway.client.get("/v1/models", headers={header: gateway.key}))
    assert (answer.status_code, error["code"]) == (401, "invalid_api_key")
    assert client in error["message"]
    assert "Authorization: Bearer" in error["message"]
    assert gateway.key not in answer.text


# Never a 5xx

DIGITS = "9" * 4301
ODD = [
    "",
    " ",
    "-1",
    "nan",
    "1e999",
    "0x10",
    DIGITS,
    "[",
    "http://[x",
    "%",
    "%ff",
    "\xff\xfe",
    ",;=\"'",
    "x" * 8000,
]
HEADERS = [
    *("x-stainless-retry-count", "x-stainless-read-timeout", "x-stainless-timeout", "prefer", "idempotency-key"),
    *("x-gateway-upstream", "x-gateway-route", "x-gateway-dry-run", "x-gateway-webhook", "x-request-id"),
    *("authorization", "api-key", "accept", "accept-encoding", "origin", "cookie", "expect", "range", "te", "date"),
    *("if-none-match", "if-modified-since", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"),
    *("content-type", "content-encoding", "content-length", "transfer-encoding", "connection", "upgrade", "host"),
]
PATHS = ["/v1/models/{}", "/v1/tasks/{}", "/v1/tasks?limit={}", "/v1/tasks?after={}", "/v1/artifacts/{}", "/{}", "{}"]
PATHS += ["/v1/artifacts/art_x?exp={}&sig={}", "/callbacks/apiany/task_x/call_x?token={}", "/v1/models?{}"]
"""The places of a GET in which a client writes text; `{}` is the text."""


def test_no_text_of_a_client_is_a_fault(gateway: Gateway) -> None:
    """Whatever a client writes into a header, a path or a query, the answer is no 5xx, and has OpenAI's shape."""
    served = Served(port=int(gateway.url.rpartition(":")[2]))
    heads = []
    for name in HEADERS:
        for odd in (*ODD, f"wait={DIGITS}"):
            fields = {"Host": "x", "Authorization": f"Bearer {gateway.key}", "Content-Length": "2"} | {
                name.title(): odd
            }
            lines = ["POST /v1/images/generations HTTP/1.1", *(f"{one}: {text}" for one, text in fields.items())]
            heads.append("\r\n".join([*lines, "", "{}"]).encode("latin-1"))
    for path in PATHS:
        for odd in ODD:
            target = path.replace("{}", odd.strip().replace("\xff\xfe", "%ff%fe"))
            heads.append(get(target, f"Authorization: Bearer {gateway.key}"))
    faults = []
    for head in heads:
        with served.connect() as wire:
            wire.sendall(head)
            answer = HTTPResponse(wire)
            answer.begin()
            if answer.status >= 500:
                faults.append((head, answer.status))
    assert faults == []
