"""A picture of another size than its upstream was to make is told, resized or refused, and paid for in any case."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from gateway.health.drift import Drift, DriftBook
from gateway.store.client import connect
from tests.support.gateways import ENV, OFFICIAL, SMALLEST, TASKS, VARIANT, Gateway, Gateways, error_of
from tests.support.plain_pictures import decode, png
from tests.support.simulators import wait_until

OTHER = "512x320"


def opened(gateways: Gateways, policy: str, model: str = OFFICIAL) -> Gateway:
    return gateways.open(models={model: {"other_size": policy}})


def drifts(gateway: Gateway) -> list[tuple[str, str, str, int, str]]:
    """What the store has counted, once all of it is there."""

    async def read() -> list[Drift]:
        redis = connect(gateway.store_url)
        try:
            return await DriftBook(redis).read()
        finally:
            await redis.aclose()

    wait_until(lambda: not gateway.services.drift.outbox.waiting, "the last note of drift")
    return [(one.upstream, one.kind, one.what, one.count, one.example) for one in asyncio.run(read())]


def sizes_of(gateway: Gateway) -> list[tuple[str | None, tuple[str, ...]]]:
    (record,) = gateway.records()
    return [(call.promised, call.made) for call in record.calls]


def test_other_size_is_told_everywhere(gateway: Gateway) -> None:
    """In the answer, in the record, and in what all workers count of the upstream."""
    gateway.simulator.fault("wrong_size", size=OTHER)
    answer = gateway.generate(n=2)
    assert [decode(item).size for item in answer.json()["data"]] == [(512, 320)] * 2
    assert answer.headers["x-gateway-size"] == f"{SMALLEST}->{OTHER}"
    assert sizes_of(gateway) == [(SMALLEST, (OTHER, OTHER))]
    assert drifts(gateway) == [("anyfast", "made", "size", 2, f"{SMALLEST} became {OTHER}")]
    assert gateway.spent().usd_posted == gateway.booked()


def test_every_size_of_an_answer_is_told(gateway: Gateway) -> None:
    """Where the pictures of one answer differ, the header names each size once."""
    gateway.simulator.fault("wrong_size", size=OTHER)
    answer = gateway.generate(model=VARIANT, n=3)
    asked, _, made = answer.headers["x-gateway-size"].partition("->")
    assert (asked, sorted(made.split(","))) == (SMALLEST, sorted([SMALLEST, OTHER]))


@pytest.mark.parametrize("model", [OFFICIAL, VARIANT])
def test_kept_promise_is_no_drift(gateway: Gateway, model: str) -> None:
    """A picture as it was promised leaves no note."""
    gateway.generate(model=model)
    assert sizes_of(gateway) == [(None, ())]
    assert drifts(gateway) == []


def test_nothing_is_promised_for_auto(gateway: Gateway) -> None:
    """Where the upstream chooses the size itself, whatever it makes is right."""
    gateway.simulator.fault("wrong_size", size=OTHER)
    answer = gateway.generate(model=TASKS, size="auto")
    assert answer.headers["x-gateway-size"] == f"auto->{OTHER}"
    assert drifts(gateway) == []


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_resized_picture_is_exact(gateways: Gateways, form: str) -> None:
    """With `resize` the caller gets exactly the pixels and the format it asked for, and is told of it."""
    gateway = opened(gateways, "resize")
    gateway.simulator.fault("wrong_size", size=OTHER)
    answer = gateway.generate(output_format=form)
    picture = decode(answer.json()["data"][0])
    assert (picture.size, picture.format) == ((1024, 640), form.upper())
    assert answer.json()["size"] == SMALLEST
    assert answer.headers["x-gateway-size"] == f"{SMALLEST}->{OTHER}->{SMALLEST}"
    assert sizes_of(gateway) == [(SMALLEST, (OTHER,))]
    assert gateway.records()[0].sizes_made == (SMALLEST,)


def test_resized_picture_costs_what_was_made(gateways: Gateways) -> None:
    """The bill is the vendor's: by the size that it made, not by the one that came of it here."""
    gateway = opened(gateways, "resize", TASKS)
    gateway.simulator.fault("wrong_size", size="1024x1024")
    answer = gateway.generate(model=TASKS, size="2048x2048")
    assert decode(answer.json()["data"][0]).size == (2048, 2048)
    assert gateway.spent().usd_posted == gateway.booked() == 15_000


def test_refused_picture_is_paid_for_and_kept(gateways: Gateways) -> None:
    """With `refuse` the error names the size that came and its link; the key is charged, nothing is bought twice."""
    gateway = opened(gateways, "refuse")
    gateway.simulator.fault("wrong_size", size=OTHER)
    answer = gateway.generate()
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (424, "upstream_bad_response")
    assert f"{OTHER} in place of {SMALLEST}" in error["message"]
    path = re.search(r"/v1/artifacts/[^\s)]+", error["message"])
    assert path is not None
    assert gateway.client.get(path[0]).content in [picture.read_bytes() for picture in gateway.pictures()]
    assert gateway.spent().usd_posted == gateway.booked() > 0
    assert gateway.spent().images_posted == 0
    (record,) = gateway.records()
    assert [(call.outcome, call.state, call.images) for call in record.calls] == [("bad_response", "posted", 0)]
    assert len(gateway.simulator.paid()) == 1


def test_withheld_picture_is_no_failure_of_health(gateways: Gateways) -> None:
    """A vendor that keeps making another size is drifting, not failing: its breaker stays closed."""
    gateway = opened(gateways, "refuse")
    gateway.simulator.fault("wrong_size", size=OTHER, times=4)
    assert [gateway.generate().status_code for _ in range(5)] == [424, 424, 424, 424, 200]
    gateway.settle()
    condition = gateway.conditions()["anyfast/main"]
    assert (condition.breaker, condition.presumed) == ("closed", 0)


def test_rule_decides_for_its_requests(gateways: Gateways) -> None:
    """The rule for other sizes may differ for some requests."""
    gateway = gateways.open(rules=[{"when": {"operation": "edit"}, "other_size": "resize"}])
    gateway.simulator.fault("wrong_size", size=OTHER, times=2)
    told, mended = gateway.generate(), gateway.edit({"image": png()}, model=OFFICIAL, size=SMALLEST)
    assert decode(told.json()["data"][0]).size == (512, 320)
    assert decode(mended.json()["data"][0]).size == (1024, 640)


def test_refusal_spares_the_pictures_that_are_right(gateways: Gateways) -> None:
    """Of several calls only the one that broke its promise is withheld; the whole is charged."""
    gateway = opened(gateways, "refuse", VARIANT)
    gateway.simulator.fault("wrong_size", size=OTHER)
    answer = gateway.generate(model=VARIANT, n=3)
    assert [decode(item).size for item in answer.json()["data"]] == [(1024, 640)] * 2
    assert answer.headers["x-gateway-delivered"] == "2/3"
    assert answer.headers["x-gateway-size"] == f"{SMALLEST}->{SMALLEST}"
    assert gateway.spent().usd_posted == gateway.booked() == 90_000
    assert sorted(sizes_of(gateway), key=str) == [(SMALLEST, (OTHER,)), (None, ()), (None, ())]


def test_stream_tells_what_was_resized(gateways: Gateways) -> None:
    """An event says the same of its picture as an answer's header."""
    gateway = opened(gateways, "resize")
    gateway.simulator.fault("wrong_size", size=OTHER)
    answer = gateway.generate(stream=True)
    assert f'"size":"{SMALLEST}->{OTHER}->{SMALLEST}"' in answer.text


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ({"status": 404, "code": "model_not_found"}, "model"),
        ({"status": 422, "code": "invalid_value"}, "other"),
        ({"status": 400, "code": "invalid_value", "message": "size: no"}, "other"),
    ],
)
def test_refusal_of_what_is_allowed_is_counted(gateway: Gateway, fault: dict[str, Any], what: str) -> None:
    """An upstream that refuses what its abilities allow is counted, without a word of the caller's."""
    gateway.simulator.fault("status", **fault)
    gateway.generate()
    assert drifts(gateway) == [("anyfast", "refused", what, 1, "")]


def test_vendors_parameter_is_counted(gateways: Gateways) -> None:
    """Where the vendor names the parameter, that is what is counted; here the catalogue allows more than it takes."""
    credentials = [{"key": "env:OPENAI_API_KEY", "capabilities": {"sizes": "exact"}}]
    described = {"kind": "openai", "model": "gpt-image-1", "base_url": f"{gateways.simulator.url}/openai"}
    gateway = gateways.open(
        env=ENV | {"OPENAI_API_KEY": "sim-openai"},
        upstreams={"openai": described | {"credentials": credentials}},
        models={"wide": {"upstreams": ["openai"]}},
    )
    assert gateway.generate(model="wide", size="1920x1088").status_code == 400
    assert drifts(gateway) == [("openai", "refused", "size", 1, "")]


def test_broken_pictures_of_a_caller_are_no_drift(gateway: Gateway) -> None:
    """What is wrong with a caller's own request is nobody's drift."""
    assert gateway.edit({"image": png()[:60]}).status_code == 400
    assert drifts(gateway) == []
