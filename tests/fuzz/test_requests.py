"""Generated bodies and headers over TCP: never a 5xx, never a hang, nothing bought. A failure prints what to paste."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator

import hypothesis
import pytest

from tests.fuzz.strategies import form_requests, header_requests, json_requests, raw_requests
from tests.support.gateways import Gateway, Gateways
from tests.support.stopwatch import running_seconds
from tests.support.wire_requests import HANG_S, WireAnswer, WireClient, WireRequest, examples, paste, read_status

REFUSED_UPSTREAM = "the upstream of this test refuses everything"


class Line:
    """A caller at a gateway whose upstream refuses all that reaches it. `statuses` counts the answers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._client = WireClient(gateway.url)
        self._host = (b"host", gateway.url.removeprefix("http://").encode())
        self._key = (b"authorization", f"Bearer {gateway.key}".encode())
        self.statuses: Counter[int] = Counter()
        self.sent_on = 0

    def ask(self, request: WireRequest) -> WireAnswer:
        """Send a request with a key, and check the answer as every answer must be."""
        sent = request.add(self._host, self._key)
        hypothesis.note(self._client.paste(sent))
        answer = self._client.ask(sent)
        self.check(answer, self._client.paste(sent))
        return answer

    def check(self, answer: WireAnswer, pasted: str) -> None:
        self.statuses[answer.status] += 1
        assert answer.status < 500, f"{answer.status} {answer.body[:500]!r}\n{pasted}"
        assert answer.headers["x-request-id"], pasted
        document = json.loads(answer.body)
        if answer.status < 400:
            # A task where the headers prefer one, or a plan where they ask for one.
            assert (answer.status, document["object"]) in [(202, "image.task"), (200, "image.plan")], pasted
            self.sent_on += answer.status == 202
            return
        assert set(document) == {"error"}, pasted
        error = document["error"]
        assert set(error) == {"message", "type", "param", "code"}, pasted
        assert error["message"], pasted
        assert isinstance(error["type"], str), pasted
        self.sent_on += REFUSED_UPSTREAM in error["message"]

    def check_nothing_left(self) -> None:
        """Only what was not refused here went to the upstream, nothing was bought, and nothing is left behind."""
        self._client.close()
        assert not self._gateway.leftovers()
        assert len(self._gateway.simulator.paid()) <= self.sent_on
        assert not self._gateway.simulator.book()
        spent = self._gateway.spent()
        assert (spent.usd_posted, spent.usd_presumed, spent.usd_held) == (0, 0, 0)


@pytest.fixture
def line(gateways: Gateways) -> Iterator[Line]:
    refusing = gateways.open(models={"gpt-image-2": {"upstreams": ["anyfast"]}}, limits={"queue": 999})
    refusing.simulator.fault("status", times=None, status=400, code="refused", message=REFUSED_UPSTREAM, endpoint="*")
    line = Line(refusing)
    yield line
    line.check_nothing_left()


def test_json_never_fails(line: Line) -> None:
    """Bodies of random fields and broken text: each is answered in OpenAI's form, and none buys anything."""

    @examples(150, 3000)
    @hypothesis.given(json_requests())
    def run(request: WireRequest) -> None:
        line.ask(request)

    run()
    assert line.statuses[400]
    assert line.sent_on


def test_forms_never_fail(line: Line) -> None:
    """Multipart bodies with bytes changed, lost and doubled: each gets an answer in OpenAI's form, none buys."""

    @examples(120, 1500)
    @hypothesis.given(form_requests())
    def run(request: WireRequest) -> None:
        line.ask(request)

    run()
    assert line.statuses[400]
    assert line.sent_on


def test_headers_never_fail(line: Line) -> None:
    """Requests with strange headers: each is answered in OpenAI's form, and none buys anything."""

    @examples(75, 1500)
    @hypothesis.given(header_requests())
    def run(request: WireRequest) -> None:
        line.ask(request)

    run()
    assert line.statuses[400]


def test_broken_heads_never_fail(gateways: Gateways) -> None:
    """Requests with a few bytes of their head or framing spoiled, in pieces: a refusal or a close, in time."""
    gateway = gateways.open(limits={"header_timeout": 0.3, "body_idle": 0.3})
    gateway.simulator.fault("status", times=None, status=400, code="refused", message=REFUSED_UPSTREAM, endpoint="*")

    @examples(60, 600)
    @hypothesis.given(raw_requests(gateway.key.encode()))
    def run(pieces: list[bytes]) -> None:
        hypothesis.note(f"{paste(b''.join(pieces))} | nc 127.0.0.1 {gateway.url.rpartition(':')[2]}")
        began = running_seconds()
        status = read_status(gateway.url, pieces)
        assert running_seconds() - began < 1 + HANG_S, pieces
        assert status < 500, pieces
        statuses[status] += 1

    statuses: Counter[int] = Counter()
    run()
    assert statuses[400]
    assert not gateway.leftovers()
    assert not gateway.simulator.book()


@pytest.mark.parametrize("data", [b"a 'quoted' \\ 100 % line\r\n\tx", b"\x00\xff\xc3 bytes", b""])
def test_failures_can_be_pasted(data: bytes) -> None:
    """The printed command gives the very bytes of the request."""
    assert subprocess.run(["bash", "-c", paste(data)], capture_output=True, check=True).stdout == data
