"""A gateway that is told to stop: it begins nothing, takes in what is paid for, and leaves the rest to others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from tests.api.test_clients import PICTURE, ask, connect, left
from tests.api.test_joining import RETRY, keyed, pictures_of
from tests.conftest import run_valkey
from tests.support.gateways import GENERATIONS, OFFICIAL, TASKS, Gateway, error_of, serve, small, wait_until
from tests.support.simulators import Simulator
from tests.support.stopwatch import running_seconds

SIZE = "1024x1024"
LEASE = {"accounting": {"lease": 0.6}, "join": {"look_every": 0.1}}


@pytest.fixture
def other(simulator: Simulator, tmp_path: Path) -> Iterator[Gateway]:
    """The replica that stays. Its store is this test's own: others, with pictures elsewhere, would inherit too."""
    settings = {"storage_url": tmp_path.as_uri()}
    with run_valkey() as store, serve(simulator, store.url, LEASE, settings) as gateway:
        gateway.record, gateway.key = gateway.new_key()
        yield gateway


@contextlib.contextmanager
def replica(
    beside: Gateway, simulator: Simulator, upstreams: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Gateway]:
    """One that a test may stop: of the same store, pictures and key."""
    shared = {"storage_url": beside.settings.storage_url, "drain_s": 10} | settings
    with serve(simulator, beside.store_url, LEASE | {"upstreams": upstreams or {}}, shared) as gateway:
        gateway.key, gateway.record = beside.key, beside.record
        yield gateway


@pytest.fixture
def one(other: Gateway, simulator: Simulator) -> Iterator[Gateway]:
    """The replica that is stopped."""
    with replica(other, simulator) as gateway:
        yield gateway


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def stop(gateway: Gateway) -> threading.Thread:
    """Begin the end, as SIGTERM does; the thread that is alive until it is over."""
    server, thread = gateway.app.state.serving
    server.should_exit = True
    return thread


def begin(gateway: Gateway, threads: ThreadPoolExecutor, **options: Any) -> Future[httpx.Response]:
    """A request that is under way: its vendor has taken it."""
    before = len(gateway.simulator.book())
    asked = threads.submit(gateway.generate, size=SIZE, **options)
    wait_until(lambda: len(gateway.simulator.book()) > before, "the submission")
    return asked


def test_ticket_is_left_to_others(one: Gateway, other: Gateway, threads: ThreadPoolExecutor) -> None:
    """Who waits for a task vendor's picture is told at once to come back, and gets it at the other replica."""
    one.simulator.fault("latency", seconds=4)
    asked = begin(one, threads, model=TASKS)
    began = running_seconds()
    thread = stop(one)
    answer = asked.result()
    assert (answer.status_code, error_of(answer)["code"]) == (504, "task_still_running")
    assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "1")
    thread.join(10)
    assert not thread.is_alive()
    assert running_seconds() - began < 4
    again = other.generate(headers=RETRY, size=SIZE, model=TASKS)
    assert again.headers["x-gateway-joined"] == "1"
    assert pictures_of(again)
    assert len(other.simulator.book()) == 1
    assert (other.spent().usd_posted, other.spent().usd_held) == (other.booked(), 0)


def test_paid_call_is_waited_for(one: Gateway, other: Gateway, threads: ThreadPoolExecutor) -> None:
    """A call that is out is waited for, the log says so, and its caller is answered; nothing new is taken meanwhile."""
    one.simulator.fault("latency", seconds=1)
    asked = begin(one, threads, model=OFFICIAL)
    with capture_logs() as lines:
        thread = stop(one)
        wait_until(lambda: any("the stop waits" in line["event"] for line in lines), "the line of the log")
    assert [line["tasks"] for line in lines if "the stop waits" in line["event"]] == [1]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{one.url}/readyz", trust_env=False, verify=False)
    assert pictures_of(asked.result())
    thread.join(10)
    assert not thread.is_alive()
    assert len(other.simulator.book()) == 1
    assert (other.spent().usd_posted, other.spent().usd_held) == (other.booked(), 0)


def test_unsent_work_goes_elsewhere(other: Gateway, simulator: Simulator, threads: ThreadPoolExecutor) -> None:
    """A request that waits for a place is refused at a stop, as nothing was sent for it; its retry may go elsewhere."""
    narrow = {"credentials": [{"key": "env:ANYFAST_API_KEY", "group": "direct", "max_concurrent": 1}]}
    with replica(other, simulator, upstreams={"anyfast": narrow}) as one:
        one.simulator.fault("latency", seconds=1.5)
        asked = begin(one, threads, model=OFFICIAL)
        waits = threads.submit(one.generate, prompt="another cat")
        wait_until(lambda: one.services.concurrency_queue.waiting, "the wait for a place")
        thread = stop(one)
        refused = waits.result()
        assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert pictures_of(asked.result())
        thread.join(10)
        assert not thread.is_alive()
    assert len(simulator.book()) == 1


def test_guest_of_other_replica_is_sent_away(one: Gateway, other: Gateway, threads: ThreadPoolExecutor) -> None:
    """Who waits here for a task that runs elsewhere is told to come back, and gets it there."""
    one.simulator.fault("latency", seconds=1.5)
    asked = begin(other, threads, model=OFFICIAL, headers=keyed("both"))
    guest = threads.submit(one.generate, headers=keyed("both"), size=SIZE)
    (task,) = other.get("/v1/tasks").json()["data"]
    wait_until(lambda: one.services.task_events.is_watched(task["task_id"]), "the guest")
    stop(one)
    answer = guest.result()
    assert (answer.status_code, error_of(answer)["code"]) == (504, "task_still_running")
    assert pictures_of(asked.result()) == pictures_of(other.generate(headers=keyed("both"), size=SIZE))
    assert len(other.simulator.book()) == 1


def test_stream_ends_with_an_error(one: Gateway, other: Gateway) -> None:
    """A stream without a picture yet ends with the error that says so, and its retry gets the picture."""
    one.simulator.fault("latency", seconds=2)
    fields, hurried = small(model=TASKS, size=SIZE, stream=True), one.auth | {"x-stainless-read-timeout": "0.3"}
    with one.client.stream("POST", GENERATIONS, json=fields, headers=hurried) as answer:
        pieces = answer.iter_text()
        assert next(pieces).startswith(": keep-alive")
        wait_until(one.simulator.book, "the submission")
        stop(one)
        rest = "".join(pieces)
    assert "event: error" in rest
    assert "task_still_running" in rest
    assert other.generate(headers=RETRY, model=TASKS, size=SIZE).headers["x-gateway-joined"] == "1"
    assert len(other.simulator.book()) == 1


def test_half_told_stream_is_told_again(other: Gateway, simulator: Simulator) -> None:
    """A stream that was cut after its first picture says what is missing, and its retry gets all pictures."""
    simulator.fault("latency", seconds=2, times=1)
    fields = small(model=TASKS, size=SIZE, stream=True, n=2)
    # Two tasks of the vendor: the second has its picture at once.
    single = {"apiany": {"credentials": [{"key": "env:APIANY_API_KEY", "capabilities": {"max_n": 1}}]}}
    with replica(other, simulator, single) as one:
        with one.client.stream("POST", GENERATIONS, json=fields, headers=one.auth) as answer:
            pieces = answer.iter_text()
            told = ""
            while not (told.startswith("event: image_generation.completed") and told.endswith("\n\n")):
                told += next(pieces)
            stop(one)
            told += "".join(pieces)
        assert told.count("event: image_generation.completed") == 1
        assert told.endswith(": partial 1/2\n\n")
        again = other.generate(headers=RETRY, model=TASKS, size=SIZE, n=2)
        assert (again.headers["x-gateway-joined"], len(pictures_of(again))) == ("1", 2)
    assert len(simulator.book()) == 2
    assert other.spent().usd_posted == other.booked()


def test_slow_reader_delays_no_stop(other: Gateway, simulator: Simulator) -> None:
    """A reader that takes its time is cut when nothing else keeps the process, and gets its picture by a retry."""
    simulator.fault("pad", bytes=PICTURE)
    with replica(other, simulator, stop_s=0.3) as one, connect(one) as wire:
        ask(wire, one)
        assert wire.recv(1024).startswith(b"HTTP/1.1 200")
        thread = stop(one)
        thread.join(5)
        assert not thread.is_alive()
    assert left(other) == 1
    assert other.generate(headers=RETRY).headers["x-gateway-joined"] == "1"
    assert len(simulator.book()) == 1


def test_long_call_is_cut_at_the_drain(other: Gateway, simulator: Simulator) -> None:
    """A call that outlasts `GATEWAY_DRAIN_S` is abandoned: what it may cost stays held until it is presumed."""
    simulator.fault("latency", seconds=4)
    with ThreadPoolExecutor(1) as threads, replica(other, simulator, drain_s=1, stop_s=0.2) as one:
        asked = begin(one, threads, model=OFFICIAL)
        thread = stop(one)
        assert error_of(asked.result())["code"] == "task_still_running"
        thread.join(5)
        assert not thread.is_alive()
    assert len(simulator.book()) == 1
    assert other.spent().usd_held > 0
