"""A vendor's bad hour: nearly all callers are served, nobody pays twice, and it is used again once it is well."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway.process.admission import LEAST, SHARE
from tests.support.gateways import Gateway, Gateways, wait_until
from tests.support.ledgers import is_soak
from tests.support.watch import Watch

SICK = "anyfast-c"
LABEL = f"{SICK}/main"
REQUESTS = 600 if is_soak() else 40
REFUSALS: dict[str, list[dict[str, Any]]] = {
    "429": [{"status": 429, "retry_after": 0}],
    "5xx": [{"status": 500}, {"status": 502}, {"status": 503}],
    "both": [{"status": 429, "retry_after": 0}, {"status": 503}],
}
PATIENT = {"call": 30, "task": 30, "collect": 20}
"""Seconds: only a vendor's faults may end a call, and not a busy machine."""

RULES = {"open": 0.3, "open_most": 0.3, "good": 2}


@pytest.fixture
def gateway(gateways: Gateways) -> Gateway:
    """A gateway whose first upstream is about to have a bad hour; its breaker is patient for a third of a second."""
    return gateways.open(
        upstreams={
            SICK: {
                "health": RULES,
                "credentials": [{"key": "env:ANYFAST_C_API_KEY", "group": "direct", "max_concurrent": 8}],
                "timeouts": PATIENT,
            },
            "anyfast": {"timeouts": PATIENT},
            "apiany": {"timeouts": PATIENT},
        },
        limits={"answer_within": 60, "fetch_timeout": 20},
    )


def ask_all(gateway: Gateway, count: int = REQUESTS, at_once: int = 8) -> Counter[int]:
    """The statuses of so many requests, each with a prompt of its own."""

    def ask(number: int) -> httpx.Response:
        return gateway.generate(model="gpt-image-2", size="1024x1024", prompt=f"cat {number}")

    with ThreadPoolExecutor(at_once) as pool:
        return Counter(answer.status_code for answer in pool.map(ask, range(count)))


def refuse_half(gateway: Gateway, how: list[dict[str, Any]]) -> None:
    """Every second call of the first upstream is refused, by turns in these ways."""
    for number in range(1, REQUESTS + 1):
        # A rule that strikes hides the request from those behind it, so that one with `skip` n strikes as the n-th.
        kind = how[number % len(how)]
        gateway.simulator.fault("status", upstream="anyfast", model="gpt-image-2-c", skip=number, **kind)


def count_retries(paid: list[dict[str, Any]]) -> int:
    """Calls by which one upstream was asked for the same picture again."""
    asked = Counter((one["upstream"], one["model"], one["fields"]["prompt"]) for one in paid)
    return sum(times - 1 for times in asked.values())


def assert_bought_once(gateway: Gateway) -> None:
    """No picture was bought twice, and nothing is held for any."""
    prompts = Counter(one["prompt"] for one in gateway.simulator.book())
    assert max(prompts.values()) == 1
    gateway.settle()
    assert gateway.spent().usd_held == 0


def assert_recovers(gateway: Gateway) -> None:
    """Once its vendor is well and the open time is over, single calls try it, and then it serves as before."""
    gateway.simulator.heal()
    wait_until(lambda: gateway.conditions()[LABEL].breaker != "open", "the end of the open time")
    gateway.services.health.forget()
    seen = [gateway.generate(model="gpt-image-2", size="1024x1024").headers["x-gateway-upstream"] for _ in range(4)]
    gateway.settle()
    assert seen[-1] == SICK
    assert gateway.conditions()[LABEL].breaker == "closed"


@pytest.mark.parametrize("how", REFUSALS if is_soak() else ["both"])
def test_half_refused_is_hardly_noticed(gateway: Gateway, how: str) -> None:
    """An upstream that refuses half its calls is left alone after five; 99 of 100 callers and more are served."""
    refuse_half(gateway, REFUSALS[how])
    with Watch(gateway) as watch:
        answers = ask_all(gateway)
    assert answers[200] >= 0.99 * REQUESTS
    assert "open" in watch.breakers[LABEL]
    paid, bought = gateway.simulator.paid(), gateway.simulator.book()
    sick = [one for one in paid if one["model"] == "gpt-image-2-c"]
    refused = len(paid) - len(bought)
    # Whoever was refused was served elsewhere, or asked again within the budget.
    assert count_retries(paid) <= max(LEAST, SHARE * len(paid))
    assert refused <= len(sick)
    assert len(paid) <= REQUESTS + refused
    assert_bought_once(gateway)
    assert_recovers(gateway)


def test_ten_times_slower_is_hardly_noticed(gateway: Gateway) -> None:
    """An upstream that is ten times slower takes what it has places for; the rest goes on, and all are served."""
    gateway.simulator.fault("delay", seconds=0.4, upstream="anyfast", model="gpt-image-2-c", times=None)
    assert ask_all(gateway, at_once=16)[200] >= 0.99 * REQUESTS
    assert len(gateway.simulator.paid()) == len(gateway.simulator.book()) == REQUESTS
    assert_bought_once(gateway)


@pytest.fixture
def dying(gateways: Gateways) -> Gateway:
    """A gateway whose first upstream takes the money and answers nothing; once its breaker is open it stays so."""
    gateway = gateways.open(upstreams={SICK: {"timeouts": {"call": 0.4}, "health": {"open": 600}}})
    gateway.simulator.fault("hang", when="after", upstream="anyfast", model="gpt-image-2-c", times=None)
    return gateway


def test_time_outs_buy_nothing_twice(dying: Gateway) -> None:
    """An upstream that takes the money and answers nothing costs three callers their picture, and no more."""
    count = 600 if is_soak() else 12
    assert ask_all(dying, count, at_once=1) == {424: 3, 200: count - 3}
    assert dying.conditions()[LABEL].breaker == "open"
    assert len(dying.simulator.book()) == count
    assert_bought_once(dying)


def test_time_outs_of_many_buy_nothing_twice(dying: Gateway) -> None:
    """Of many callers at once, those are lost that were under way when the third time was over; the rest are served."""
    answers = ask_all(dying, at_once=8)
    assert set(answers) == {200, 424}
    # Seven more may be on their way while the third is told to the store.
    assert 3 <= answers[424] <= 3 + 7 + 7
    assert dying.conditions()[LABEL].breaker == "open"
    assert len(dying.simulator.book()) == REQUESTS
    assert_bought_once(dying)
