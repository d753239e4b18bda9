"""A paid POST that fails: the answer, the next upstream, and never a second purchase of one picture.

What every single failure means stands in `test_outcome_grid`; here is what several come to, and what is seen besides.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.callers.auth import Caller
from gateway.delivery.dispatch import Delivery, Outcome
from gateway.jobs.job import SQUARE, ImageJob
from gateway.routing.plan import plan
from gateway.services import Services
from gateway.tasks.task import Delivered, Ending, Task, TaskSpec, open_task, wait_for
from tests.support.gateways import ENV, OFFICIAL, TASKS, VARIANT, Gateway, Gateways, error_of
from tests.support.outcomes import OTHER, UPSTREAM, ask, assert_accounted, closed_port, open_grid
from tests.support.plain_pictures import png

SYNC_FIRST, TASK_FIRST = "sync-first", "task-first"
ALONE = {"sync": OFFICIAL, "task": TASKS}
PAIR = {"sync": SYNC_FIRST, "task": TASK_FIRST}


def test_failed_task_moves_on_once(gateways: Gateways) -> None:
    """A task that failed at two vendors is not offered to a third: it is likely the request that cannot be made."""
    gateway = gateways.open(
        env=ENV | {"OTHER": "sim-apiany-b"},
        upstreams={
            "apiany": {
                "timeouts": {"call": 1.2, "task": 1.2},
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
    nowhere = f"http://127.0.0.1:{closed_port().getsockname()[1]}"
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


class RefusingProxy:
    """A way to the simulator at which nothing listens until it is opened."""

    def __init__(self, simulator_url: str) -> None:
        self._to = int(simulator_url.rpartition(":")[2])
        self._held = socket.socket()
        self._held.bind(("127.0.0.1", 0))
        self._server: asyncio.Server | None = None
        self.url = f"http://127.0.0.1:{self._held.getsockname()[1]}"
        self.waits: list[float] = []

    async def open(self, seconds: float) -> None:
        """Take the place of the pause before the second try."""
        self.waits.append(seconds)
        self._server = await asyncio.start_server(self._pass_on, sock=self._held)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._held.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()
    writer.close()


async def make_at(behind: Gateway, proxy: RefusingProxy, kind: str) -> Ending:
    """Make a picture at an upstream that becomes reachable in the pause before the second try."""
    async with behind.inside() as app:
        services: Services = app.state.services

        async def deliver(task: Task) -> Outcome:
            made = Delivery(services, task.job, task.spool, task.reservation, task.add_image, sleep=proxy.open)
            return await made.deliver(task.plan)

        job, model = ImageJob("generation", "a cat", size=SQUARE), services.catalogue.document.models[ALONE[kind]]
        assert behind.record is not None
        wish = TaskSpec(job, plan(job, ALONE[kind], model, services.catalogue))
        task = await open_task(services, Caller(behind.record), wish, services.new_spool(), deliver)
        ending = await wait_for(task, 5)
    await proxy.close()
    return ending


@pytest.mark.parametrize("kind", ["sync", "task"])
def test_unreachable_upstream_is_asked_once_more(gateways: Gateways, kind: str) -> None:
    """Nothing listened for a moment: after a short pause the same upstream is asked again, and makes one picture."""
    upstream, proxy = UPSTREAM[kind], RefusingProxy(gateways.simulator.url)
    behind = gateways.open(upstreams={upstream: {"base_url": f"{proxy.url}/{upstream}"}})
    assert isinstance(asyncio.run(make_at(behind, proxy, kind)), Delivered)
    assert len(proxy.waits) == 1
    assert 0.2 <= proxy.waits[0] <= 1
    assert len(behind.simulator.paid()) == len(behind.simulator.book()) == 1
    assert_accounted(behind)


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


def test_credential_errors_stay_inside(gateway: Gateway) -> None:
    """What a vendor says about the operator's account is not the caller's to read."""
    gateway.simulator.fault("status", status=403, message="Account 4711 of ACME is overdue", code="overdue_4711")
    assert "4711" not in ask(gateway, OFFICIAL).text


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


@pytest.mark.parametrize("kind", ["sync", "task"])
def test_fewer_images_end_the_second_try_too(gateways: Gateways, kind: str) -> None:
    """The same where the upstream before it refused: what came is delivered and paid for, and nobody is asked again."""
    gateway = open_grid(gateways)
    first, second = UPSTREAM[OTHER[kind]], UPSTREAM[kind]
    gateway.simulator.fault("status", status=500, upstream=first)
    gateway.simulator.fault("fewer", by=1, upstream=second)
    answer = ask(gateway, f"{second}/second", n=3)
    assert (answer.status_code, answer.headers["x-gateway-delivered"]) == (200, "2/3")
    assert [one["upstream"] for one in gateway.simulator.paid()] == [first, second]
    assert_accounted(gateway)


@pytest.mark.parametrize("place", ["alone", "second"])
@pytest.mark.parametrize("number", [429, 500, 503])
def test_polls_and_downloads_are_free(gateways: Gateways, place: str, number: int) -> None:
    """A poll or a download that fails is made again, and the picture is bought once."""
    gateway = open_grid(gateways)
    gateway.simulator.fault("status", status=500, upstream="anyfast")
    gateway.simulator.fault("status", status=number, endpoint="tasks", upstream="apiany", retry_after=0)
    gateway.simulator.fault("status", status=number, endpoint="files", retry_after=0)
    answer = ask(gateway, f"apiany/{place}")
    assert answer.status_code == 200, answer.text
    assert len(gateway.simulator.log("tasks")) >= 2
    assert len(gateway.simulator.log("files")) == 2
    assert len(gateway.simulator.book()) == 1
    assert_accounted(gateway)


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
