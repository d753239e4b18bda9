"""`X-Gateway-Dry-Run`: what a request would cost and who would make it, with nothing sent, held or recorded."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.gateways import EDITS, GENERATIONS, OFFICIAL, VARIANT, Gateway, Gateways, error_of, small
from tests.support.plain_pictures import data_url, png

DRY = {"X-Gateway-Dry-Run": "1"}
WAYS = ("generation", "json edit", "multipart edit")


def plan_of(gateway: Gateway, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """The Plan that a dry run answers, after which nothing is left of it."""
    answer = gateway.generate(headers=DRY | (headers or {}), **fields)
    assert answer.status_code == 200, answer.text
    assert_traceless(gateway)
    return answer.json()


def assert_traceless(gateway: Gateway) -> None:
    assert not gateway.simulator.log()
    assert not gateway.task_records()
    assert not gateway.leftovers()
    spent = gateway.spent()
    assert (spent.usd_held, spent.usd_posted, spent.images_held) == (0, 0, 0)


def test_plan_is_what_happens(gateway: Gateway) -> None:
    """The first choice makes the request when it is sent, at the price, the size and in the calls that were told."""
    fields = {"model": "gpt-image-2", "size": "1024x1024", "quality": "high", "n": 2}
    route = {"X-Gateway-Route": "cost"}
    found = plan_of(gateway, route, **fields)
    first = found["choices"][0]
    assert (found["object"], found["strategy"], found["rule"]) == ("image.plan", "cost", None)
    assert first["reason"] == "cheapest"
    answer = gateway.generate(headers=route, **fields)
    assert answer.headers["x-gateway-upstream"] == first["upstream"] == "apiany"
    assert answer.headers["x-gateway-cost-usd"] == first["price_usd"] == "0.030000"
    assert int(answer.headers["x-gateway-calls"]) == first["calls"] == 1
    assert answer.json()["size"] == first["size"]


def test_plan_has_every_target(gateway: Gateway) -> None:
    """Each target stands in the Plan once: with its price and its way, or with why it does not serve."""
    found = plan_of(gateway, model="gpt-image-2", size="1920x1088", n=3, output_format="webp", moderation="low")
    assert [one["target"] for one in found["choices"]] == ["anyfast-c/main", "anyfast/main"]
    flat = found["choices"][0]
    assert flat == {
        "target": "anyfast-c/main",
        "upstream": "anyfast-c",
        "price_usd": "0.090000",
        "price_per_image_usd": "0.030000",
        "held_usd": "0.090000",
        "size": "1920x1088",
        "quality": "medium",
        "calls": 3,
        "images_per_call": 1,
        "compensation": ["3 calls", "converted to webp here"],
        "dropped": [],
        "reason": "first in the catalogue",
    }
    (left_out,) = found["rejections"]
    assert left_out["target"] == "apiany/main"
    assert "makes only 1024x1024" in left_out["reason"]
    assert found["refusal"] is None


@pytest.mark.parametrize("form", ["json", "multipart"])
def test_edit_is_quoted_in_either_form(gateway: Gateway, form: str) -> None:
    """An edit's pictures are read and counted, and then forgotten."""
    if form == "json":
        body = {"prompt": "a cat", "model": OFFICIAL, "images": [{"image_url": data_url(png())}] * 2}
        answer = gateway.post(EDITS, headers=DRY, json=body)
    else:
        files = [("image[]", ("a.png", png(), "image/png"))] * 2
        answer = gateway.edit(files, headers=DRY)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["operation"], answer.json()["references"]) == ("edit", 2)
    assert answer.json()["choices"][0]["price_usd"] is not None
    assert_traceless(gateway)


def test_stream_is_quoted_as_json(gateway: Gateway) -> None:
    """A dry run of a stream is answered at once, and not as a stream."""
    assert plan_of(gateway, stream=True)["object"] == "image.plan"


@pytest.mark.parametrize("value", ["yes", "true", "2", "dry"])
def test_unclear_wish_costs_nothing(gateway: Gateway, value: str) -> None:
    """A value that may have been meant as a dry run is refused, and nothing is bought."""
    answer = gateway.generate(headers={"X-Gateway-Dry-Run": value})
    assert answer.status_code == 400
    assert "X-Gateway-Dry-Run must be 1" in error_of(answer)["message"]
    assert_traceless(gateway)


def test_zero_is_no_dry_run(gateway: Gateway) -> None:
    """0 makes the picture."""
    assert gateway.generate(headers={"X-Gateway-Dry-Run": "0"}).json()["data"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [({"size": "1000x1000"}, 400, "size"), ({"model": "unheard-of"}, 404, "model"), ({"n": 11}, 400, "n")],
)
def test_dry_run_is_refused_alike(gateway: Gateway, fields: dict[str, Any], status: int, param: str) -> None:
    """What would be refused is refused in the same words."""
    dry, real = gateway.generate(headers=DRY, **fields), gateway.generate(**fields)
    assert dry.status_code == real.status_code == status
    assert error_of(dry) == error_of(real)
    assert error_of(dry)["param"] == param
    assert_traceless(gateway)


def test_dry_run_needs_a_key(gateway: Gateway) -> None:
    """Without a key nothing is told."""
    answer = gateway.client.post(GENERATIONS, headers=DRY, json=small())
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("limit", "value", "code", "words"),
    [
        ("usd_total", 59_999, "insufficient_quota", "this request may cost $0.060000"),
        ("images_day", 1, "insufficient_quota", "asks for 2"),
        ("images_minute", 1, "invalid_value", "at most 1 images"),
    ],
)
def test_limits_are_foreseen(gateway: Gateway, limit: str, value: int, code: str, words: str) -> None:
    """The Plan says by which limit the request would be refused, as the request itself then is."""
    gateway.set_limit(limit, value)
    refusal = plan_of(gateway, model=VARIANT, n=2)["refusal"]
    assert refusal["code"] == code
    assert words in refusal["message"]
    real = error_of(gateway.generate(model=VARIANT, n=2))
    assert real == refusal


def test_room_is_foreseen(gateway: Gateway) -> None:
    """A limit that has just room for it stands in nobody's way."""
    gateway.set_limit("usd_total", 60_000)
    assert plan_of(gateway, model=VARIANT, n=2)["refusal"] is None
    assert gateway.generate(model=VARIANT, n=2).status_code == 200


def test_dollar_limits_leave_unpriced_targets_out(gateways: Gateways) -> None:
    """With a limit in dollars the Plan has the priced targets alone, as a request would; without, all of them."""
    gateway = gateways.open(upstreams={"anyfast-c": {"prices": None}})
    fields = {"model": "gpt-image-2", "size": "1024x1024"}
    free = plan_of(gateway, {"X-Gateway-Route": "cost"}, **fields)
    assert free["choices"][0]["price_usd"] is None
    assert "no price is known for anyfast-c/main" in free["note"]
    gateway.set_limit("usd_total", 1_000_000)
    held = plan_of(gateway, {"X-Gateway-Route": "cost"}, **fields)
    assert [one["upstream"] for one in held["choices"]] == ["apiany", "anyfast"]
    assert "usd_total is set" in held["rejections"][-1]["reason"]


def test_dry_run_leaves_no_record(gateway: Gateway) -> None:
    """The history has what was asked for, and a dry run asked for nothing."""
    plan_of(gateway)
    gateway.generate()
    gateway.settle()
    assert len(gateway.records()) == 1


@pytest.mark.parametrize("strategy", ["cost", "priority", "weighted", "latency"])
def test_request_chooses_its_strategy(gateway: Gateway, strategy: str) -> None:
    """Each of the four is taken from the header, and told in the Plan."""
    assert plan_of(gateway, {"X-Gateway-Route": strategy}, model="gpt-image-2")["strategy"] == strategy


@pytest.mark.parametrize("headers", [{}, DRY], ids=["real", "dry"])
def test_unknown_strategy_names_the_right_ones(gateway: Gateway, headers: dict[str, str]) -> None:
    """Another word is refused with those that are right, before anything is spent."""
    answer = gateway.generate(headers={"X-Gateway-Route": "cheapest", **headers})
    assert answer.status_code == 400
    assert "cost, priority, weighted, latency; not 'cheapest'" in error_of(answer)["message"]
    assert_traceless(gateway)


def test_rules_know_the_caller(gateways: Gateways) -> None:
    """A rule for a team, and one for a key by its name, hold for those whose they are."""
    gateway = gateways.open(
        rules=[
            {"name": "film", "when": {"teams": ["film"]}, "upstreams": ["apiany"]},
            {"name": "night", "when": {"keys": ["nightly"]}, "defaults": {"quality": "low"}},
        ]
    )
    asked = {"model": "gpt-image-2", "size": "1024x1024"}
    assert plan_of(gateway, **asked)["rule"] is None
    assert gateway.record
    gateway.change_key(gateway.record.id, name="nightly")
    night = plan_of(gateway, **asked)
    assert (night["rule"], night["choices"][0]["quality"]) == ("night", "low")
    gateway.change_key(gateway.record.id, team="film")
    assert [one["upstream"] for one in plan_of(gateway, **asked)["choices"]] == ["apiany"]


def ask_by(way: str, gateway: Gateway, **fields: Any) -> httpx.Response:
    """One request for a picture in one of the three dialects."""
    if way == "generation":
        return gateway.post(GENERATIONS, json={"prompt": "a cat", **fields})
    if way == "json edit":
        return gateway.post(EDITS, json={"prompt": "a cat", "images": [{"image_url": data_url(png())}], **fields})
    return gateway.edit([("image", ("a.png", png(), "image/png"))], **fields)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("said", [{}, {"size": "auto", "quality": "auto"}], ids=["nothing", "auto"])
def test_rules_fill_in_everywhere(gateways: Gateways, way: str, said: dict[str, str]) -> None:
    """A rule's size and quality stand where a caller said nothing, or `auto`, in each dialect alike."""
    rules = [{"name": "thrift", "when": {"teams": ["film"]}, "defaults": {"size": "1024x640", "quality": "low"}}]
    gateway = gateways.open(rules=rules)
    assert gateway.record
    gateway.change_key(gateway.record.id, team="film")
    answer = ask_by(way, gateway, model="anyfast/gpt-image-2", **said)
    assert answer.status_code == 200, answer.text
    (sent,) = gateway.simulator.paid()
    told = {"size": "1024x640"} | ({"quality": "low"} if way == "generation" else {})
    assert {name: sent["fields"].get(name) for name in ("size", "quality")} == {"quality": None} | told
    assert answer.json()["size"] == "1024x640"


@pytest.mark.parametrize("way", WAYS)
def test_callers_words_beat_the_rule(gateways: Gateways, way: str) -> None:
    """What a caller said stands, whatever a rule would fill in."""
    gateway = gateways.open(rules=[{"defaults": {"size": "2048x2048", "quality": "low"}}])
    assert ask_by(way, gateway, model="apiany/gpt-image-2", size="1024x1024", quality="high").status_code == 200
    (sent,) = gateway.simulator.paid()
    assert (sent["fields"]["size"], sent["fields"]["quality"]) == ("1024x1024", "high")


@pytest.mark.parametrize("way", WAYS)
def test_aliases_work_everywhere(gateway: Gateway, way: str) -> None:
    """An alias is served on generations, on JSON and on multipart edits alike, with the form of its answers."""
    answer = ask_by(way, gateway, model="dall-e-3", size="1024x640")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gateway-upstream"] == "anyfast-c"
    assert answer.json()["data"][0]["url"].startswith(gateway.url)
