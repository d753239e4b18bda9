"""The one line of a request: who asked, for what, where it was made, what it cost, and why it failed."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.gateways import OFFICIAL, Gateway, Gateways, small, wait_until

ADMIN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
Line = MutableMapping[str, Any]


@dataclass(frozen=True)
class RequestLog:
    """The lines that requests wrote."""

    lines: list[Line]

    def find(self, answer: Any) -> Line:
        """The line of an answer, once it is written."""
        path = answer.request.url.path
        wait_until(lambda: any(one["event"] == "request" and one["path"] == path for one in self.lines), "the line")
        (line,) = [one for one in self.lines if one["event"] == "request"]
        return line


@pytest.fixture
def request_log() -> Iterator[RequestLog]:
    with capture_logs() as lines:
        yield RequestLog(lines)


def facts(line: Line, *names: str) -> dict[str, Any]:
    return {name: line.get(name) for name in names}


def test_delivered_picture(gateway: Gateway, request_log: RequestLog) -> None:
    """The line of a paid request has key, model, upstream, calls, task, images, cost and seconds."""
    answer = gateway.generate(n=2)
    line = request_log.find(answer)
    assert gateway.record is not None
    assert line["log_level"] == "info"
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "POST",
        "path": "/v1/images/generations",
        "status": 200,
        "key": gateway.record.id,
        "key_name": "test",
        "model": OFFICIAL,
        "task": answer.headers["x-gateway-task"],
        "upstream": answer.headers["x-gateway-upstream"],
        "calls": int(answer.headers["x-gateway-calls"]),
        "images": 2,
        "micro_usd": gateway.spent().usd_posted,
        "seconds": line["seconds"],
    }


def test_stream_has_its_cost(gateway: Gateway, request_log: RequestLog) -> None:
    """A stream, whose headers are sent before its images, has the same facts in its line."""
    answer = gateway.post("/v1/images/generations", json=small(stream=True))
    assert facts(request_log.find(answer), "status", "images", "micro_usd", "calls") == {
        "status": 200,
        "images": 1,
        "micro_usd": gateway.spent().usd_posted,
        "calls": 1,
    }


@pytest.mark.parametrize(
    ("fault", "status", "level", "calls"),
    [
        ({"kind": "status", "status": 400}, 400, "info", 1),
        ({"kind": "status", "status": 401}, 503, "error", 1),
        ({"kind": "status", "status": 503}, 502, "error", 1),
        ({"kind": "reset", "when": "after"}, 424, "warning", 1),
    ],
)
def test_failure_says_why(
    gateway: Gateway, request_log: RequestLog, fault: dict[str, Any], status: int, level: str, calls: int
) -> None:
    """An upstream's failure has the error's code, the upstream, its calls and the cost; a 5xx is not of level info."""
    gateway.simulator.fault(**fault, times=None)
    answer = gateway.generate()
    assert facts(request_log.find(answer), "status", "log_level", "error", "upstream", "calls", "micro_usd") == {
        "status": status,
        "log_level": level,
        "error": answer.json()["error"]["code"],
        "upstream": "anyfast",
        "calls": calls,
        "micro_usd": gateway.spent().usd_posted + gateway.spent().usd_presumed,
    }


def test_refused_key(gateway: Gateway, request_log: RequestLog) -> None:
    """A key that may not work is named in the line of its refusal; an unknown one cannot be."""
    assert gateway.record is not None
    gateway.change_key(gateway.record.id, enabled=False, team="design")
    line = request_log.find(gateway.generate())
    assert facts(line, "status", "error", "key", "team", "log_level") == {
        "status": 403,
        "error": "key_disabled",
        "key": gateway.record.id,
        "team": "design",
        "log_level": "info",
    }


@pytest.mark.parametrize(
    ("path", "fields", "status", "code"),
    [
        ("/v1/images/generations", {"size": "7x7"}, 400, "unsupported_value"),
        ("/v1/images/generations", {"model": "no-such"}, 404, "model_not_found"),
        ("/v1/nothing", {}, 404, "unknown_url"),
    ],
)
def test_refused_request(
    gateway: Gateway, request_log: RequestLog, path: str, fields: dict[str, str], status: int, code: str
) -> None:
    """A refusal's line has the error's code, whichever part of the gateway refused."""
    answer = gateway.post(path, json=small(**fields))
    assert facts(request_log.find(answer), "status", "error") == {
        "status": status,
        "error": answer.json()["error"]["code"],
    }


def test_operator_is_named(gateways: Gateways, request_log: RequestLog) -> None:
    """A request to the admin API has the operator's name."""
    gateway = gateways.open(settings={"admin_token": ADMIN})
    answer = gateway.get("/admin/api/v1/keys", headers={"authorization": f"Bearer {ADMIN}"})
    assert facts(request_log.find(answer), "status", "actor") == {"status": 200, "actor": "admin-token"}


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "a\u2028b"])
def test_caller_cannot_break_a_line(gateway: Gateway, request_log: RequestLog, text: str) -> None:
    """A model's name and a path with line breaks or terminal codes reach the log without them."""
    line = request_log.find(gateway.generate(model=text))
    assert line["model"].isprintable()


def test_joined_request_says_so(gateway: Gateway, request_log: RequestLog) -> None:
    """A retry that got the first request's picture names the same task and cost, and that it joined it."""
    first, second = (gateway.generate(headers={"idempotency-key": "once"}) for _ in range(2))
    assert second.headers["x-gateway-joined"] == "1"
    wait_until(lambda: sum(one["event"] == "request" for one in request_log.lines) == 2, "both lines")
    one, two = [line for line in request_log.lines if line["event"] == "request"]
    assert facts(two, "task", "micro_usd", "images", "joined") == facts(one, "task", "micro_usd", "images") | {
        "joined": True
    }
    assert first.headers["x-gateway-task"] == two["task"]
