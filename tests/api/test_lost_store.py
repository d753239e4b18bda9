"""A store that was emptied or put back, as callers and the operator meet it."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import Valkey
from tests.support.gateways import Gateways, Simulator, error_of
from tests.support.ledgers import Store
from tests.support.processes import gateway as running_gateway
from tests.support.processes import imagegate


def test_lost_store_closes_spending(gateways: Gateways, simulator: Simulator, valkey: Valkey) -> None:
    """Nothing is bought, and the answer names the way out; after it the same process serves again."""
    gateway = gateways.open(limits={"answer_within": 14})
    store = Store(valkey.url)
    assert store.command("ZSCORE", "{igw}:leases", gateway.services.worker), "a gateway that runs has a lease"
    assert gateway.generate().status_code == 200
    bought = len(simulator.book())
    store.command("DEL", "{igw}:epoch")
    answer = gateway.generate()
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (503, "quota_store_unavailable")
    assert "imagegate audit --accept" in error["message"]
    assert gateway.get("/v1/models").status_code == 200
    assert len(simulator.book()) == bought
    ready = gateway.client.get("/readyz")
    assert (ready.status_code, ready.json()["problems"]) == (503, {"ledger": "lost"})
    env = {"GATEWAY_REDIS_URL": valkey.url, "GATEWAY_KEY_PEPPER": "p" * 32, "GATEWAY_SIGNING_KEY": "s" * 32}
    assert imagegate("audit", "--accept", "--data-dir", str(gateway.settings.data_dir), **env).returncode == 0
    assert gateway.client.get("/readyz").status_code == 200
    assert gateway.generate().status_code == 200
    store.close()


@pytest.mark.slow
def test_emptied_folder_closes_spending(tmp_path: Path, simulator: Simulator) -> None:
    """A restart over an emptied embedded store spends nothing until it is accepted, then goes on without another."""
    data, env = tmp_path / "data", {"GATEWAY_SIMULATOR_URL": simulator.url}

    def buy(url: str, key: str) -> int:
        fields = {"model": "gpt-image-2", "prompt": "a cat", "size": "1024x640"}
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, trust_env=False, verify=False, timeout=20) as client:
            return client.post("/v1/images/generations", json=fields).status_code

    with running_gateway(data, "--demo", "--port", "0", **env) as run:
        assert buy(run.url, run.demo_key) == 200
        run.end()
    for path in (data / "valkey").rglob("*"):
        if path.is_file():
            path.unlink()
    with running_gateway(data, "--demo", "--port", "0", **env) as run:
        assert buy(run.url, run.demo_key) == 503
        assert imagegate("audit", "--accept", "--data-dir", str(data)).returncode == 0
        assert buy(run.url, run.demo_key) == 200
        run.end()


def test_lease_is_a_setting(gateways: Gateways) -> None:
    """How long a worker owns its tasks without a sign of life is what the catalogue says."""
    long = gateways.open(accounting={"lease": 200})
    store = Store(long.store_url)
    end = float(store.command("ZSCORE", "{igw}:leases", long.services.worker))
    store.close()
    assert end > (time.time() + 150) * 1_000_000
