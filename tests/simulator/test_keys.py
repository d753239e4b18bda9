"""A key opens its own vendor and no other."""

import pytest


@pytest.mark.parametrize(
    "key", ["sim-apiany", "sim-", "sim-direct-", "sim-directly", "sk-real", "sim-unknown", "direct"]
)
def test_strange_key_refused(hand, key):
    """A key of another vendor, or of nobody, is refused at Anyfast."""
    answer = hand.generate(key=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_missing_key_refused(hand):
    """No key, or another scheme, is refused; so is Anyfast's key at apiany."""
    assert hand.client.get("/apiany/v1/models").status_code == 401
    assert hand.client.get("/apiany/v1/models", headers={"authorization": "Basic sim-apiany"}).status_code == 401
    answer = hand.submit(key="sim-direct")
    assert answer.status_code == 401
    assert answer.json()["error"].keys() == {"message", "type", "code", "param"}


def test_suffix_tells_credentials_apart(hand):
    """Several credentials of one group are known by their suffix, and the secret is never shown."""
    hand.generate(key="sim-direct-2")
    assert hand.book()[0]["key"] == "direct-2"
    assert hand.log()[0]["headers"]["key"] == "direct-2"
    assert "sim-direct" not in hand.client.get("/_log").text


def test_c_key_serves_c_only(hand):
    """The -c key is refused for gpt-image-2, and lists -c alone."""
    assert hand.generate(key="sim-c").status_code == 403
    models = hand.read("/v1/models", "anyfast", key="sim-c-9").json()["data"]
    assert [model["id"] for model in models] == ["gpt-image-2-c"]
