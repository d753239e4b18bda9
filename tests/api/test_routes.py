"""Which paths there are, who may use them, and which models they may name."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.support.gateways import EDITS, GENERATIONS, OFFICIAL, TASKS, VARIANT, Gateway, Gateways, error_of, small


def test_multipart_generation_is_read(gateway: Gateway) -> None:
    """A generation sent as a form is a generation all the same."""
    parts = {name: (None, value) for name, value in small(n="2").items()}
    assert len(gateway.post(GENERATIONS, files=parts).json()["data"]) == 2


@pytest.mark.parametrize("prefix", ["/v1", ""])
@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/images/variations", "/v1/images/edits"),
        ("/chat/completions", "/v1/images/generations"),
        ("/responses", "/v1/images/generations"),
    ],
)
def test_other_endpoints_name_ours(gateway: Gateway, prefix: str, path: str, named: str) -> None:
    """OpenAI's other endpoints answer 404 and say which one to use."""
    answer = gateway.post(prefix + path, json={})
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (404, "unsupported_endpoint")
    assert named in error["message"]


def test_unknown_route_names_ours(gateway: Gateway) -> None:
    """A path nobody serves is a 404 in OpenAI's shape."""
    for path in ("/", "/v1", "/v1/images", "/v2/images/generations", "/v1/images/generations/x", "/%00", "/docs"):
        answer = gateway.get(path)
        assert answer.status_code == 404, path
        assert error_of(answer)["code"] == "unknown_url"
        assert ("This is imagegate, and it runs" in error_of(answer)["message"]) == (path in ("/", "/v1"))


def test_wrong_method_names_right_one(gateway: Gateway) -> None:
    """A known path with another method is a 405 that lists the right one."""
    for method, path, allowed in (
        ("GET", GENERATIONS, "POST"),
        ("PUT", EDITS, "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
    ):
        answer = gateway.request(method, path)
        assert answer.status_code == 405
        assert error_of(answer)["code"] == "method_not_allowed"
        assert error_of(answer)["message"].endswith(f"; send {allowed.replace(', ', ' or ')}.")
        assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Basic dTpw", "igw_x", "Bearer sk-1234567890abcdef", "Bearer igw_" + "0" * 38],
)
def test_wrong_key_is_refused(gateway: Gateway, header: str | None) -> None:
    """Without a key that exists the answer is a 401, and the message never repeats a whole key."""
    headers = {} if header is None else {"authorization": header}
    answer = gateway.client.post(GENERATIONS, json=small(), headers=headers)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (401, "invalid_api_key")
    assert "1234567890" not in error["message"]
    assert not gateway.simulator.paid()


def test_strange_key_bytes_are_refused(gateway: Gateway) -> None:
    """A key that is not even ASCII is a wrong key and no fault."""
    answer = gateway.client.post(GENERATIONS, json=small(), headers=[(b"authorization", "Bearer igw_ключ".encode())])
    assert answer.status_code == 401
    assert error_of(answer)["code"] == "invalid_api_key"


def test_key_is_checked_before_body(gateway: Gateway) -> None:
    """A caller without a key is refused before its upload is read."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST {EDITS} HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n"
        connection.sendall(f"{head}content-length: 100000000\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_disabled_key_is_told(gateway: Gateway) -> None:
    """A disabled key works no more, from the next request on, and works again once enabled."""
    assert gateway.record is not None
    gateway.change_key(gateway.record.id, enabled=False)
    answer = gateway.generate()
    assert (answer.status_code, error_of(answer)["code"]) == (403, "key_disabled")
    gateway.change_key(gateway.record.id, enabled=True)
    assert gateway.generate().status_code == 200


def test_unknown_model_lists_models(gateway: Gateway) -> None:
    """A model that does not exist is a 404 that names those that do, and first the nearest if there is one."""
    assert "exist. Did you mean `gpt-image-2`? There are" in error_of(gateway.generate(model="GPT-Image-3"))["message"]
    answer = gateway.generate(model="gpt-4o")
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    for name in ("gpt-image-2", OFFICIAL, VARIANT, TASKS, "dall-e-3"):
        assert name in error["message"]


def test_key_may_be_bound_to_models(gateway: Gateway) -> None:
    """A key bound to one model gets no other, not even by an alias."""
    _, secret = gateway.new_key(models=[VARIANT])
    bound = {"authorization": f"Bearer {secret}"}
    for model in (OFFICIAL, "dall-e-3"):
        answer = gateway.client.post(GENERATIONS, json=small(model=model), headers=bound)
        assert (answer.status_code, error_of(answer)["code"]) == (403, "model_not_allowed")
    assert gateway.client.post(GENERATIONS, json=small(model=VARIANT), headers=bound).status_code == 200


def test_upstream_without_key_is_off(gateways: Gateways) -> None:
    """An upstream whose key is not set takes no part: its model says so, the shared one goes round it."""
    gateway = gateways.open(env={"ANYFAST_API_KEY": "sim-direct"})
    answer = gateway.generate(model=TASKS)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "upstream_unavailable")
    assert answer.headers["x-should-retry"] == "false"
    assert gateway.generate(model="gpt-image-2").headers["x-gateway-upstream"] == "anyfast"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": "transparent"}, "background"),
        ({"model": TASKS, "size": "1280x720"}, "size"),
    ],
)
def test_impossible_wish_names_reason(gateway: Gateway, fields: dict[str, Any], param: str) -> None:
    """A valid value that no upstream can honour is a 400 that says which and why, and nothing is sent."""
    answer = gateway.generate(**fields)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_value", param)
    assert not gateway.simulator.paid()
