"""Which request meets which rule, and how often."""

import pytest


def test_rule_strikes_as_often_as_told(hand):
    """A rule skips, strikes so many times, and is spent."""
    rule = hand.fault("status", {"status": 500}, skip=1, times=2)
    assert [hand.generate().status_code for _ in range(4)] == [200, 500, 500, 200]
    (shown,) = hand.client.get("/_faults").json()
    assert (shown["id"], shown["left"], shown["struck"]) == (rule["id"], 0, 2)


def test_rules_queue_up(hand):
    """Two endings in a row strike one request each, in the order they were laid down."""
    hand.fault("status", {"status": 503})
    hand.fault("status", {"status": 429})
    assert [hand.generate().status_code for _ in range(3)] == [503, 429, 200]


def test_rules_combine(hand):
    """Faults that do not end a request strike together."""
    hand.fault("fewer")
    hand.fault("wrong_size", {"size": "64x64"})
    hand.fault("status", {"status": 500, "accepted": True})
    assert hand.generate(n=2).status_code == 500
    assert (hand.book()[0]["n"], hand.book()[0]["size_made"]) == (1, "64x64")
    assert hand.log()[-1]["faults"] == ["fewer", "wrong_size", "status"]


def test_rule_names_its_target(hand):
    """Upstream, model, key and endpoint each narrow a rule down."""
    hand.fault("status", {"status": 500}, times=None, upstream="anyfast", model="gpt-image-2-c")
    hand.fault("status", {"status": 501}, times=None, key="direct-2")
    hand.fault("status", {"status": 502}, times=None, upstream="apiany", endpoint="balance")
    assert hand.generate().status_code == 200
    assert hand.generate("gpt-image-2-c").status_code == 500
    assert hand.generate(key="sim-direct-2").status_code == 501
    assert hand.submit().status_code == 202
    assert hand.read("/v1/credits/balance").status_code == 502


def test_rule_without_endpoint_spares_polls(hand):
    """A rule that names no endpoint strikes paid submissions only; a star strikes everything."""
    hand.fault("status", {"status": 500})
    assert hand.read("/v1/models").status_code == 200
    hand.fault("status", {"status": 418}, endpoint="*")
    assert hand.read("/v1/models").status_code == 418


def test_refused_request_spends_no_rule(hand):
    """A request that is refused on its own account leaves the rule for the next."""
    hand.fault("status", {"status": 500})
    hand.fault("reset", {"when": "body"})
    assert hand.generate(size="auto").status_code == 400
    assert hand.generate().status_code == 500


@pytest.mark.parametrize(
    "rule",
    [
        {"fault": {"kind": "explode"}},
        {"fault": {"kind": "status", "colour": "red"}},
        {"fault": {"kind": "fewer"}, "endpoint": "tasks"},
        {"fault": {"kind": "dead_link"}, "endpoint": "edits"},
        {"fault": {"kind": "task_failed"}, "upstream": "anyfast"},
        {"fault": {"kind": "shape", "shape": "result.urls"}, "upstream": "anyfast"},
        {"fault": {"kind": "hang", "when": "headers"}, "model": "gpt-image-2"},
        {"fault": {"kind": "status", "accepted": True, "when": "headers"}},
        {"fault": {"kind": "hang"}, "times": 0},
        {"fault": {"kind": "hang"}, "upstreams": "anyfast"},
        {},
    ],
)
def test_impossible_rule_refused(hand, rule):
    """A rule that could never strike is refused when it is laid down."""
    assert hand.client.post("/_faults", json=rule).status_code == 400
    assert hand.client.get("/_faults").json() == []


def test_rules_are_removed(hand):
    """One rule or all of them can be taken away."""
    rule = hand.fault("status", {"status": 500})
    hand.fault("status", {"status": 501})
    assert hand.client.delete(f"/_faults/{rule['id']}").status_code == 204
    assert hand.client.delete("/_faults/rule_0").status_code == 404
    assert len(hand.client.get("/_faults").json()) == 1
    assert hand.client.delete("/_faults").status_code == 204
    assert hand.generate().status_code == 200
