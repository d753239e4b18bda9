"""Whether a browser's script may call the gateway: only from the origins that the operator names."""

from __future__ import annotations

import pytest

from tests.support.gateways import GENERATIONS, Gateway, Gateways, small

ORIGIN = "https://app.example.com"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


@pytest.fixture
def open_to_app(gateways: Gateways) -> Gateway:
    return gateways.open(settings={"cors_origins": (ORIGIN,)})


def test_cors_is_off_by_default(gateway: Gateway) -> None:
    """Without the setting no answer invites a browser."""
    answer = gateway.get("/v1/models", headers={"origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert gateway.request("OPTIONS", GENERATIONS, headers=PREFLIGHT | {"origin": ORIGIN}).status_code == 405


def test_named_origin_may_call(open_to_app: Gateway) -> None:
    """The named origin passes the preflight without a key, and may read the gateway's own headers."""
    headers = PREFLIGHT | {"origin": ORIGIN}
    answer = open_to_app.client.options(GENERATIONS, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    made = open_to_app.post(GENERATIONS, json=small(), headers={"origin": ORIGIN})
    assert made.headers["access-control-allow-origin"] == ORIGIN
    exposed = made.headers["access-control-expose-headers"].lower()
    for name in ("x-request-id", "x-gateway-task", "x-gateway-dropped-params", "retry-after"):
        assert name in exposed


def test_errors_are_readable_too(open_to_app: Gateway) -> None:
    """A refusal carries the origin as well, or a script would see only a network error."""
    answer = open_to_app.client.post(GENERATIONS, json=small(), headers={"origin": ORIGIN})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_other_origin_may_not(open_to_app: Gateway) -> None:
    """Another origin gets no invitation."""
    answer = open_to_app.get("/v1/models", headers={"origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in answer.headers
