"""What may become of a paid POST, and what must follow: the rows of the grid, and the gateway at which they are played.

The table is the one of `docs/upstreams.md`. Used by `test_outcome_grid` and `test_dispatch`.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.money.ledger_results import Spent
from tests.support.gateways import Gateway, Gateways, Simulator
from tests.support.plain_pictures import encode_noise
from tests.support.store_reader import reset_conditions


@dataclass(frozen=True)
class Row:
    """A fault of the paid POST, and what must follow. `accepted`: how often the vendor took, and keeps, the money.

    Without a `fault` nothing listens at the upstream. `is_slow`: it is a time-out that ends the call. `is_edit`: it is
    met by an edit whose picture is larger than the sockets' buffers.
    """

    name: str
    fault: dict[str, Any] | None
    status: int
    code: str
    goes_on: bool
    accepted: int = 0
    retry_after: int | None = None
    kinds: tuple[str, ...] = ("sync", "task")
    is_slow: bool = False
    is_edit: bool = False

    @property
    def should_retry(self) -> str | None:
        return "false" if self.status == 424 else None

    @property
    def arrivals(self) -> int:
        """Paid POSTs that the vendor sees of one call."""
        return 0 if self.fault is None else 1

    def lay(self, simulator: Simulator, upstream: str, *, is_second: bool = False) -> None:
        """Have it happen once there. `is_second`: not to the first call, which another rule is laid for."""
        if self.fault is not None:
            # What strikes before the body is read would strike the first call, whatever rule was laid before.
            skip = 1 if is_second and self.fault.get("when") == "headers" else 0
            simulator.fault(**self.fault, upstream=upstream, skip=skip)


def status(number: int, **options: Any) -> dict[str, Any]:
    return {"kind": "status", "status": number, **options}


REFUSED = (400, "invalid_value", False)
UNKNOWN = (424, "upstream_outcome_unknown", False)
USELESS = (424, "upstream_bad_response", False)
AWAY = (503, "upstream_unavailable", True)

ROWS = [
    Row("no connection", None, *AWAY, retry_after=5),
    Row("cut in the upload", {"kind": "reset", "when": "headers"}, *AWAY, retry_after=5, kinds=("sync",), is_edit=True),
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
    Row("time-out", {"kind": "hang"}, *UNKNOWN, is_slow=True),
    Row("time-out, accepted", {"kind": "hang", "when": "after"}, *UNKNOWN, accepted=1, is_slow=True),
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
    Row("task without end", {"kind": "task_never"}, *UNKNOWN, accepted=1, kinds=("task",), is_slow=True),
]


OTHER = {"sync": "task", "task": "sync"}
UPSTREAM = {"sync": "anyfast", "task": "apiany"}
GONE = "-gone"

_QUICK = {"call": 6, "task": 6}
_QUICKER = {"call": 1, "task": 1}
"""For the rows whose end is that the time is over."""


@functools.cache
def closed_port() -> socket.socket:
    """A port at which nothing listens, and which nobody else gets."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held


@functools.cache
def large_picture() -> bytes:
    """More than the sockets' buffers of both sides take: what waits there when the vendor goes is not sent."""
    return encode_noise("PNG", 2400, 1800, compress_level=0)


def open_grid(gateways: Gateways, *, is_slow: bool = False) -> Gateway:
    """A gateway with models for each place of each kind of upstream: alone, before and behind the other kind."""
    nowhere = f"http://127.0.0.1:{closed_port().getsockname()[1]}"
    timeouts = {"timeouts": _QUICKER if is_slow else _QUICK}
    gone = {
        "anyfast-gone": {"kind": "anyfast", "credentials": [{"key": "env:ANYFAST_API_KEY", "group": "direct"}]},
        "apiany-gone": {"kind": "apiany", "credentials": [{"key": "env:APIANY_API_KEY"}]},
    }
    places: dict[str, Any] = {}
    for kind, upstream in UPSTREAM.items():
        other = UPSTREAM[OTHER[kind]]
        for name in (upstream, upstream + GONE):
            places |= {f"{name}/alone": [name], f"{name}/first": [name, other], f"{name}/second": [other, name]}
    return gateways.open(
        upstreams=dict.fromkeys(UPSTREAM.values(), timeouts)
        | {name: one | {"base_url": nowhere, "model": "gpt-image-2"} for name, one in gone.items()},
        models={name: {"upstreams": upstreams} for name, upstreams in places.items()},
    )


def forget_health(gateway: Gateway) -> None:
    """Have everybody forget what kept calls away from the targets, and how much was retried."""
    asyncio.run(reset_conditions(gateway.store_url, list(gateway.services.health.targets)))
    gateway.services.health.forget()
    gateway.services.retries.forget()


def ask(gateway: Gateway, model: str, **fields: Any) -> httpx.Response:
    return gateway.generate(**({"model": model, "size": "1024x1024"} | fields))


def play(gateway: Gateway, row: Row, kind: str, place: str) -> httpx.Response:
    """A request whose upstream of that kind stands in that place."""
    model = f"{UPSTREAM[kind]}{GONE if row.fault is None else ''}/{place}"
    if row.is_edit:
        return gateway.edit({"image": large_picture()}, model=model, size="1024x1024")
    return ask(gateway, model)


def kept(gateway: Gateway) -> list[dict[str, Any]]:
    """The purchases that were not given back."""
    return [purchase for purchase in gateway.simulator.book() if not purchase["refunded"]]


def assert_accounted(gateway: Gateway, before: Spent | None = None, task: str | None = None) -> None:
    """No paid POST without its mark, no task without an end, nothing held or left behind, every µ$ explained.

    `before` is what was spent when the simulator's book was empty, and `task` the only one since.
    """
    assert not gateway.leftovers()
    records = gateway.task_records() if task is None else [gateway.read_task(task)]
    assert all(record["status"] in ("succeeded", "failed") for record in records)
    marks = sum(len(gateway.calls(record["id"])) for record in records)
    assert len(gateway.simulator.paid()) <= marks
    spent = gateway.spent()
    posted, presumed = spent.usd_posted, spent.usd_presumed
    if before is not None:
        posted, presumed = posted - before.usd_posted, presumed - before.usd_presumed
    assert (spent.usd_held, spent.images_held) == (0, 0)
    assert posted <= gateway.booked() <= posted + presumed
