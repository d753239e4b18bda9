"""What the gateway does with an upstream that fails, refuses our credential, is full, or comes back."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from tests.conftest import Valkey
from tests.support.gateways import (
    ENV,
    OFFICIAL,
    TASKS,
    VARIANT,
    Gateway,
    Gateways,
    Simulator,
    error_of,
    serve,
    wait_until,
)
from tests.support.watch import Watch

RULES = {"open": 0.4, "open_most": 0.4, "cool_down": 0.4, "good": 2}
KEYS = {**ENV, "SECOND": "sim-direct-b", "BASIC": "sim-basic"}


def credentials(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Two of Anyfast's keys, with changes to each."""
    names = (("main", "ANYFAST_API_KEY"), ("second", "SECOND"))
    return [
        {"name": name, "key": f"env:{variable}", "group": "direct", **change}
        for (name, variable), change in zip(names, changes, strict=False)
    ]


@pytest.fixture
def quick(gateways: Gateways) -> Gateway:
    """A gateway whose breakers and cool-downs last less than half a second."""
    return gateways.open(
        upstreams={name: {"health": RULES, "timeouts": {"call": 0.5}} for name in ("anyfast", "anyfast-c", "apiany")},
        models={"pair": {"upstreams": ["anyfast", "anyfast-c"]}},
    )


def breaker(gateway: Gateway, label: str) -> str:
    """What the store knows now."""
    gateway.settle()
    return gateway.conditions()[label].breaker


def asked(gateway: Gateway) -> Counter[str]:
    return Counter(one["headers"]["key"] for one in gateway.simulator.paid())


def test_time_outs_open_the_breaker(quick: Gateway) -> None:
    """After three unknown outcomes the upstream is not asked again: 503 at once, then it is tried and works."""
    quick.simulator.fault("hang", times=3)
    assert [quick.generate().status_code for _ in range(3)] == [424] * 3
    refused = quick.generate()
    assert (refused.status_code, error_of(refused)["code"]) == (503, "upstream_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert len(quick.simulator.paid()) == 3
    wait_until(lambda: breaker(quick, "anyfast/main") == "half_open", "the end of the open time")
    quick.services.health.forget()
    assert [quick.generate().status_code for _ in range(2)] == [200, 200]
    assert breaker(quick, "anyfast/main") == "closed"


def test_open_breaker_is_passed_by(quick: Gateway) -> None:
    """While the first upstream is left alone, the next one serves, and the first is not even asked."""
    quick.simulator.fault("status", status=500, upstream="anyfast", model="gpt-image-2", times=5)
    assert {quick.generate(model="pair").headers["x-gateway-upstream"] for _ in range(6)} == {"anyfast-c"}
    assert Counter(one["model"] for one in quick.simulator.paid()) == {"gpt-image-2": 5, "gpt-image-2-c": 6}


def test_dry_run_tells_who_is_left_alone(gateways: Gateways) -> None:
    """A dry run shows what a request would meet now: the upstream that is left alone, and why."""
    gateway = gateways.open(models={"pair": {"upstreams": ["anyfast", "anyfast-c"]}})
    gateway.simulator.fault("status", status=401, upstream="anyfast", model="gpt-image-2")
    assert gateway.generate().status_code == 503
    told = gateway.generate({"x-gateway-dry-run": "1"}, model="pair").json()
    assert [one["target"] for one in told["choices"]] == ["anyfast-c/main"]
    assert [(one["target"], one["reason"]) for one in told["rejections"]] == [
        ("anyfast/main", "it rejected the gateway's credential")
    ]


def test_measured_seconds_order_targets(gateways: Gateways) -> None:
    """By the strategy `latency` the upstream that was faster goes first, once both were measured."""
    gateway = gateways.open(models={"pair": {"upstreams": ["anyfast", "anyfast-c"], "strategy": "latency"}})
    gateway.simulator.fault("delay", seconds=0.5, upstream="anyfast", model="gpt-image-2")
    assert [gateway.generate(model=name).status_code for name in (OFFICIAL, VARIANT)] == [200, 200]
    gateway.settle()
    gateway.services.health.forget()
    told = gateway.generate({"x-gateway-dry-run": "1"}, model="pair").json()
    assert [one["target"] for one in told["choices"]] == ["anyfast-c/main", "anyfast/main"]


def test_callers_faults_open_nothing(quick: Gateway) -> None:
    """Requests that a vendor refuses as wrong, or by its safety system, say nothing of its health."""
    quick.simulator.fault("status", status=400, times=6)
    assert [quick.generate().status_code for _ in range(6)] == [400] * 6
    assert [quick.generate(prompt="forbidden-content").status_code for _ in range(6)] == [400] * 6
    assert quick.generate().status_code == 200


def test_refused_credential_is_left_alone(gateways: Gateways) -> None:
    """A key that the vendor refuses is asked once, and logged with the reason; the other serves for that time."""
    gateway = gateways.open(
        env=KEYS, upstreams={"anyfast": {"health": {"cool_down": 0.6}, "credentials": credentials({}, {})}}
    )
    gateway.simulator.fault("status", status=401, key="direct", times=None)
    with capture_logs() as lines:
        assert [gateway.generate().status_code for _ in range(4)] == [200] * 4
        gateway.settle()
    assert asked(gateway) == {"direct": 1, "direct-b": 4}
    (line,) = [line for line in lines if line["event"].startswith("credential rejected")]
    assert (line["upstream"], line["reason"]) == ("anyfast/main", "credential")
    assert gateway.conditions()["anyfast/main"].cooled_why == "credential"


def test_rate_limit_keeps_everybody_away(quick: Gateway) -> None:
    """After a 429 with a long Retry-After nobody is sent there again: the next caller hears the time at once."""
    quick.simulator.fault("status", status=429, retry_after=50)
    assert quick.generate().headers["retry-after"] == "50"
    again = quick.generate()
    assert (again.status_code, error_of(again)["code"]) == (429, "rate_limit_exceeded")
    assert 45 <= int(again.headers["retry-after"]) <= 50
    assert len(quick.simulator.paid()) == 1


def test_credentials_share_by_weight(gateways: Gateways) -> None:
    """Of eight requests in a row a credential of weight three gets six, one of weight one gets two."""
    gateway = gateways.open(env=KEYS, upstreams={"anyfast": {"credentials": credentials({"weight": 3}, {"weight": 1})}})
    assert {gateway.generate().status_code for _ in range(8)} == {200}
    assert asked(gateway) == {"direct": 6, "direct-b": 2}


def test_places_are_kept(gateways: Gateways) -> None:
    """Twelve requests at once at two credentials with one and two places: all are served, never more than three run."""
    shares = credentials({"max_concurrent": 1}, {"max_concurrent": 2})
    gateway = gateways.open(env=KEYS, upstreams={"anyfast": {"credentials": shares}})
    gateway.simulator.fault("delay", seconds=0.1, times=None)
    with Watch(gateway) as watch, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: gateway.generate(), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert (watch.most["anyfast/main"], watch.most["anyfast/second"]) == (1, 2)
    assert len(gateway.simulator.book()) == 12


def test_fan_out_keeps_places(gateways: Gateways) -> None:
    """One request for five images of a one-image upstream with two places never has more than two calls there."""
    limited = [{"key": "env:ANYFAST_C_API_KEY", "group": "direct", "max_concurrent": 2}]
    gateway = gateways.open(upstreams={"anyfast-c": {"credentials": limited}})
    gateway.simulator.fault("delay", seconds=0.1, times=None)
    with Watch(gateway) as watch:
        answer = gateway.generate(model=VARIANT, n=5)
    assert len(answer.json()["data"]) == 5
    assert watch.most["anyfast-c/main"] == 2
    assert len(gateway.simulator.paid()) == 5


def test_keys_take_turns(gateways: Gateways) -> None:
    """A key with six requests in the queue does not keep another key's one waiting for all of them."""
    gateway = one_place(gateways, queue=10)
    gateway.simulator.fault("delay", seconds=0.1, times=None)
    other = {"authorization": f"Bearer {gateway.new_key()[1]}"}
    with ThreadPoolExecutor(7) as pool:
        many = [pool.submit(gateway.generate, prompt="many") for _ in range(6)]
        wait_until(lambda: gateway.services.concurrency_queue.waiting == 5, "five in the queue")
        few = pool.submit(gateway.generate, other, prompt="few")
        assert {one.result().status_code for one in (*many, few)} == {200}
    served = [one["prompt"] for one in gateway.simulator.book()]
    # One runs and one may have got its place meanwhile.
    assert served.index("few") <= 3


def test_overflow_goes_on_at_once(gateways: Gateways) -> None:
    """Of four images two find a place at the first upstream; meanwhile the others are made elsewhere."""
    limited = [{"key": "env:ANYFAST_C_API_KEY", "group": "direct", "max_concurrent": 2}]
    gateway = gateways.open(upstreams={"anyfast-c": {"credentials": limited}})
    gateway.simulator.fault("delay", seconds=0.5, upstream="anyfast", model="gpt-image-2-c", times=None)
    with Watch(gateway) as watch:
        answer = gateway.generate(model="gpt-image-2", size="1024x1024", n=4)
    assert len(answer.json()["data"]) == 4
    assert watch.together("anyfast-c/main", "apiany/main")
    assert sorted(one["n"] for one in gateway.simulator.book()) == [1, 1, 2]


def test_fan_out_is_no_retry(gateways: Gateways) -> None:
    """The calls of one request that wait for a place spend nothing of the retry budget."""
    limited = [{"key": "env:ANYFAST_C_API_KEY", "group": "direct", "max_concurrent": 1}]
    gateway = gateways.open(upstreams={"anyfast-c": {"credentials": limited}})
    assert [len(gateway.generate(model=VARIANT, n=10).json()["data"]) for _ in range(2)] == [10, 10]


def test_full_queue_refuses(gateways: Gateways) -> None:
    """With one place and room for one to wait, a third request is refused at once: 429, and nothing is held for it."""
    gateway = one_place(gateways, queue=1)
    gateway.simulator.fault("delay", seconds=0.6, times=None)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(gateway.generate)
        wait_until(lambda: gateway.simulator.paid(), "the first call")
        second = pool.submit(gateway.generate)
        wait_until(lambda: gateway.services.concurrency_queue.waiting == 1, "the second in the queue")
        third = gateway.generate()
        assert (third.status_code, error_of(third)["code"]) == (429, "queue_full")
        assert third.headers["retry-after"] == "5"
        assert (first.result().status_code, second.result().status_code) == (200, 200)
    gateway.settle()
    assert gateway.spent().usd_held == 0


def test_waiting_ends_before_the_deadline(gateways: Gateways) -> None:
    """Who waits in vain is told so before its own time is up, and pays nothing."""
    gateway = one_place(gateways, queue=5)
    gateway.simulator.fault("delay", seconds=1.5)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.generate)
        wait_until(lambda: gateway.simulator.paid(), "the first call")
        waited = gateway.generate({"x-stainless-read-timeout": "1"})
        assert (waited.status_code, error_of(waited)["code"]) == (429, "queue_full")
        assert first.result().status_code == 200
    assert len(gateway.simulator.paid()) == 1


def test_hang_up_leaves_the_queue(gateways: Gateways) -> None:
    """A caller that hangs up while it waits is not served: nothing is sent, and what was held for it is released."""
    gateway = one_place(gateways, queue=5)
    gateway.simulator.fault("delay", seconds=2.0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.generate)
        wait_until(lambda: gateway.simulator.paid(), "the first call")
        with pytest.raises(httpx.ReadTimeout):
            gateway.request("POST", "/v1/images/generations", json={"prompt": "x", "model": OFFICIAL}, timeout=0.2)
        wait_until(lambda: not gateway.services.concurrency_queue.waiting, "the end of the waiting")
        assert not first.done()
        assert first.result().status_code == 200
    gateway.settle()
    assert len(gateway.simulator.paid()) == 1
    assert gateway.spent().usd_held == 0


def test_replicas_agree(quick: Gateway, simulator: Simulator, valkey: Valkey) -> None:
    """A breaker that one gateway opens is open at another one over the same Redis, within the second of a look."""
    changes = {"upstreams": {"anyfast": {"health": {"open": 60}}}}
    with serve(simulator, valkey.url, changes) as one, serve(simulator, valkey.url, changes) as other:
        one.key = other.key = quick.key
        assert other.generate().status_code == 200
        simulator.fault("status", status=500, times=5)
        assert [one.generate().status_code for _ in range(5)] == [502] * 5
        answer = other.generate()
        assert (answer.status_code, error_of(answer)["code"]) == (503, "upstream_unavailable")
        assert len(simulator.paid()) == 6


def test_places_are_shared_by_replicas(quick: Gateway, simulator: Simulator, valkey: Valkey) -> None:
    """Two gateways over one Redis together have no more calls at a credential than it takes."""
    limited = [{"key": "env:APIANY_API_KEY", "max_concurrent": 1}]
    changes = {"upstreams": {"apiany": {"credentials": limited}}}
    with serve(simulator, valkey.url, changes) as one, serve(simulator, valkey.url, changes) as other:
        one.key = other.key = quick.key
        with Watch(one) as watch, ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda each: each.generate(model=TASKS, size="1024x1024"), (one, other) * 3))
        assert {answer.status_code for answer in answers} == {200}
        assert watch.most["apiany/main"] == 1


@pytest.mark.parametrize("floor", [0, 10**9])
def test_low_balance_is_not_used(gateways: Gateways, floor: int) -> None:
    """A credential is checked by a free call, its balance is shown, and below its floor it is not used."""
    credential = {"key": "env:APIANY_API_KEY", "min_balance": floor}
    gateway = gateways.open(upstreams={"apiany": {"credentials": [credential]}})
    gateway.check("apiany/main")
    assert [one["path"] for one in gateway.simulator.log()] == ["/apiany/v1/credits/balance"]
    condition = gateway.conditions()["apiany/main"]
    assert condition.balance is not None
    assert 0 < int(condition.balance) < 10**9
    assert condition.is_low == bool(floor)
    gateway.services.health.forget()
    answer = gateway.generate(model=TASKS, size="1024x1024")
    assert answer.status_code == (503 if floor else 200)
    assert len(gateway.simulator.paid()) == (0 if floor else 1)


def test_refused_check_cools_down(gateway: Gateway) -> None:
    """A check that is refused leaves the credential alone before any caller has met it; nothing was made."""
    gateway.simulator.fault("status", status=401, endpoint="models", upstream="anyfast")
    gateway.check("anyfast/main")
    assert [one["path"] for one in gateway.simulator.log()] == ["/anyfast/v1/models"]
    condition = gateway.conditions()["anyfast/main"]
    assert (condition.cooled_why, condition.trouble) == ("credential", "credential (401)")
    gateway.services.health.forget()
    assert gateway.generate().status_code == 503
    assert not gateway.simulator.paid()


def test_failed_check_is_only_noted(gateway: Gateway) -> None:
    """A check that fails otherwise is shown, and says nothing of what the upstream would make."""
    gateway.simulator.fault("status", status=500, endpoint="models", upstream="anyfast")
    gateway.check("anyfast/main")
    assert gateway.conditions()["anyfast/main"].trouble == "upstream_error (500)"
    gateway.services.health.forget()
    assert gateway.generate().status_code == 200


def test_credentials_are_checked_by_themselves(gateway: Gateway, simulator: Simulator, valkey: Valkey) -> None:
    """A gateway that serves checks each credential soon after its start, once, and makes nothing."""
    checked = {name: {"health": {"check_every": 60}} for name in ("anyfast", "apiany")}
    with serve(simulator, valkey.url, {"upstreams": checked, "accounting": {"lease": 0.6}}):
        wait_until(lambda: len(simulator.log()) == 2, "two checks")
    assert {one["endpoint"] for one in simulator.log()} == {"models", "balance"}
    assert gateway.conditions()["apiany/main"].balance


def one_place(gateways: Gateways, queue: int) -> Gateway:
    limited = [{"key": "env:ANYFAST_API_KEY", "group": "direct", "max_concurrent": 1}]
    return gateways.open(upstreams={"anyfast": {"credentials": limited}}, limits={"queue": queue})
