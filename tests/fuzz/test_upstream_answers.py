"""Generated answers of upstreams over TCP: no second purchase, no wrong charge, no undocumented error, no leak."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import hypothesis
import pytest

from gateway import errors
from gateway.dollars import parse_usd
from tests.fuzz.answers import FILES, GOOD_LINK, SECRETS, Play, plays
from tests.support.fault_server import open_connections
from tests.support.gateways import Gateway, Gateways, error_of
from tests.support.outcomes import forget_health
from tests.support.plain_pictures import decode
from tests.support.played_vendor import TORN, PlayedVendor, VendorAnswer, played_vendor
from tests.support.simulators import wait_until
from tests.support.wire_requests import examples

DOCUMENTED = {(kind.status, kind.type, kind.code) for kind in errors.table()}

MOST_CALLS = 3
"""Paid POSTs for a slot, over all targets."""

TOLERANCE = 1.5
"""A bill that is counted by tokens may be this much above what was held; the rest is disputed."""

LOOP_S = 0.5
"""Seconds of processor time of the gateway's one thread for one request with a small answer."""

BILLED = frozenset({*range(200, 300), 408, 504, 520, 524})
"""Statuses after which nobody else may be asked: the vendor may have made the picture."""

UNREAD = ("br", "zstd")
"""Encodings that the gateway does not read."""


@pytest.fixture
def vendor() -> Iterator[PlayedVendor]:
    with played_vendor() as vendor:
        vendor.files = FILES
        yield vendor


@pytest.fixture
def gateway(gateways: Gateways, vendor: PlayedVendor) -> Gateway:
    """A gateway whose upstreams are all that vendor; its health rules never spare an upstream."""
    patient = {"calls": 100, "unknown": 100, "refusals": 100, "presumed_per_hour": None}
    upstream = {"timeouts": {"call": 2, "task": 1, "poll": 1, "collect": 0.3, "poll_every": 0.02}, "health": patient}
    return gateways.open(
        upstreams={
            "anyfast": {**upstream, "base_url": f"{vendor.url}/first"},
            "apiany": {**upstream, "base_url": f"{vendor.url}/first"},
            "anyfast-c": {**upstream, "base_url": f"{vendor.url}/second"},
        },
        models={
            "sync": {"upstreams": ["anyfast", "anyfast-c"]},
            "task": {"upstreams": ["apiany", "anyfast-c"]},
        },
    )


@pytest.mark.parametrize("is_task", [False, True], ids=["sync", "tasks"])
def test_no_answer_breaks_a_promise(gateway: Gateway, vendor: PlayedVendor, is_task: bool) -> None:
    """Whatever an upstream answers: one purchase a slot, header = ledger = history, a documented error, no leak."""
    done = VendorAnswer(200, b'{"status": "completed", "result": {"data": [{"url": "%s"}]}}' % GOOD_LINK.encode())
    vendor.last, vendor.second = done, VendorAnswer(200, b'{"data": [{"url": "%s"}]}' % GOOD_LINK.encode())
    charged: list[int] = []
    statuses: Counter[int] = Counter()

    @examples(30, 1500)
    @hypothesis.given(plays(is_task=is_task))
    def run(play: Play) -> None:
        forget_health(gateway)
        vendor.start(play.submission, list(play.polls))
        clock = time.pthread_getcpuclockid(gateway.app.state.serving[1].ident)
        began = time.clock_gettime(clock)
        answer = gateway.generate(model=play.model, n=play.n, size="1024x1024")
        assert time.clock_gettime(clock) - began < LOOP_S
        statuses[answer.status_code] += 1
        check_answer(answer, vendor)
        check_purchases(play, vendor)
        charged.append(check_charge(gateway, answer))

    run()
    assert statuses[200]
    assert statuses[424]
    check_end(gateway, vendor, sum(charged))


def check_answer(answer: httpx.Response, vendor: PlayedVendor) -> None:
    """Pictures, or an error that the documents have; no secret and no inner address of the operator's."""
    if answer.status_code == 200:
        for item in answer.json()["data"]:
            assert decode(item).size == (1024, 1024)
    else:
        error = error_of(answer)
        assert (answer.status_code, error["type"], error["code"]) in DOCUMENTED, answer.text
    shown = answer.text + str(answer.headers.raw)
    assert not [secret for secret in SECRETS if secret in shown], shown
    assert "Traceback" not in shown
    assert not re.search(r"\b(httptools|codec|Errno|0x[0-9a-f]{6,})\b", answer.text), answer.text


def check_purchases(play: Play, vendor: PlayedVendor) -> None:
    """Nobody is asked again where the first may have sold something, and nobody more than three times."""
    assert 1 <= len(vendor.paid) <= MOST_CALLS
    first = play.submission
    # A body of an unknown encoding is not read, so the status alone decides.
    is_torn = first.framing in TORN and first.encoding not in UNREAD
    if first.status in BILLED or is_torn:
        assert vendor.paid == ["first"] or has_failed(play), vendor.paid


def has_failed(play: Play) -> bool:
    """True when a task was refunded: one that says that it failed, and that another upstream may make."""
    return play.is_task and bool(play.polls)


def check_charge(gateway: Gateway, answer: httpx.Response) -> int:
    """The header says what the ledger counts, nothing is held, and no bill is far above its hold; the charge in µ$."""
    gateway.settle()
    task = answer.headers["x-gateway-task"]
    calls = gateway.calls(task)
    assert calls
    assert all(call.state != "held" for call in calls), calls
    assert all(call.usd <= TOLERANCE * call.price for call in calls if call.state == "posted"), calls
    charge = sum(call.usd for call in calls if call.state in ("posted", "presumed"))
    assert parse_usd(answer.headers["x-gateway-cost-usd"]) == charge, (dict(answer.headers), calls)
    return charge


def check_end(gateway: Gateway, vendor: PlayedVendor, charge: int) -> None:
    """All that was charged stands in the ledger's sums and in the history; nothing is held, open or left behind."""
    spent = gateway.spent()
    assert (spent.usd_held, spent.images_held, spent.usd_posted + spent.usd_presumed) == (0, 0, charge)
    counted = [call.usd or 0 for one in gateway.records() for call in one.calls if call.state in ("posted", "presumed")]
    assert sum(counted) == charge
    assert not gateway.leftovers()
    wait_until(lambda: open_connections(vendor.url) <= 8, "the end of the connections", 20)
