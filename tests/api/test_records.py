"""Every request by a known key leaves one record that says what became of it, and the sums explain every µ$."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway.history.record import Record, Sums
from tests.conftest import Valkey
from tests.support.gateways import (
    EDITS,
    GENERATIONS,
    OFFICIAL,
    SMALLEST,
    TASKS,
    VARIANT,
    Gateway,
    Gateways,
    Simulator,
    error_of,
    serve,
    wait_until,
)
from tests.support.plain_pictures import png
from tests.support.store_reader import read_everything, read_usage

PROMPT = "a quite remarkable heron"


def only(records: list[Record]) -> Record:
    (record,) = records
    return record


def test_delivered_request_is_told(gateway: Gateway) -> None:
    """A delivery leaves key, model, upstream, sizes, quality, numbers, times and the price that was billed."""
    answer = gateway.generate(model=VARIANT, n=2, quality="low", user="customer-7")
    assert answer.status_code == 200
    record = only(gateway.records())
    assert gateway.record is not None
    assert (record.key, record.key_name, record.team) == (gateway.record.id, "test", gateway.record.team)
    assert (record.task, record.request) == (answer.headers["x-gateway-task"], answer.headers["x-request-id"])
    assert (record.operation, record.model, record.upstreams) == ("generation", VARIANT, ("anyfast-c",))
    assert (record.end_user, record.status, record.error) == ("customer-7", 200, None)
    assert (record.size_asked, record.quality_asked, record.quality_sent) == (SMALLEST, "low", "low")
    made = answer.headers["x-gateway-size"].partition("->")[2]
    assert (record.n_asked, record.n_delivered, record.sizes_made) == (2, 2, (made, made))
    assert {call.outcome for call in record.calls} == {"delivered"}
    assert sum(call.images for call in record.calls) == 2
    assert 0 < max(call.seconds for call in record.calls) <= record.seconds < 10
    assert record.price_settled == gateway.booked() == gateway.spent().usd_posted
    assert record.price_held is not None
    assert record.price_held >= record.price_settled > 0
    assert not record.is_presumed


def test_edit_and_fallback_are_told(gateway: Gateway) -> None:
    """A call that was refused and the one that brought the picture are both told, in their order."""
    gateway.simulator.fault("status", status=503, retry_after=50, upstream="anyfast")
    answer = gateway.edit({"image": ("a.png", png(), "image/png")}, model="gpt-image-2", n=1)
    assert answer.status_code == 200, answer.text
    record = only(gateway.records())
    assert record.operation == "edit"
    assert [call.state for call in record.calls] == ["void", "posted"]
    assert [call.outcome for call in record.calls][1] == "delivered"
    assert len(record.upstreams) == 2
    assert record.price_settled == gateway.booked()


def passed_by(record: Record) -> dict[str, str]:
    return {one.target: one.reason for one in record.passed_by}


def test_plan_is_told(gateways: Gateways) -> None:
    """The record says what ordered the upstreams, which rule held, and why the others were not asked."""
    rules = [{"name": "pairs", "when": {"min_n": 2}, "upstreams": ["apiany", "anyfast-c"], "strategy": "cost"}]
    gateway = gateways.open(rules=rules)
    assert gateway.generate(model="gpt-image-2", size="1024x1024", n=2).headers["x-gateway-upstream"] == "apiany"
    assert gateway.generate(model="gpt-image-2", size="1920x1088", headers={"X-Gateway-Route": "latency"}).is_success
    pair, other = gateway.records()
    assert (pair.strategy, pair.rule) == ("cost", "pairs")
    assert passed_by(pair) == {"anyfast/main": "the rule `pairs` excludes it"}
    assert (other.strategy, other.rule) == ("latency", None)
    assert passed_by(other)["apiany/main"].startswith("it makes only 1024x1024")


def test_reason_of_the_moment_is_told(gateway: Gateway) -> None:
    """An upstream that was left alone at that moment stands in the record with the reason."""
    gateway.simulator.fault("status", status=401, model="gpt-image-2-c")
    assert [gateway.generate(model="gpt-image-2").status_code for _ in range(2)] == [200, 200]
    refused, later = gateway.records()
    assert [call.outcome for call in refused.calls] == ["credential", "delivered"]
    # Whether the plan knew it already or the door did, nobody is told twice.
    assert passed_by(later)["anyfast-c/main"] == "it rejected the gateway's credential"
    assert len(passed_by(later)) == len(later.passed_by)


def test_dearer_target_is_told(gateway: Gateway) -> None:
    """A target that a limit in dollars had no room for stands in the record with the limit."""
    gateway.set_limit("usd_total", 35_000)
    gateway.simulator.fault("status", status=500, model="gpt-image-2-c")
    gateway.simulator.fault("status", status=500, upstream="apiany")
    assert gateway.generate(model="gpt-image-2", size="1024x1024", quality="high").status_code == 429
    (record,) = gateway.records()
    assert [call.target for call in record.calls] == ["anyfast-c/main", "apiany/main"]
    assert "usd_total" in passed_by(record)["anyfast/main"]


REFUSALS = [
    ({"size": "7x7"}, 400, "invalid_value", ""),
    ({"n": 99}, 400, "invalid_value", ""),
    ({"prompt": ""}, 400, None, ""),
    ({"model": "no-such-model"}, 404, "model_not_found", "no-such-model"),
]


@pytest.mark.parametrize(("fields", "status", "code", "model"), REFUSALS)
def test_refused_request_is_told(gateway: Gateway, fields: Any, status: int, code: str | None, model: str) -> None:
    """A request that is refused leaves its status and code, and counts as an error that cost nothing."""
    answer = gateway.generate(**fields)
    assert answer.status_code == status, answer.text
    record = only(gateway.records())
    assert (record.status, record.error) == (status, code or error_of(answer)["code"])
    assert (record.task, record.calls, record.price_settled, record.request) == (
        None,
        (),
        0,
        answer.headers["x-request-id"],
    )
    assert record.model == (model or record.model)
    report = asyncio.run(read_usage(gateway.store_url, "model"))
    assert report.total == Sums(requests=1, errors=1)
    assert not any(row.group == ("no-such-model",) for row in report.rows)


def test_limits_and_rights_are_told(gateway: Gateway) -> None:
    """A 403 and a 429 leave a record with what was asked for."""
    assert gateway.record is not None
    gateway.change_key(gateway.record.id, models=("gpt-image-2",))
    assert gateway.generate(model=VARIANT).status_code == 403
    gateway.change_key(gateway.record.id, models=None)
    gateway.set_limit("usd_total", 1)
    assert gateway.generate(n=2).status_code == 429
    forbidden, refused = gateway.records()
    assert (forbidden.status, forbidden.error, forbidden.model) == (403, "model_not_allowed", VARIANT)
    assert (refused.status, refused.error, refused.n_asked) == (429, "insufficient_quota", 2)


def test_strangers_leave_no_record(gateway: Gateway) -> None:
    """Nobody can fill the history without a key."""
    for key in ("igw_wrong", "sk-other"):
        answer = httpx.post(gateway.url + GENERATIONS, headers={"authorization": f"Bearer {key}"}, json={})
        assert answer.status_code == 401
    gateway.settle()
    assert asyncio.run(read_usage(gateway.store_url)).total == Sums()


def test_unknown_outcome_is_flagged(gateway: Gateway) -> None:
    """A call whose answer was lost is told as presumed, at what the ledger charges for it."""
    gateway.simulator.fault("reset", when="after")
    assert gateway.generate().status_code == 424
    record = only(gateway.records())
    assert record.is_presumed
    assert (record.status, record.n_delivered) == (424, 0)
    assert record.price_settled == gateway.spent().usd_presumed > 0


def test_timed_out_request_is_told_once(gateway: Gateway) -> None:
    """A caller that was answered 504 has one record, with the picture that came later and its price."""
    gateway.simulator.fault("latency", seconds=1.3)
    assert gateway.generate(headers={"x-stainless-read-timeout": "1"}).status_code == 504
    record = only(gateway.records())
    assert (record.status, record.error, record.n_delivered) == (504, "task_still_running", 1)
    assert record.price_settled == gateway.booked()


def test_broken_off_upload_is_told(gateway: Gateway) -> None:
    """A caller that leaves in the middle of its upload leaves a record all the same."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST {EDITS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
        head += "content-type: multipart/form-data; boundary=b\r\ncontent-length: 90000000\r\n\r\n"
        connection.sendall(head.encode() + b"--b\r\n")
        wait_until(lambda: gateway.services.in_flight.used, "the upload's begin")
    wait_until(gateway.records, "the record")
    record = only(gateway.records())
    assert (record.operation, record.status, record.error, record.n_asked) == ("edit", 408, "request_timeout", 0)


def test_streamed_request_is_told(gateway: Gateway) -> None:
    """A stream leaves the same record as an answer in one piece."""
    answer = gateway.generate(stream=True)
    assert answer.status_code == 200
    record = only(gateway.records())
    assert (record.status, record.n_delivered, record.task) == (200, 1, answer.headers["x-gateway-task"])


def test_prompt_and_picture_are_nowhere(gateway: Gateway) -> None:
    """Nothing in Redis holds a prompt or a picture, delivered or refused."""
    gateway.generate(prompt=PROMPT)
    gateway.generate(prompt=PROMPT, size="7x7")
    gateway.simulator.fault("policy")
    gateway.generate(prompt=PROMPT)
    assert [record.prompt for record in gateway.records()] == [None] * 3
    stored = asyncio.run(read_everything(gateway.store_url))
    assert "usage" in stored
    assert "heron" not in stored
    assert not re.search(r"[A-Za-z0-9+/]{200}", stored)


def test_prompt_is_kept_where_wanted(gateways: Gateways) -> None:
    """Where the operator wants it, the record holds the prompt."""
    gateway = gateways.open(accounting={"keep_prompts": True})
    assert gateway.generate(prompt=PROMPT + " ☃").status_code == 200
    assert only(gateway.records()).prompt == PROMPT + " ☃"


def test_absence_of_redis_costs_no_record(gateway: Gateway, valkey: Valkey) -> None:
    """A paid request that ends while Redis is away has its record when it is back."""
    gateway.simulator.fault("latency", seconds=0.5)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(gateway.generate)
        wait_until(gateway.simulator.paid, "the paid call")
        with valkey.paused():
            assert answer.result().status_code == 200
            assert gateway.services.recorder.outbox.waiting == 1
    record = only(gateway.records())
    assert record.n_delivered == 1
    assert record.price_settled == gateway.booked() == gateway.spent().usd_posted


def test_shutdown_writes_records(simulator: Simulator, valkey: Valkey) -> None:
    """The record of work that ends during a shutdown is written before the process goes."""
    simulator.fault("latency", seconds=0.8)
    with serve(simulator, valkey.url) as gateway:
        gateway.record, gateway.key = gateway.new_key()
        assert gateway.generate(headers={"x-stainless-read-timeout": "0.5"}).status_code == 504
    assert only(gateway.records()).n_delivered == 1


def test_hammering_is_counted(simulator: Simulator, valkey: Valkey) -> None:
    """A client that asks in vain again and again fills no history, and every try is counted."""
    with serve(simulator, valkey.url) as gateway:
        gateway.record, gateway.key = gateway.new_key()
        for _ in range(260):
            assert gateway.generate(size="7x7").status_code == 400
    records = gateway.records()
    assert [record.repeats for record in records] == [1] * 250 + [10]
    assert asyncio.run(read_usage(gateway.store_url)).total == Sums(requests=260, errors=260)


FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 429, "retry_after": 50},
    {"kind": "reset", "when": "after"},
    {"kind": "garbage"},
    {"kind": "fewer", "by": 1},
    {"kind": "policy"},
]


@pytest.mark.parametrize("seed", [1, 2])
def test_history_explains_the_ledger(gateway: Gateway, seed: int) -> None:
    """After any run, records, sums and ledger agree to the µ$, key by key, and every request is there once."""
    chance = random.Random(seed)
    for fault in chance.choices(FAULTS, k=6):
        gateway.simulator.fault(skip=chance.randrange(12), **fault)
    wishes = [
        {
            "model": chance.choice([OFFICIAL, VARIANT, TASKS, "gpt-image-2", "gpt-image-2", "none"]),
            "n": chance.choice([1, 1, 2, 3]),
            "size": chance.choice([SMALLEST, SMALLEST, "1x1"]),
        }
        for _ in range(24)
    ]
    gateway.set_limit("usd_total", 600_000)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda wish: gateway.generate(**wish), wishes))
    records = gateway.records()
    assert sorted((record.request, record.status) for record in records) == sorted(
        (answer.headers["x-request-id"], answer.status_code) for answer in answers
    )
    spent = gateway.spent()
    assert spent.usd_held == 0
    assert sum(call.usd or 0 for record in records for call in record.calls) == spent.usd_posted + spent.usd_presumed
    assert sum(call.images for record in records for call in record.calls) == spent.images_posted
    total = asyncio.run(read_usage(gateway.store_url)).total
    assert total == Sums(
        requests=len(answers),
        images=spent.images_posted,
        errors=sum(answer.status_code >= 400 for answer in answers),
        usd=spent.usd_posted + spent.usd_presumed,
    )
    assert {record.status for record in records} >= {200, 400, 404}
