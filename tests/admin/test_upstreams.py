"""The upstreams over the admin API: how they are, and a fresh start that is written down."""

from __future__ import annotations

from tests.support.operator_client import Office
from tests.support.simulators import wait_until


def test_state_is_shown(office: Office) -> None:
    """A credential that was refused is shown so to a viewer, with the time it stays so; the others are well."""
    office.gateway.simulator.fault("status", status=401)
    assert office.gateway.generate().status_code == 503
    office.gateway.settle()
    listed = {one["label"]: one for one in office.hire("vera").get("/upstreams")["data"]}
    assert list(listed) == ["anyfast/main", "anyfast-c/main", "apiany/main"]
    assert {label: one["state"] for label, one in listed.items()} == {
        "anyfast/main": "credential_rejected",
        "anyfast-c/main": "ok",
        "apiany/main": "ok",
    }
    assert 250 < listed["anyfast/main"]["seconds"] <= 300


def test_work_is_shown(office: Office) -> None:
    """A good call leaves its time, and an unknown one its presumed price."""
    assert office.gateway.generate(quality="low").status_code == 200
    office.gateway.simulator.fault("reset", when="after")
    assert office.gateway.generate().status_code == 424
    office.gateway.settle()
    found = office.get("/upstreams")["data"][0]
    assert [(one["kind"], one["samples"]) for one in found["latencies"]] == [("low/1K", 1)]
    assert found["presumed_usd"] == f"{office.gateway.spent().usd_presumed / 1e6:.6f}" != "0.000000"
    assert (found["breaker"], found["in_flight"], found["balance"], found["checked"]) == ("closed", 0, None, None)


def test_reset_uses_it_again(office: Office) -> None:
    """After a reset the credential is used at once, and the log of changes says who did it."""
    office.gateway.simulator.fault("status", status=401)
    assert [office.gateway.generate().status_code for _ in range(2)] == [503, 503]
    assert office.post("/upstreams/anyfast/main/reset")["state"] == "ok"
    assert office.gateway.generate().status_code == 200
    change = office.get("/changes")["data"][0]
    assert (change["action"], change["subject"]) == ("upstream.reset", "anyfast/main")
    assert (change["before"], change["after"]) == ({"state": "credential_rejected"}, {"state": "ok"})


def test_drift_is_cleared(office: Office) -> None:
    """Where an upstream was not as the catalogue says is shown, and forgotten once that was put right."""
    gateway = office.gateway
    gateway.simulator.fault("wrong_size", size="512x320")
    assert gateway.generate().status_code == 200
    wait_until(lambda: not gateway.services.drift.outbox.waiting, "the last note of drift")
    assert [(one["kind"], one["what"]) for one in office.get("/upstreams")["data"][0]["drift"]] == [("made", "size")]
    assert office.delete("/upstreams/anyfast/drift") == {"id": "anyfast", "deleted": True}
    assert office.get("/upstreams")["data"][0]["drift"] == []
    change = office.get("/changes")["data"][0]
    assert (change["action"], change["subject"]) == ("upstream.clear_drift", "anyfast")
    assert change["before"] == {"made size": 1}
    assert office.refuse("DELETE", "/upstreams/other/drift") == (404, "upstream_not_found", "name")


def test_unknown_label_is_refused(office: Office) -> None:
    """There is no fresh start for what is not there."""
    assert office.refuse("POST", "/upstreams/anyfast/other/reset", json={}) == (404, "upstream_not_found", "label")
