"""Who may, over TCP: keys that ended, addresses that are not a key's own, guesses, and what each key is held to."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.callers.key_store import make_secret
from tests.conftest import Valkey
from tests.support.gateways import GENERATIONS, OFFICIAL, TASKS, Gateway, Gateways, assert_refused, error_of, small
from tests.support.plain_pictures import png

BEHIND_PROXY = {"trusted_proxies": "127.0.0.1"}


def with_key(gateway: Gateway, **fields: Any) -> Gateway:
    """The gateway, asked with a new key of these fields."""
    gateway.record, gateway.key = gateway.new_key(**fields)
    return gateway


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, error_of(answer)["code"]


def guess(gateway: Gateway, headers: Mapping[str, str] | None = None) -> httpx.Response:
    return gateway.client.get("/v1/models", headers={"authorization": f"Bearer {make_secret()}", **(headers or {})})


def test_expired_key_says_so(gateway: Gateway) -> None:
    """A key past its time gets a 401 that says when it ended; until then it works."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert with_key(gateway, expires=soon).get("/v1/models").status_code == 200
    answer = with_key(gateway, expires=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)).generate()
    assert refused(answer) == (401, "invalid_api_key")
    assert "expired on 2026-01-02 at 03:04 UTC" in error_of(answer)["message"]


def test_rotated_key_works_by_both_secrets(gateway: Gateway) -> None:
    """During the grace time both secrets are the same caller, and both hear that it is disabled."""
    assert gateway.record is not None
    old = gateway.key
    new = gateway.rotate_key(gateway.record.id)
    for key in (old, new):
        assert gateway.client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
    gateway.change_key(gateway.record.id, enabled=False)
    for key in (old, new):
        answer = gateway.client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert refused(answer) == (403, "key_disabled")


def test_key_works_from_its_addresses_alone(gateway: Gateway) -> None:
    """A key that is bound to addresses is refused from elsewhere, and the refusal names the address."""
    assert with_key(gateway, addresses=["127.0.0.0/8"]).get("/v1/models").status_code == 200
    answer = with_key(gateway, addresses=["203.0.113.0/24", "::1"]).get("/v1/models")
    assert refused(answer) == (403, "address_not_allowed")
    assert "127.0.0.1" in error_of(answer)["message"]


def test_spoofed_address_is_ignored(gateway: Gateway) -> None:
    """Without trusted proxies nobody can say where he comes from."""
    forged = {"x-forwarded-for": "203.0.113.9", "x-real-ip": "203.0.113.9", "forwarded": "for=203.0.113.9"}
    answer = with_key(gateway, addresses=["203.0.113.0/24"]).get("/v1/models", headers=forged)
    assert refused(answer) == (403, "address_not_allowed")


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("203.0.113.9", 200),
        ("203.0.113.9:4711", 200),
        ("198.51.100.1, 203.0.113.9", 200),
        ("203.0.113.9, 127.0.0.1", 200),
        ("203.0.113.9, 198.51.100.1", 403),
        ("unknown", 403),
        ("", 403),
    ],
)
def test_trusted_proxy_names_its_peer(gateways: Gateways, forwarded: str, status: int) -> None:
    """Behind a trusted proxy the address is the nearest hop that is no proxy; what stands left of it may be forged."""
    gateway = with_key(gateways.open(BEHIND_PROXY), addresses=["203.0.113.0/24"])
    answer = gateway.get("/v1/models", headers={"x-forwarded-for": forwarded})
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(("settings", "scheme"), [({}, "http"), (BEHIND_PROXY, "https")], ids=["untrusted", "trusted"])
def test_trusted_proxy_names_the_scheme(gateways: Gateways, settings: dict[str, Any], scheme: str) -> None:
    """Links say https where a trusted proxy says that the caller did, and nobody else can say so."""
    answer = gateways.open(settings).generate({"x-forwarded-proto": "https"}, response_format="url")
    assert answer.json()["data"][0]["url"].startswith(f"{scheme}://")


def test_guesses_are_slowed(gateway: Gateway) -> None:
    """The 31st wrong key in a minute is a 429 that says when to come back; a right key from there goes on working."""
    assert [guess(gateway).status_code for _ in range(30)] == [401] * 30
    answer = guess(gateway)
    assert refused(answer) == (429, "rate_limit_exceeded")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    mistyped = gateway.client.get("/v1/models", headers={"authorization": "Bearer sk-other"})
    assert refused(mistyped) == (429, "rate_limit_exceeded")
    assert gateway.get("/v1/models").status_code == 200
    assert gateway.client.get("/v1/models").status_code == 401


def test_guesses_count_by_address(gateways: Gateways) -> None:
    """Who guesses holds up nobody else, and cannot get round it by another address of his IPv6 network."""
    gateway = gateways.open(BEHIND_PROXY)
    for number in range(30):
        assert guess(gateway, {"x-forwarded-for": f"2001:db8::{number}"}).status_code == 401
    assert guess(gateway, {"x-forwarded-for": "2001:db8::ffff"}).status_code == 429
    assert guess(gateway, {"x-forwarded-for": "2001:db8:0:1::1"}).status_code == 401


def test_known_caller_outlasts_redis(gateway: Gateway, valkey: Valkey) -> None:
    """While Redis is away a caller that was known still gets its models, and nobody else is let in."""
    _, stranger = gateway.new_key()
    assert gateway.get("/v1/models").status_code == 200
    with contextlib.ExitStack() as stack:
        stack.enter_context(valkey.paused())
        assert gateway.get("/v1/models").status_code == 200
        answer = gateway.client.get("/v1/models", headers={"authorization": f"Bearer {stranger}"})
    assert refused(answer) == (503, "quota_store_unavailable")


@pytest.mark.parametrize(
    ("fields", "asked", "param"),
    [
        ({"max_n": 2}, {"n": 3}, "n"),
        ({"max_quality": "medium"}, {"quality": "high"}, "quality"),
        ({"max_quality": "medium"}, {"quality": "hd"}, "quality"),
        ({"max_pixels": 1_000_000}, {"size": "1024x1024"}, "size"),
        ({"max_pixels": 1_000_000}, {"size": "auto"}, "size"),
        ({"max_pixels": 1_000_000}, {"size": None, "resolution": "2K"}, "size"),
    ],
    ids=str,
)
def test_caps_are_kept(gateway: Gateway, fields: dict[str, Any], asked: dict[str, Any], param: str) -> None:
    """More than a key allows is a 400 that names the parameter, before anything is sent."""
    answer = with_key(gateway, **fields).generate(**asked)
    assert error_of(answer)["code"] == "unsupported_value"
    assert "This key" in assert_refused(gateway, answer, 400, param)


def test_auto_is_served_within_caps(gateway: Gateway) -> None:
    """What a caller left open is made within its key's caps."""
    answer = with_key(gateway, max_quality="low", max_pixels=1_048_576).generate(size="auto")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["quality"], answer.json()["size"]) == ("low", "1024x1024")


def test_key_may_be_bound_to_upstreams(gateway: Gateway) -> None:
    """A key bound to one upstream is served by it, and refused where a model has no other."""
    bound = with_key(gateway, upstreams=["apiany"])
    assert bound.generate(model="gpt-image-2", size="1024x1024").headers["x-gateway-upstream"] == "apiany"
    assert [one["id"] for one in bound.get("/v1/models").json()["data"]] == ["gpt-image-2", TASKS, "dall-e-3"]
    answer = bound.generate(model=OFFICIAL)
    assert refused(answer) == (403, "model_not_allowed")
    assert "may use the upstreams apiany only" in error_of(answer)["message"]


def test_key_of_a_model_may_say_its_aliases(gateway: Gateway) -> None:
    """A key for a model may use its aliases, by request and in the list; a key for an alias may say that name alone."""
    for_model = with_key(gateway, models=["gpt-image-2"])
    assert [one["id"] for one in for_model.get("/v1/models").json()["data"]] == ["gpt-image-2", "dall-e-3"]
    assert for_model.generate(model="dall-e-3", response_format="b64_json").status_code == 200
    for_alias = with_key(gateway, models=["dall-e-3"])
    assert [one["id"] for one in for_alias.get("/v1/models").json()["data"]] == ["dall-e-3"]
    assert refused(for_alias.generate(model="gpt-image-2")) == (403, "model_not_allowed")


@pytest.mark.parametrize("name", ["apiany", "apiany/main"])
def test_upstream_can_be_chosen(gateway: Gateway, name: str) -> None:
    """A key that may choose its upstream gets it, whatever the catalogue's order."""
    fields = {"model": "gpt-image-2", "size": "1024x1024"}
    answer = with_key(gateway, may_pin_upstream=True).generate({"x-gateway-upstream": name}, **fields)
    assert answer.headers["x-gateway-upstream"] == "apiany"


@pytest.mark.parametrize(
    ("fields", "chosen", "found"),
    [
        ({}, "apiany", (403, "upstream_not_allowed")),
        ({"may_pin_upstream": True, "upstreams": ["anyfast"]}, "apiany/main", (403, "upstream_not_allowed")),
        ({"may_pin_upstream": True}, "nowhere", (400, "unsupported_value")),
        ({"may_pin_upstream": True}, "anyfast", (400, "unsupported_value")),
    ],
)
def test_wrong_choice_is_refused(gateway: Gateway, fields: dict[str, Any], chosen: str, found: tuple[int, str]) -> None:
    """An upstream that the key may not choose, or that does not serve the model, is refused and nothing is sent."""
    answer = with_key(gateway, **fields).post(
        GENERATIONS, headers={"x-gateway-upstream": chosen}, json=small(model=TASKS)
    )
    assert refused(answer) == found
    assert not gateway.simulator.log()


def test_edit_is_held_too(gateway: Gateway) -> None:
    """Caps hold for edits as for generations."""
    picture = [("image", ("a.png", png(), "image/png"))]
    answer = with_key(gateway, max_n=1).edit(picture, n=2)
    assert_refused(gateway, answer, 400, "n")
