"""A key in a file can be replaced while the gateway runs."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateways import ENV, TASKS, Gateways


def test_replaced_key_is_used_at_once(gateways: Gateways, tmp_path: Path) -> None:
    """After the vendor has rejected a key, the next request uses the one that the operator put in its place."""
    secret = tmp_path / "key"
    secret.write_text("revoked")
    credential = {"key": f"file:{secret}", "group": "direct"}
    gateway = gateways.open(
        upstreams={"apiany": {"credentials": [credential]}}, models={TASKS: {"upstreams": ["apiany"]}}
    )
    fields = {"model": TASKS, "size": "1024x1024"}
    for _ in range(2):
        assert gateway.generate(**fields).status_code == 503
    assert len(gateway.simulator.log()) == 1, "the rejected key is not tried again"
    secret.write_text(ENV["APIANY_API_KEY"])
    assert gateway.generate(**fields).status_code == 200
    secret.write_text("revoked")
    assert gateway.generate(**fields).status_code == 503
    assert len(gateway.simulator.book()) == 1
    secret.write_text("another-key-of-the-operator")
    assert gateway.generate(**fields).status_code == 503
    for key in (ENV["APIANY_API_KEY"], "another-key-of-the-operator"):
        assert key not in gateway.services.mask.hide_secrets(f"Your key {key} is wrong"), "a new key is hidden too"
