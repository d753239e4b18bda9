"""A gateway that serves as many requests as it may refuses more at once, and serves again when one has ended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.gateways import Gateways, error_of, wait_until


@pytest.mark.parametrize(
    ("limit", "status", "code"), [("requests", 503, "overloaded"), ("requests_per_key", 429, "rate_limit_exceeded")]
)
def test_crowd_is_bounded(gateways: Gateways, limit: str, status: int, code: str) -> None:
    """The request beyond the bound hears when to come back; its body is not read, and nothing is sent for it."""
    gateway = gateways.open(limits={limit: 1})
    gateway.simulator.fault("latency", seconds=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.generate)
        wait_until(lambda: gateway.services.running)
        refused = gateway.generate()
        assert (refused.status_code, error_of(refused)["code"]) == (status, code)
        assert refused.headers["retry-after"] == "2"
        assert first.result().status_code == 200
    assert gateway.generate().status_code == 200
    assert len(gateway.simulator.book()) == 2
