"""A repeated request finds the pictures of the first, and nothing is bought twice: the simulator's book judges."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import redis

from tests.support.gateways import GENERATIONS, OFFICIAL, SMALLEST, Gateway, Gateways, error_of, small, wait_until
from tests.support.plain_pictures import png

HURRIED = {"x-stainless-read-timeout": "0.4"}
"""Answered after 0.3 s."""

RETRY = {"x-stainless-retry-count": "1"}


def keyed(value: str) -> dict[str, str]:
    return {"idempotency-key": value}


def hang_up(gateway: Gateway, **fields: Any) -> None:
    """Ask for a picture, and leave once the vendor has taken the request."""
    before = len(gateway.simulator.book())
    body = json.dumps(small(**fields)).encode()
    head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
    address = (gateway.client.base_url.host, gateway.client.base_url.port)
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: len(gateway.simulator.book()) > before, "the submission")


def is_left(gateway: Gateway) -> bool:
    """Whether the gateway has noticed that somebody went."""
    store = redis.Redis.from_url(gateway.store_url, decode_responses=True)
    try:
        return any(store.hget(name, "left") for name in store.scan_iter("{igw}:hold:*"))
    finally:
        store.close()


def leave(gateway: Gateway, **fields: Any) -> None:
    """Hang up, and return once the gateway knows."""
    hang_up(gateway, **fields)
    wait_until(lambda: is_left(gateway), "the hang-up's notice")


def pictures_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["b64_json"] for item in answer.json()["data"]]


def told(answer: httpx.Response) -> dict[str, Any]:
    """An answer without what a vendor made of the prompt, which is not kept."""
    body = answer.json()
    return body | {"data": [item | {"revised_prompt": None} for item in body["data"]]}


def open_sdk(gateway: Gateway, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, **options)


def test_retries_after_504_get_their_picture(gateway: Gateway) -> None:
    """Three requests in a row, two of them answered 504, are one submission, one charge and one picture."""
    gateway.simulator.fault("latency", seconds=0.9)
    first = gateway.generate(headers=HURRIED)
    assert (first.status_code, error_of(first)["code"]) == (504, "task_still_running")
    assert (first.headers["x-should-retry"], first.headers["retry-after"]) == ("true", "1")
    second = gateway.generate(headers=HURRIED | RETRY)
    assert (second.status_code, second.headers["x-gateway-joined"]) == (504, "1")
    third = gateway.generate(headers={"x-stainless-retry-count": "2"})
    assert len(pictures_of(third)) == 1
    assert third.headers["x-gateway-joined"] == "1"
    assert {answer.headers["x-gateway-task"] for answer in (first, second, third)} == {first.headers["x-gateway-task"]}
    assert len(gateway.simulator.book()) == 1
    assert gateway.spent().usd_posted == gateway.booked()


def test_sdk_gets_its_picture(gateway: Gateway) -> None:
    """openai-python with its default retries and a time-out shorter than the work gets the picture that it began."""
    gateway.simulator.fault("latency", seconds=2.6)
    with open_sdk(gateway, timeout=1) as sdk:
        answer = sdk.images.generate(model=OFFICIAL, prompt="a cat", size=SMALLEST)
    assert answer.data
    assert len(gateway.simulator.book()) == 1
    assert [record.is_joined for record in gateway.records()] == [False, True, True]


def test_joining_needs_no_room(gateway: Gateway) -> None:
    """With every limit used up by the task itself, its retry still gets the picture, at no cost."""
    for limit in ("concurrent_requests", "requests_minute", "images_day"):
        gateway.set_limit(limit, 1)
    gateway.set_limit("usd_total", 100_000)
    gateway.simulator.fault("latency", seconds=0.6)
    assert gateway.generate(headers=HURRIED).status_code == 504
    assert pictures_of(gateway.generate(headers=RETRY))
    assert gateway.generate(prompt="a dog").status_code == 429
    work, joined = gateway.records()[:2]
    assert {work.task, joined.task} == {work.task}
    told = sorted((one.is_joined, len(one.calls)) for one in (work, joined))
    assert told == [(False, 1), (True, 0)]
    assert len(gateway.simulator.book()) == 1


def test_equal_calls_side_by_side_differ(gateway: Gateway) -> None:
    """Four identical calls by the SDK, two at a time, end with four pictures of four tasks."""
    gateway.set_limit("concurrent_requests", 2)
    gateway.simulator.fault("latency", seconds=0.3, times=None)

    def call(_: int) -> str:
        with open_sdk(gateway, max_retries=8) as sdk:
            raw = sdk.images.with_raw_response.generate(model=OFFICIAL, prompt="a cat", size=SMALLEST)
        assert "x-gateway-joined" not in raw.headers
        return raw.headers["x-gateway-task"]

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(call, range(4)))) == 4
    assert len(gateway.simulator.book()) == 4


def test_answered_request_is_never_joined(gateway: Gateway) -> None:
    """A picture that was handed over belongs to its request: the next one, retry or not, is new."""
    tasks = [gateway.generate(headers=headers).headers["x-gateway-task"] for headers in ({}, {}, RETRY)]
    assert len(set(tasks)) == 3
    assert len(gateway.simulator.book()) == 3


def test_retry_joins_whatever_is_down(gateway: Gateway) -> None:
    """With its upstream down a retry still gets the picture that was begun, also by its key; other work hears a 503."""
    gateway.simulator.fault("latency", seconds=1.5, times=2)
    forms = (RETRY, keyed("mine"))
    assert [gateway.generate(headers=HURRIED | form).status_code for form in forms] == [504, 504]
    gateway.simulator.fault("status", status=401)
    for _ in range(2):
        refused = gateway.generate(prompt="a dog")
        assert (refused.status_code, error_of(refused)["code"]) == (503, "upstream_unavailable")
    for form in forms:
        answer = gateway.generate(headers=RETRY | form)
        assert answer.headers["x-gateway-joined"] == "1"
        assert pictures_of(answer)
    assert gateway.generate(headers=RETRY, prompt="a dog").status_code == 503
    assert len(gateway.simulator.book()) == 2
    assert gateway.spent().usd_posted == gateway.booked()


def test_script_run_again_finds_its_picture(gateway: Gateway) -> None:
    """A client that hung up and asks again, though not as a retry, gets what it began; a third gets a new one."""
    gateway.simulator.fault("latency", seconds=0.4)
    leave(gateway)
    answer = gateway.generate()
    assert answer.headers["x-gateway-joined"] == "1"
    assert pictures_of(answer)
    assert "x-gateway-joined" not in gateway.generate().headers
    assert len(gateway.simulator.book()) == 2


def test_half_read_answer_is_joined(gateway: Gateway) -> None:
    """A client that breaks off in the middle of its answer gets the same picture at its next try."""
    gateway.simulator.fault("pad", bytes=8_000_000)
    with gateway.client.stream("POST", GENERATIONS, json=small(), headers=gateway.auth) as answer:
        assert len(next(answer.iter_raw())) < 8_000_000
    wait_until(lambda: is_left(gateway), "the hang-up's notice")
    again = gateway.generate()
    assert again.headers["x-gateway-joined"] == "1"
    assert len(pictures_of(again)[0]) > 8_000_000
    assert len(gateway.simulator.book()) == 1


def test_left_stream_is_joined(gateway: Gateway) -> None:
    """A client that leaves a stream before its picture came gets it at its next try."""
    gateway.simulator.fault("latency", seconds=0.6)
    hurried = gateway.auth | {"x-stainless-read-timeout": "0.3"}
    with gateway.client.stream("POST", GENERATIONS, json=small(stream=True), headers=hurried) as answer:
        assert next(answer.iter_raw()).startswith(b": keep-alive")
    wait_until(lambda: is_left(gateway), "the hang-up's notice")
    assert gateway.generate(headers=RETRY).headers["x-gateway-joined"] == "1"
    assert len(gateway.simulator.book()) == 1


def test_left_work_is_new_where_orphans_are_off(gateways: Gateways) -> None:
    """With `join.orphans: 0` only a retry finds what was left."""
    gateway = gateways.open(join={"orphans": 0})
    gateway.simulator.fault("latency", seconds=0.5)
    leave(gateway)
    assert "x-gateway-joined" not in gateway.generate().headers
    assert gateway.generate(headers=RETRY).headers["x-gateway-joined"] == "1"
    assert len(gateway.simulator.book()) == 2


@pytest.mark.parametrize("other", [{"user": "somebody else"}, {"n": 2}, {"prompt": "a dog"}, {"quality": "low"}])
def test_other_request_is_new_work(gateway: Gateway, other: dict[str, Any]) -> None:
    """Only the same request, for the same person, joins what was left."""
    gateway.simulator.fault("latency", seconds=0.5)
    leave(gateway, user="me")
    assert "x-gateway-joined" not in gateway.generate(headers=RETRY, **({"user": "me"} | other)).headers
    assert gateway.generate(headers=RETRY, user="me", response_format="url").headers["x-gateway-joined"] == "1"


def test_other_key_is_new_work(gateway: Gateway) -> None:
    """The same request by another key joins nothing."""
    gateway.simulator.fault("latency", seconds=0.5)
    leave(gateway)
    _, other = gateway.new_key()
    for headers in (RETRY, RETRY | keyed("k")):
        answer = gateway.generate(headers=headers | {"authorization": f"Bearer {other}"})
        assert "x-gateway-joined" not in answer.headers
    assert len(gateway.simulator.book()) == 3


def test_edit_is_known_by_its_pictures(gateway: Gateway) -> None:
    """A multipart retry with another boundary and another order of fields joins; with other pixels it does not."""
    gateway.simulator.fault("latency", seconds=0.6)
    picture, other = png(64, 64), png(65, 64)
    assert gateway.edit([("image", picture)], HURRIED, size=SMALLEST).status_code == 504
    assert "x-gateway-joined" not in gateway.edit([("image", other)], RETRY, size=SMALLEST).headers
    body = {"size": SMALLEST, "model": OFFICIAL, "prompt": "a cat"}
    again = gateway.post("/v1/images/edits", headers=RETRY, data=body, files=[("image[]", ("other.png", picture))])
    assert again.headers["x-gateway-joined"] == "1"
    assert len(gateway.simulator.book()) == 2


def test_stream_is_joined(gateway: Gateway) -> None:
    """A retry that asks for a stream gets the images of the task that was asked for as one answer."""
    gateway.simulator.fault("latency", seconds=0.6)
    assert gateway.generate(headers=HURRIED, n=2).status_code == 504
    answer = gateway.generate(headers=RETRY, n=2, stream=True)
    assert answer.headers["x-gateway-joined"] == "1"
    assert answer.text.count("event: image_generation.completed") == 2
    assert len(gateway.simulator.book()) == 1


@pytest.fixture
def replicas(gateways: Gateways, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways with one store and one folder of pictures, and a key that both know."""
    shared = tmp_path_factory.getbasetemp() / "shared"
    shared.mkdir(exist_ok=True)
    one, other = (
        gateways.open(settings={"storage_url": shared.as_uri()}, limits={"keep_alive": number}) for number in (14, 15)
    )
    other.key, other.record = one.key, one.record
    yield one, other
    assert Path(shared).exists()


def test_copies_of_one_key_are_one_task(replicas: tuple[Gateway, Gateway]) -> None:
    """Fifty requests at once with one Idempotency-Key, on two replicas, are one submission and fifty equal answers."""
    replicas[0].simulator.fault("latency", seconds=0.5)

    def call(number: int) -> tuple[str, str]:
        answer = replicas[number % 2].generate(headers=keyed("fifty"))
        return answer.headers["x-gateway-task"], pictures_of(answer)[0]

    with ThreadPoolExecutor(50) as threads:
        assert len(set(threads.map(call, range(50)))) == 1
    assert len(replicas[0].simulator.book()) == 1
    assert replicas[0].spent().usd_posted == replicas[0].booked()


def test_retry_finds_its_picture_at_another_replica(replicas: tuple[Gateway, Gateway]) -> None:
    """A 504 of one replica and the retry at the other are one submission."""
    one, other = replicas
    one.simulator.fault("latency", seconds=0.8)
    assert one.generate(headers=HURRIED).status_code == 504
    answer = other.generate(headers=RETRY)
    assert answer.headers["x-gateway-joined"] == "1"
    assert pictures_of(answer)
    assert len(one.simulator.book()) == 1


def test_ended_task_is_replayed(gateway: Gateway) -> None:
    """With its Idempotency-Key the same request gets the same answer again, and another one a 422."""
    first = gateway.generate(headers=keyed("once"))
    again = gateway.generate(headers=keyed("once"))
    assert told(again) == told(first)
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    mismatch = gateway.generate(headers=keyed("once"), prompt="a dog")
    assert (mismatch.status_code, error_of(mismatch)["code"]) == (422, "idempotency_mismatch")
    assert "x-gateway-joined" not in gateway.edit([("image", png())], keyed("once"), size=SMALLEST).headers
    assert len(gateway.simulator.book()) == 2


def test_keyed_and_unkeyed_never_meet(gateway: Gateway) -> None:
    """A request without the key does not claim a keyed task, and one with a key no unkeyed task."""
    gateway.simulator.fault("latency", seconds=0.5, times=2)
    assert gateway.generate(headers=HURRIED | keyed("mine")).status_code == 504
    assert gateway.generate(headers=HURRIED | RETRY).status_code == 504
    assert "x-gateway-joined" not in gateway.generate(headers=RETRY | keyed("other")).headers
    assert len(gateway.simulator.book()) == 3


def test_refused_key_is_free_again(gateway: Gateway) -> None:
    """A key under which nothing was accepted may be used for the next try; a policy's refusal is answered again."""
    gateway.simulator.fault("status", status=400, code="invalid_request")
    assert gateway.generate(headers=keyed("free")).status_code == 400
    assert "idempotent-replayed" not in gateway.generate(headers=keyed("free")).headers
    refused = [gateway.generate(headers=keyed("no"), prompt="forbidden-content") for _ in range(2)]
    assert [error_of(answer)["code"] for answer in refused] == ["moderation_blocked"] * 2
    assert refused[1].headers["idempotent-replayed"] == "true"
    assert len([one for one in gateway.simulator.paid() if one["status"] == 400]) == 2


def test_unknown_outcome_is_told_again(gateway: Gateway) -> None:
    """A call whose answer was lost is not sent again by a retry that claims it: it gets the same 424."""
    gateway.simulator.fault("delay", seconds=0.6, when="before")
    gateway.simulator.fault("reset", when="after")
    assert gateway.generate(headers=HURRIED).status_code == 504
    answer = gateway.generate(headers=RETRY)
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_outcome_unknown")
    assert answer.headers["x-gateway-joined"] == "1"
    assert len(gateway.simulator.book()) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_strange_key_is_refused(gateway: Gateway, key: str) -> None:
    """An Idempotency-Key without a letter, or with too many, is a 400."""
    assert gateway.generate(headers=keyed(key)).status_code == 400
