"""What becomes of a paid POST that fails: the answer, the next upstream, and never a second purchase of one picture.

Every row of the table in the design's chapter on retries, at an upstream that answers at once and at one with tasks.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway.errors import read_error
from tests.plain_pictures import png
from tests.served import ENV, OFFICIAL, TASKS, VARIANT, Gateway, Gateways, error_of

SYNC_FIRST, TASK_FIRST = "sync-first", "task-first"
ALONE = {"sync": OFFICIAL, "task": TASKS}
PAIR = {"sync": SYNC_FIRST, "task": TASK_FIRST}
UPSTREAM = {"sync": "anyfast", "task": "apiany"}
QUICK = {"timeouts": {"call": 1.2, "task": 1.2}}


@dataclass(frozen=True)
class Row:
    """A fault of the paid POST, and what must follow. `accepted`: how often the vendor took, and keeps, the money."""

    name: str
    fault: dict[str, Any]
    status: int
    code: str
    goes_on: bool
    accepted: int = 0
    retry_after: int | None = None
    kinds: tuple[str, ...] = ("sync", "task")
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def should_retry(self) -> str | None:
        return "false" if self.status == 424 else None


def status(number: int, **options: Any) -> dict[str, Any]:
    return {"kind": "status", "status": number, **options}


REFUSED = (400, "invalid_value", False)
UNKNOWN = (424, "upstream_outcome_unknown", False)
USELESS = (424, "upstream_bad_response", False)
AWAY = (503, "upstream_unavailable", True)

ROWS = [
    Row("429", status(429, retry_after=45), 429, "rate_limit_exceeded", True, retry_after=45),
    Row("429 for hours", status(429, retry_after=9000), 429, "rate_limit_exceeded", True, retry_after=60),
    Row("401", status(401), *AWAY, retry_after=60),
    Row("402", status(402), *AWAY, retry_after=60),
    Row("403", status(403), *AWAY, retry_after=60),
    Row("404", status(404), 404, "model_not_found", True),
    Row("400", status(400), *REFUSED),
    Row("413", status(413), *REFUSED),
    Row("415", status(415), *REFUSED),
    Row("422", status(422), *REFUSED),
    Row("policy", {"kind": "policy"}, 400, "moderation_blocked", False),
    Row("503 with a time", status(503, retry_after=50), *AWAY, retry_after=50),
    Row("503 of a proxy with a time", status(503, html=True, retry_after=50), *AWAY, retry_after=50),
    Row("521", status(521, html=True, retry_after=50), *AWAY, retry_after=50),
    Row("522", status(522, empty=True, retry_after=50), *AWAY, retry_after=50),
    Row("523", status(523, html=True, retry_after=50), *AWAY, retry_after=50),
    Row("500 of the vendor", status(500), 502, "upstream_error", True),
    Row("502 of the vendor", status(502), 502, "upstream_error", True),
    Row("503 of the vendor", status(503), 502, "upstream_error", True),
    Row("504 of the vendor", status(504), *UNKNOWN),
    Row("408", status(408), *UNKNOWN),
    Row("520", status(520, html=True), *UNKNOWN),
    Row("524", status(524, html=True), *UNKNOWN),
    Row("500 of a proxy", status(500, html=True), *UNKNOWN),
    Row("502 of a proxy", status(502, html=True), *UNKNOWN),
    Row("503 of a proxy", status(503, html=True), *UNKNOWN),
    Row("502, empty", status(502, empty=True), *UNKNOWN),
    Row("502 of a proxy, accepted", status(502, html=True, accepted=True), *UNKNOWN, accepted=1),
    Row("504, accepted", status(504, empty=True, accepted=True), *UNKNOWN, accepted=1),
    Row("time-out", {"kind": "hang"}, *UNKNOWN),
    Row("time-out, accepted", {"kind": "hang", "when": "after"}, *UNKNOWN, accepted=1),
    Row("reset", {"kind": "reset"}, *UNKNOWN),
    Row("reset, accepted", {"kind": "reset", "when": "after"}, *UNKNOWN, accepted=1),
    Row("reset in the answer", {"kind": "reset", "when": "body"}, *UNKNOWN, accepted=1),
    Row("answer cut", {"kind": "truncate"}, *UNKNOWN, accepted=1),
    Row("answer never begun", {"kind": "truncate", "share": 0}, *UNKNOWN, accepted=1),
    Row("200, no JSON", {"kind": "garbage"}, *USELESS, accepted=1),
    Row("200, HTML", {"kind": "html"}, *USELESS, accepted=1),
    Row("200, an error", {"kind": "error_200"}, *USELESS, accepted=1),
    Row("200, empty list", {"kind": "no_image"}, *USELESS, accepted=1),
    Row("200, empty items", {"kind": "no_image", "data": "items"}, *USELESS, accepted=1),
    Row("200, null", {"kind": "no_image", "data": "null"}, *USELESS, accepted=1),
    Row("200, no list", {"kind": "no_image", "data": "absent"}, *USELESS, accepted=1),
    Row("200, broken picture", {"kind": "broken_image"}, *USELESS, accepted=1),
    Row("task failed", {"kind": "task_failed"}, 424, "upstream_failed", True, kinds=("task",)),
    Row(
        "task refused by its values",
        {"kind": "task_failed", "code": "invalid_request"},
        *REFUSED,
        kinds=("task",),
    ),
    Row(
        "task refused by policy",
        {"kind": "policy", "at_submission": False},
        400,
        "moderation_blocked",
        False,
        kinds=("task",),
    ),
    Row("task expired", {"kind": "task_expired", "refunded": False}, *UNKNOWN, accepted=1, kinds=("task",)),
    Row("task without end", {"kind": "task_never"}, *UNKNOWN, accepted=1, kinds=("task",)),
]
GRID = [pytest.param(row, kind, id=f"{row.name} ({kind})") for row in ROWS for kind in row.kinds]


@pytest.fixture
def pair(gateways: Gateways) -> Gateway:
    """A gateway with two more models: one falls back from a synchronous upstream to tasks, one the other way."""
    return gateways.open(
        upstreams={"anyfast": QUICK, "apiany": QUICK},
        models={SYNC_FIRST: {"upstreams": ["anyfast", "apiany"]}, TASK_FIRST: {"upstreams": ["apiany", "anyfast"]}},
    )


def ask(gateway: Gateway, model: str, **fields: Any) -> httpx.Response:
    return gateway.generate(**({"model": model, "size": "1024x1024"} | fields))


def kept(gateway: Gateway) -> list[dict[str, Any]]:
    """The purchases that were not given back."""
    return [purchase for purchase in gateway.simulator.book() if not purchase["refunded"]]


def assert_accounted(gateway: Gateway) -> None:
    """No paid POST without its mark, no task without an end, nothing held or left behind, every µ$ explained."""
    assert not gateway.leftovers()
    records = gateway.task_records()
    assert all(record["status"] in ("succeeded", "failed") for record in records)
    marks = sum(len(gateway.calls(record["id"])) for record in records)
    assert len(gateway.simulator.paid()) <= marks
    spent = gateway.spent()
    assert (spent.usd_held, spent.images_held) == (0, 0)
    assert spent.usd_posted <= gateway.booked() <= spent.usd_posted + spent.usd_presumed


@pytest.mark.parametrize(("row", "kind"), GRID)
def test_failure_alone_is_told(pair: Gateway, row: Row, kind: str) -> None:
    """With no other upstream the caller hears what happened, and the POST was not sent again."""
    pair.simulator.fault(**row.fault)
    answer = ask(pair, ALONE[kind])
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (row.status, row.code), answer.text
    assert answer.headers.get("x-should-retry") == row.should_retry
    assert answer.headers["x-gateway-task"]
    wait = answer.headers.get("retry-after")
    assert (None if wait is None else int(wait)) == row.retry_after
    assert len(pair.simulator.paid()) == 1
    assert len(kept(pair)) == row.accepted
    record = pair.read_task(answer.headers["x-gateway-task"])
    assert (record["status"], read_error(record["error"]).code) == ("failed", row.code)
    assert_accounted(pair)


@pytest.mark.parametrize(("row", "kind"), GRID)
def test_next_upstream_only_on_proof(pair: Gateway, row: Row, kind: str) -> None:
    """Another upstream is asked only where it is proven that the first one did nothing."""
    first = UPSTREAM[kind]
    pair.simulator.fault(**row.fault, upstream=first)
    answer = ask(pair, PAIR[kind])
    others = [one for one in pair.simulator.paid() if one["upstream"] != first]
    if row.goes_on:
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-gateway-upstream"] != first
        assert [purchase["upstream"] for purchase in kept(pair)] == [others[0]["upstream"]]
    else:
        assert (answer.status_code, error_of(answer)["code"]) == (row.status, row.code)
        assert not others
        assert len(kept(pair)) == row.accepted
    assert_accounted(pair)


@pytest.mark.parametrize(("row", "kind"), GRID)
def test_second_call_is_judged_alike(pair: Gateway, row: Row, kind: str) -> None:
    """A failure of the second target, after the first one refused with proof, means what it means at the first."""
    first, second = ("apiany", "anyfast") if kind == "sync" else ("anyfast", "apiany")
    pair.simulator.fault("status", status=500, upstream=first)
    pair.simulator.fault(**row.fault, upstream=second)
    answer = ask(pair, PAIR["task" if kind == "sync" else "sync"])
    assert (answer.status_code, error_of(answer)["code"]) == (row.status, row.code), answer.text
    assert answer.headers.get("x-should-retry") == row.should_retry
    assert [one["upstream"] for one in pair.simulator.paid()] == [first, second]
    assert len(kept(pair)) == row.accepted
    assert_accounted(pair)


def test_failed_task_moves_on_once(gateways: Gateways) -> None:
    """A task that failed at two vendors is not offered to a third: it is likely the request that cannot be made."""
    gateway = gateways.open(
        env=ENV | {"OTHER": "sim-apiany-b"},
        upstreams={
            "apiany": {
                "timeouts": QUICK["timeouts"],
                "credentials": [
                    {"name": "one", "key": "env:APIANY_API_KEY"},
                    {"name": "two", "key": "env:OTHER"},
                ],
            }
        },
        models={TASK_FIRST: {"upstreams": ["apiany", "anyfast"]}},
    )
    gateway.simulator.fault("task_failed", times=2)
    answer = ask(gateway, TASK_FIRST)
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_failed")
    assert [one["upstream"] for one in gateway.simulator.paid()] == ["apiany", "apiany"]


@pytest.mark.parametrize("kind", ["sync", "task"])
@pytest.mark.parametrize("number", [500, 502, 503])
def test_billed_errors_stop_everything(gateways: Gateways, kind: str, number: int) -> None:
    """Where the operator says that an error may be billed, the vendor's own 5xx is an unknown outcome."""
    strict = {"error_is_unbilled": False}
    gateway = gateways.open(
        upstreams={"anyfast": strict, "apiany": strict},
        models={SYNC_FIRST: {"upstreams": ["anyfast", "apiany"]}, TASK_FIRST: {"upstreams": ["apiany", "anyfast"]}},
    )
    gateway.simulator.fault("status", status=number, accepted=True)
    answer = ask(gateway, PAIR[kind])
    assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_outcome_unknown")
    assert answer.headers["x-should-retry"] == "false"
    assert len(gateway.simulator.paid()) == 1


@pytest.mark.parametrize("kind", ["sync", "task"])
def test_unreachable_upstream_is_passed_by(gateways: Gateways, kind: str) -> None:
    """Nothing listens there: alone a 503 with a time to come back, otherwise the next upstream serves."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    gateway = gateways.open(
        upstreams={UPSTREAM[kind]: {"base_url": nowhere}},
        models={"pair": {"upstreams": [UPSTREAM[kind], "anyfast-c"]}},
    )
    answer = ask(gateway, ALONE[kind])
    assert (answer.status_code, error_of(answer)["code"]) == (503, "upstream_unavailable")
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert not gateway.simulator.log()
    assert ask(gateway, "pair").headers["x-gateway-upstream"] == "anyfast-c"
    assert len(gateway.simulator.book()) == 1


@pytest.mark.parametrize("kind", ["sync", "task"])
def test_short_wait_is_waited(gateway: Gateway, kind: str) -> None:
    """The last upstream's short Retry-After is waited for, and then it is asked once more."""
    gateway.simulator.fault("status", status=429, retry_after=1)
    answer = ask(gateway, ALONE[kind])
    assert answer.status_code == 200
    assert len(gateway.simulator.paid()) == 2
    assert len(gateway.simulator.book()) == 1


def test_least_wait_is_told(gateway: Gateway) -> None:
    """Where every upstream is at its limit, the caller is told the shortest of their times."""
    for number, (upstream, model) in enumerate(
        [("anyfast", "gpt-image-2-c"), ("apiany", "gpt-image-2"), ("anyfast", "gpt-image-2")]
    ):
        gateway.simulator.fault("status", status=429, retry_after=(40, 35, 55)[number], upstream=upstream, model=model)
    answer = ask(gateway, "gpt-image-2")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "35")
    assert len(gateway.simulator.paid()) == 3


def test_credential_errors_stay_inside(pair: Gateway) -> None:
    """What a vendor says about the operator's account is not the caller's to read."""
    pair.simulator.fault("status", status=403, message="Account 4711 of ACME is overdue", code="overdue_4711")
    assert "4711" not in ask(pair, OFFICIAL).text


def test_vendor_refusal_keeps_reason(gateway: Gateway) -> None:
    """The vendor's reason for a 400 reaches the caller."""
    gateway.simulator.fault("status", status=400, message="the moon is not cheese")
    assert "the moon is not cheese" in error_of(ask(gateway, OFFICIAL))["message"]


@pytest.mark.parametrize("kind", ["sync", "task"])
def test_fewer_images_are_not_topped_up(gateway: Gateway, kind: str) -> None:
    """A 200 with fewer images is delivered as it is, told in a header, and nothing more is bought."""
    gateway.simulator.fault("fewer", by=1)
    answer = ask(gateway, ALONE[kind], n=3)
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 2
    assert answer.headers["x-gateway-delivered"] == "2/3"
    assert len(gateway.simulator.paid()) == 1


def test_lost_slot_is_not_bought_again(gateway: Gateway) -> None:
    """Of three calls one is lost: two images are delivered, and the third is not sent to anybody else."""
    gateway.simulator.fault("reset", when="after", skip=1)
    answer = ask(gateway, "gpt-image-2", n=3)
    assert answer.status_code == 200
    assert (len(answer.json()["data"]), answer.headers["x-gateway-delivered"]) == (2, "2/3")
    assert {one["upstream"] for one in gateway.simulator.paid()} == {"anyfast"}
    assert len(gateway.simulator.book()) == 3
    assert_accounted(gateway)


def test_refused_slot_goes_elsewhere(gateway: Gateway) -> None:
    """Of three calls one is refused with proof: only its image is bought from the next upstream."""
    gateway.simulator.fault("status", status=500, skip=1)
    answer = ask(gateway, "gpt-image-2", n=3)
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 3
    assert sorted(answer.headers["x-gateway-upstream"].split(",")) == ["anyfast-c", "apiany"]
    assert answer.headers["x-gateway-calls"] == "3"
    assert [purchase["n"] for purchase in gateway.simulator.book()] == [1, 1, 1]


def test_policy_refusal_ends_all(gateway: Gateway) -> None:
    """A prompt that one safety system refuses is not offered to another."""
    answer = ask(gateway, "gpt-image-2", prompt="forbidden-content", n=3)
    error = error_of(answer)
    assert (answer.status_code, error["type"]) == (400, "image_generation_user_error")
    assert {one["model"] for one in gateway.simulator.paid()} == {"gpt-image-2-c"}
    assert not gateway.simulator.book()


def test_slot_has_three_tries(gateway: Gateway) -> None:
    """However many upstreams refuse, one image is tried at most three times."""
    gateway.simulator.fault("status", times=None, status=429, retry_after=1)
    answer = ask(gateway, "gpt-image-2")
    assert answer.status_code == 429
    assert len(gateway.simulator.paid()) == 3
    assert_accounted(gateway)


def test_failed_upload_is_free(gateway: Gateway) -> None:
    """A reference that cannot be uploaded costs nothing, so the next upstream serves."""
    from_tasks = gateway.simulator
    from_tasks.fault("status", status=500, html=True, endpoint="upload", upstream="apiany", times=None)
    answer = gateway.edit({"image": png()}, model=TASKS)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "upstream_unavailable")
    assert not from_tasks.paid()
    from_tasks.fault("status", status=500, upstream="anyfast")
    shared = gateway.edit({"image": png()}, model="gpt-image-2")
    assert shared.headers["x-gateway-upstream"] == "anyfast"
    assert len(from_tasks.book()) == 1


def test_odd_vendor_codes_are_read(gateway: Gateway) -> None:
    """Numbers and nulls as error codes, and other things than seconds as Retry-After, break nothing."""
    for code, wait in ((1234, "soon"), (None, "Wed, 21 Oct 2015 07:28:00 GMT"), ("", "-5"), ("x" * 5000, "1e400")):
        gateway.simulator.fault("status", status=500, code=code, retry_after=wait)
        answer = ask(gateway, OFFICIAL)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_error")


def test_strange_retry_after_is_bounded(gateway: Gateway) -> None:
    """A Retry-After that is no time at all never breaks the answer to a 429."""
    gateway.simulator.fault("status", status=429, retry_after="inf")
    answer = ask(gateway, OFFICIAL)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    gateway.simulator.fault("status", status=429, retry_after="nan", times=1, model="gpt-image-2-c")
    assert ask(gateway, "gpt-image-2").status_code == 200


def test_variant_fans_out(gateway: Gateway) -> None:
    """n images of a model that makes one a call are n calls, each written down and none sent twice."""
    answer = ask(gateway, VARIANT, n=4)
    assert len(answer.json()["data"]) == 4
    assert len(gateway.simulator.book()) == 4
    assert_accounted(gateway)
