"""Limits and money through the HTTP API: who is refused, what is held, what is charged, and that all of it adds up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import pytest

from gateway.callers.auth import Caller
from gateway.dollars import show_usd
from gateway.history.record import Sums
from gateway.jobs.job import ImageJob, Size
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Scope
from gateway.pipeline import work
from gateway.recovery.conclusion import conclude_dead
from gateway.routing.plan import plan
from gateway.services import Services
from gateway.store.windows import Calendar
from gateway.tasks.task import Delivered, TaskSpec, drain, open_task, wait_for
from tests.support.gateways import OFFICIAL, TASKS, VARIANT, Gateway, Gateways, Simulator, error_of, small, wait_until
from tests.support.plain_pictures import png
from tests.support.stopwatch import running_seconds
from tests.support.store_reader import read_usage

FLAT = 30_000
"""µ$ for an image of the variant."""

MIDNIGHT = 4_116_787_200 * 1_000_000
"""2100-06-16 in UTC, a Wednesday, in µs: long after whatever the real clock calls overdue."""


def test_budget_is_never_passed(gateway: Gateway) -> None:
    """Two hundred SDK calls at once into a budget of 25 images: 25 pictures, 175 refusals, every µ$ explained."""
    gateway.set_limit("usd_total", 25 * FLAT)

    async def ask_all() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key) as client:
            asks = (client.images.generate(**small(model=VARIANT)) for _ in range(200))
            return await asyncio.gather(*asks, return_exceptions=True)

    answers = asyncio.run(ask_all())
    refused = [one for one in answers if isinstance(one, openai.RateLimitError)]
    assert {one.code for one in refused} == {"insufficient_quota"}
    assert (len(refused), len(answers) - len(refused)) == (175, 25)
    assert len(gateway.simulator.paid()) == len(gateway.simulator.book()) == 25
    spent = gateway.spent()
    assert (spent.usd_posted, spent.usd_presumed, spent.usd_held) == (gateway.booked(), 0, 0)
    assert spent.usd_posted == 25 * FLAT
    assert (spent.images_posted, spent.images_held) == (25, 0)
    told = wait_until(lambda: _find_sums(gateway, requests=200), "the record of every request")
    assert (told.images, told.errors, told.usd) == (25, 175, gateway.booked())
    delivered = [one for one in gateway.records() if one.status == 200]
    assert sum(one.price_settled or 0 for one in delivered) == gateway.booked()


def _find_sums(gateway: Gateway, requests: int) -> Sums | None:
    total = asyncio.run(read_usage(gateway.store_url)).total
    return total if total.requests == requests else None


def test_default_sdk_hears_at_once(gateway: Gateway) -> None:
    """A budget's refusal makes an SDK with its default settings raise in under a second, after one request."""
    gateway.set_limit("usd_month", FLAT - 1)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key)
    began = running_seconds()
    with client, pytest.raises(openai.RateLimitError) as refused:
        client.images.generate(**small(model=VARIANT))
    assert running_seconds() - began < 1
    assert refused.value.code == "insufficient_quota"
    assert "$0.029999 is left, and this request may cost $0.030000. It resets at" in refused.value.message
    assert gateway.simulator.log() == []


@pytest.mark.parametrize("scope", ["key", "team", "everyone"])
@pytest.mark.parametrize(
    ("limit", "code", "wait"),
    [
        ("requests_minute", "rate_limit_exceeded", 60),
        ("images_minute", "rate_limit_exceeded", 60),
        ("images_day", "insufficient_quota", None),
        ("images_month", "insufficient_quota", None),
    ],
)
def test_second_request_is_refused(gateway: Gateway, scope: str, limit: str, code: str, wait: int | None) -> None:
    """Each limit counts on each scope; its refusal says which, and costs nothing."""
    record, secret = gateway.new_key(team="design")
    gateway.set_limit(limit, 1, {"key": Scope(key=record.id), "team": Scope(team="design")}.get(scope, Scope()))
    other = {"authorization": f"Bearer {secret}"}
    assert gateway.generate(other).status_code == 200
    answer = gateway.generate(other)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (429, code)
    assert f"({limit})" in error["message"]
    told = answer.headers.get("retry-after")
    assert (wait is None) == (told is None)
    assert told is None or 1 <= int(told) <= 60
    assert len(gateway.simulator.book()) == 1


def test_answers_tell_the_rates(gateway: Gateway) -> None:
    """Every answer of a key with limits a minute tells them, whatever it answers."""
    gateway.set_limit("requests_minute", 60)
    gateway.set_limit("images_minute", 10)
    made = gateway.generate(n=2)
    assert (made.headers["x-ratelimit-limit-images"], made.headers["x-ratelimit-remaining-images"]) == ("10", "8")
    assert made.headers["x-ratelimit-remaining-requests"] == "59"
    # What was taken has not come back before the next look, or is coming back a little at a time.
    for answer in (
        gateway.generate(size="7x7"),
        gateway.generate(model="none"),
        gateway.get("/v1/models"),
        gateway.get("/v1/key"),
        gateway.generate(stream=True),
        gateway.generate(n=9),
    ):
        assert answer.headers["x-ratelimit-limit-requests"] == "60"
        assert answer.headers["x-ratelimit-limit-images"] == "10"
        assert int(answer.headers["x-ratelimit-remaining-images"]) <= 10
        assert answer.headers["x-ratelimit-reset-images"]


def test_more_than_a_minute_allows(gateway: Gateway) -> None:
    """More images than the limit a minute are a mistake in `n`, not something to wait for."""
    gateway.set_limit("images_minute", 3)
    answer = gateway.generate(n=4)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "n")
    assert gateway.generate(n=3).status_code == 200


def test_place_is_free_with_the_answer(gateway: Gateway) -> None:
    """A key with one request at a time may send the next once it is answered; a second beside it is refused."""
    gateway.set_limit("concurrent_requests", 1)
    for _ in range(3):
        assert gateway.generate().status_code == 200

    async def ask_both() -> list[int]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
            asks = (client.images.with_raw_response.generate(**small()) for _ in range(2))
            answers = await asyncio.gather(*asks, return_exceptions=True)
        return sorted(one.status_code for one in answers if not isinstance(one, BaseException)) + [
            one.status_code for one in answers if isinstance(one, openai.RateLimitError)
        ]

    gateway.simulator.fault("latency", seconds=0.5)
    assert asyncio.run(ask_both()) == [200, 429]


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (OFFICIAL, {"quality": "low"}),
        (OFFICIAL, {"n": 3, "size": "1536x1024"}),
        (VARIANT, {"n": 2}),
        (TASKS, {"n": 2, "size": "2048x2048"}),
        (TASKS, {}),
    ],
)
def test_charge_is_what_the_vendor_books(gateway: Gateway, model: str, fields: dict[str, Any]) -> None:
    """By tokens, flat or by credits: the answer's cost, the ledger and the vendor's book are one amount."""
    answer = gateway.generate(model=model, **({"size": "1024x1024"} | fields))
    assert answer.status_code == 200, answer.text
    spent = gateway.spent()
    assert answer.headers["x-gateway-cost-usd"] == show_usd(gateway.booked())
    assert (spent.usd_posted, spent.usd_presumed, spent.usd_held) == (gateway.booked(), 0, 0)


def test_references_are_charged(gateway: Gateway) -> None:
    """An edit pays for the tokens of its references."""
    answer = gateway.edit([("image[]", png(width=64)), ("image[]", png(width=64))], size="1024x1024")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gateway-cost-usd"] == show_usd(gateway.booked())
    assert gateway.spent().usd_posted == gateway.booked() > 2 * 1024 * 8


def test_missing_usage_is_estimated(gateway: Gateway) -> None:
    """Where the vendor counts no tokens, its published formula is the bill."""
    gateway.simulator.fault("shape", shape="no_usage")
    answer = gateway.generate(quality="high")
    assert "usage" not in answer.json()
    assert answer.headers["x-gateway-cost-usd"] == show_usd(gateway.booked())


def test_fewer_images_cost_fewer(gateway: Gateway) -> None:
    """What did not come is not charged, and what was held for it is free again."""
    gateway.simulator.fault("fewer", by=2)
    answer = gateway.generate(n=3, model=OFFICIAL, quality="low")
    assert answer.headers["x-gateway-delivered"] == "1/3"
    spent = gateway.spent()
    assert (spent.images_posted, spent.images_held, spent.usd_held) == (1, 0, 0)
    assert answer.headers["x-gateway-cost-usd"] == show_usd(spent.usd_posted)


def test_unknown_outcome_is_charged_and_flagged(gateway: Gateway) -> None:
    """A call whose answer was lost is presumed at its price, told to the caller, and never sent again."""
    gateway.simulator.fault("reset", when="after")
    answer = gateway.generate(model=VARIANT)
    assert answer.status_code == 424
    assert answer.headers["x-gateway-cost-usd"] == "0.030000"
    spent = gateway.spent()
    assert (spent.usd_presumed, spent.usd_posted, spent.usd_held) == (FLAT, 0, 0)


@pytest.mark.parametrize(("policy", "presumed", "held"), [("release", 0, 0), ("hold", 0, FLAT)])
def test_operator_decides_about_unknowns(gateways: Gateways, policy: str, presumed: int, held: int) -> None:
    """An upstream's policy may give an unknown call's price back, or hold it."""
    gateway = gateways.open(upstreams={"anyfast-c": {"unknown_outcome": policy}})
    gateway.simulator.fault("reset", when="after")
    assert gateway.generate(model=VARIANT).status_code == 424
    spent = gateway.spent()
    assert (spent.usd_presumed, spent.usd_posted, spent.usd_held) == (presumed, 0, held)
    # A call that is held must stay collectable, which an error would end.
    assert judge_dead(gateway) == (False, policy == "release")


def judge_dead(gateway: Gateway) -> tuple[bool, bool]:
    """True when another process would start the only task again; and True when its call has a stored error."""
    assert gateway.record is not None
    key = gateway.record.id

    async def conclude() -> tuple[bool, bool]:
        async with gateway.inside() as app:
            services: Services = app.state.services
            ((record,), _) = await services.task_store.list(key, None, 10)
            hold = await services.ledger.show(record.id)
            assert hold is not None
            calls = await services.calls.read([call.call for call in hold.calls])
            is_unstarted = conclude_dead(hold, record, calls, services.signing_key).is_unstarted
            return is_unstarted, any(call.error for call in calls.values())

    return asyncio.run(conclude())


def test_refusal_costs_nothing(gateway: Gateway) -> None:
    """What a safety system refuses is not charged, unless the upstream is said to bill it."""
    gateway.simulator.fault("policy")
    answer = gateway.generate(model=VARIANT)
    assert (answer.status_code, answer.headers["x-gateway-cost-usd"]) == (400, "0.000000")
    spent = gateway.spent()
    assert (spent.usd_presumed, spent.usd_posted, spent.usd_held) == (0, 0, 0)


def test_dearer_target_needs_room(gateways: Gateways) -> None:
    """Before a dearer upstream is tried more is held; where a limit has no room for it, it is skipped."""
    gateway = gateways.open(models={"cheap-first": {"upstreams": ["apiany", "anyfast-c"]}})
    gateway.simulator.fault("status", status=500, upstream="apiany", times=2)
    gateway.set_limit("usd_day", 15_000)
    refused = gateway.generate(model="cheap-first", size="1024x1024")
    assert (refused.status_code, error_of(refused)["code"]) == (429, "insufficient_quota")
    assert [one["upstream"] for one in gateway.simulator.paid()] == ["apiany"]
    gateway.set_limit("usd_day", FLAT)
    assert gateway.generate(model="cheap-first", size="1024x1024").headers["x-gateway-upstream"] == "anyfast-c"
    assert gateway.spent().usd_posted == FLAT


@pytest.mark.parametrize("scope", [None, Scope(), Scope(team="design")])
def test_unknown_price_serves_the_unlimited_only(gateways: Gateways, scope: Scope | None) -> None:
    """An upstream without prices serves keys without a limit in dollars; for others it is not there."""
    gateway = gateways.open(
        upstreams={"anyfast-c": {"prices": None}}, models={"both": {"upstreams": ["anyfast-c", "anyfast"]}}
    )
    record, secret = gateway.new_key(team="design")
    other = {"authorization": f"Bearer {secret}"}
    free = gateway.generate(other, model="both")
    assert free.headers["x-gateway-upstream"] == "anyfast-c"
    assert "x-gateway-cost-usd" not in free.headers
    gateway.set_limit("usd_month", 10_000_000, scope or Scope(key=record.id))
    assert gateway.generate(other, model="both").headers["x-gateway-upstream"] == "anyfast"
    alone = gateway.generate(other, model=VARIANT)
    assert (alone.status_code, alone.headers["x-should-retry"]) == (503, "false")
    assert "known price" in error_of(alone)["message"]


@pytest.fixture
async def at_midnight(gateway: Gateway) -> AsyncIterator[tuple[Services, list[int]]]:
    """The services of a gateway in this loop, whose ledger reads the time from a list."""
    now = [MIDNIGHT - 1_000_000]
    async with gateway.inside() as app:
        made = app.state.services
        ledger = Ledger(made.command_queue, Calendar(), now=lambda: now[0])
        yield replace(made, ledger=ledger), now
        assert await drain(made) == (0, 0)


async def test_window_rolls_over_in_flight(
    at_midnight: tuple[Services, list[int]], gateway: Gateway, simulator: Simulator
) -> None:
    """What began before midnight counts for the day it began in, and the new day begins with its whole budget."""
    services, now = at_midnight
    assert gateway.record is not None
    key = gateway.record.id
    await services.ledger.set_limit("change_" + "0" * 26, Scope(key=key), "usd_day", FLAT)
    job = ImageJob("generation", "a cat", size=Size(1024, 640))
    found = services.catalogue.find_model(VARIANT)
    assert found is not None
    wanted = plan(job, VARIANT, found[0], services.catalogue)
    caller = Caller(gateway.record)
    before = await open_task(services, caller, TaskSpec(job, wanted), services.new_spool(), work)
    now[0] = MIDNIGHT
    after = await open_task(services, caller, TaskSpec(job, wanted), services.new_spool(), work)
    for task in (before, after):
        assert isinstance(await wait_for(task, 5), Delivered)
    days = [one for one in (await services.ledger.look(key)).spent if one.scope == "key"]
    assert {one.window: one.usd_posted for one in days} == {
        "total": 2 * FLAT,
        "month": 2 * FLAT,
        "week": 2 * FLAT,
        "day": FLAT,
    }
    assert len(simulator.book()) == 2
