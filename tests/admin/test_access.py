"""Who may operate the gateway: tokens, roles, and nobody else."""

from __future__ import annotations

import socket

import pytest

from tests.support.gateways import GENERATIONS, Gateway, error_of, small
from tests.support.operator_client import API, TOKEN, Office


def test_api_is_off_without_token(gateway: Gateway) -> None:
    """Where no admin token is set, the admin API's paths are unknown ones."""
    for path in ("/keys", "/openapi.json", "/me"):
        answer = gateway.client.get(API + path, headers={"authorization": f"Bearer {TOKEN}"})
        assert (answer.status_code, error_of(answer)["code"]) == (404, "unknown_url")


def test_token_of_environment_is_admin(office: Office) -> None:
    """The token of GATEWAY_ADMIN_TOKEN may do everything."""
    assert office.get("/me") == {"actor": "admin-token", "role": "admin"}
    assert office.post("/operators", name="ana")["role"] == "viewer"


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "Bearer igo_x"),
        *("Bearer igo_" + "0" * 38, "Bearer \xe9\xff"),
    ],
)
def test_wrong_token_is_refused(office: Office, header: str | None) -> None:
    """Without a right token the answer is a 401 that repeats nothing of what was sent."""
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    answer = office.gateway.client.get(f"{API}/keys", headers=headers)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (401, "invalid_api_key")
    assert TOKEN[:-1] not in error["message"]


def test_callers_key_opens_nothing(office: Office) -> None:
    """A caller's key is no admin token, and an admin or operator token is no caller's key."""
    assert Office(office.gateway, office.gateway.key).refuse("GET", "/keys")[0] == 401
    for token in (TOKEN, office.hire("ana", "admin").token):
        headers = {"authorization": f"Bearer {token}"}
        assert office.gateway.client.post(GENERATIONS, json=small(), headers=headers).status_code == 401


def test_viewer_changes_nothing(office: Office) -> None:
    """A viewer sees what there is, and gets a 403 that says why for all else."""
    viewer = office.hire("ana")
    assert viewer.get("/me") == {"actor": "operator:ana", "role": "viewer"}
    assert [row["name"] for row in viewer.get("/operators")["data"]] == ["ana"]
    assert viewer.refuse("POST", "/keys", json={"name": "x"}) == (403, "role_not_allowed", None)
    # Even where the body is wrong, and even where there is no such thing.
    assert viewer.refuse("POST", "/keys", content=b"{")[0] == 403
    assert viewer.refuse("DELETE", "/keys/key_x")[0] == 403


def test_deleted_operator_is_refused(office: Office) -> None:
    """A token ends with its operator, at the next request."""
    ana = office.hire("ana", "admin")
    assert ana.get("/me")["role"] == "admin"
    assert office.delete("/operators/ana") == {"id": "ana", "deleted": True}
    assert ana.refuse("GET", "/me")[0] == 401


def test_token_is_checked_before_body(office: Office) -> None:
    """Who has no token, or may not write, is refused before a body is read."""
    viewer = office.hire("ana")
    host, port = office.gateway.url.removeprefix("http://").split(":")
    for token, status in (("wrong", b"401"), (viewer.token, b"403")):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            head = f"POST {API}/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
            connection.sendall(f"{head}content-length: 100000000\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 " + status)


def test_long_body_is_refused(office: Office) -> None:
    """A body over the limit is a 413, whether its length was announced or not."""
    long = b'{"name": "' + b"x" * 70_000 + b'"}'
    headers = {"content-type": "application/json"}
    assert office.refuse("POST", "/keys", content=long, headers=headers)[:2] == (413, "request_too_large")
    assert office.refuse("POST", "/keys", content=iter([long]), headers=headers)[0] == 413


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "missing_required_parameter", None)),
        (b"{", (400, "invalid_value", None)),
        (b"[]", (400, "invalid_value", None)),
        (b'{"name": NaN}', (400, "invalid_value", "name")),
        (b'{"name": "\xff"}', (400, "invalid_value", None)),
        (b"[" * 60_000, (400, "invalid_value", None)),
        (b"{}", (400, "missing_required_parameter", "name")),
        (b'{"name": "a", "colour": 1}', (400, "unknown_parameter", "colour")),
        (b'{"name": "a", "max_n": 1000}', (400, "invalid_value", "max_n")),
        (b'{"name": "a", "addresses": ["x"]}', (400, "invalid_value", "addresses.0")),
    ],
)
def test_wrong_body_names_its_field(office: Office, body: bytes, expected: tuple[int, str, str | None]) -> None:
    """What cannot be read or is not allowed is a 400 that names the field."""
    headers = {"content-type": "application/json"}
    assert office.refuse("POST", "/keys", content=body, headers=headers) == expected


def test_wrong_tokens_are_counted(office: Office) -> None:
    """After thirty wrong tokens in a minute an address gets a 429 for more of them; a right one goes on working."""
    wrong = Office(office.gateway, "igo_" + "0" * 38)
    ends = [wrong.refuse("GET", "/me")[0] for _ in range(32)]
    assert ends == [401] * 30 + [429] * 2
    answer = wrong.ask("POST", "/keys", json={"name": "x"})
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert office.get("/me")["role"] == "admin"
