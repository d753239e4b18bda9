"""Whether the gateway says truly that it lives and takes work."""

from __future__ import annotations

import pytest

from tests.conftest import Valkey
from tests.support.gateways import Gateway, wait_until
from tests.support.stopwatch import running_seconds


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_key(gateway: Gateway, path: str) -> None:
    """Both answers are open to a load balancer, and carry a request id."""
    answer = gateway.client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers["x-request-id"]


def test_lost_store_is_not_ready(gateway: Gateway, valkey: Valkey) -> None:
    """While Redis does not answer the process lives and is not ready, and says why, in time."""
    with valkey.paused():
        began = running_seconds()
        assert gateway.client.get("/healthz").status_code == 200
        answer = gateway.client.get("/readyz")
        assert running_seconds() - began < 2.5
        assert answer.status_code == 503
        assert answer.json() == {"status": "unavailable", "problems": {"redis": "unavailable"}}
    wait_until(lambda: gateway.client.get("/readyz").status_code == 200, "the return of the store")


def test_health_answers_under_work(gateway: Gateway) -> None:
    """Running work does not keep the process from answering."""
    gateway.simulator.fault("latency", seconds=1.5)
    assert gateway.generate(headers={"x-stainless-read-timeout": "0.4"}).status_code == 504
    assert gateway.client.get("/healthz").status_code == 200
    assert gateway.services.running
