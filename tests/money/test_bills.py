"""Upstreams whose numbers cannot be true: the picture is delivered, the money is bounded, and every sum agrees."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.catalogue.pricing import Prices
from gateway.dollars import show_usd
from gateway.history.record import Record
from gateway.ids import new_id
from gateway.jobs.job import Ticket
from gateway.money.ledger_results import Opening
from gateway.recovery.collector import Collector
from gateway.services import Services
from gateway.state.call_store import CallNote, encode_note
from tests.support.gateways import OFFICIAL, TASKS, Gateway, Gateways
from tests.support.ledgers import is_soak
from tests.support.operator_client import TOKEN, Office
from tests.support.plain_pictures import png
from tests.support.store_reader import read_usage
from tests.support.vendor import vendor

PICTURE = base64.b64encode(png(1024, 1024)).decode()

HELD = {OFFICIAL: 1756 * 30 + 5 * len("a cat"), TASKS: 15_000}
"""µ$ that one square of medium quality holds."""

LISTED = {OFFICIAL: 1756 * 30 + 2 * 5, TASKS: 15_000}
"""µ$ of one by the price list."""

TIERED = Prices.model_validate(
    {"by_size": {"any": {"1K": "0.015", "2K": "0.03", "4K": "0.06"}}, "per_thousand_credits": "1.00"}
)

TOLERANCE = {OFFICIAL: 1.0, TASKS: 1.5}


@dataclass
class Answers:
    """A vendor's own numbers, as JSON text: the fields beside its pictures."""

    more: str = "{}"
    images: int = 1

    def answer(self, method: str, path: str) -> bytes:
        """The answer of any vendor: pictures in OpenAI's place, of which a task says that it has ended."""
        data = {"data": [{"b64_json": PICTURE}] * self.images, "status": "succeeded", "task_id": "t1"}
        return (
            (json.dumps(data)[:-1] + ", " + self.more[1:]).encode() if self.more != "{}" else json.dumps(data).encode()
        )


@pytest.fixture(scope="module")
def answers() -> Iterator[tuple[Answers, str]]:
    """A vendor that plays all of them, and its address."""
    made = Answers()
    with vendor(made.answer) as (url, _):
        yield made, url


@pytest.fixture
def served(answers: tuple[Answers, str], gateways: Gateways) -> Gateway:
    """A gateway both of whose upstreams are that vendor."""
    told, url = answers
    told.more, told.images = "{}", 1
    return gateways.open(upstreams={"anyfast": {"base_url": url}, "apiany": {"base_url": url}})


def check_sums(gateway: Gateway, cost: str) -> int:
    """Header, ledger, history and usage are one amount: what the key's last request was charged, in µ$."""
    spent = gateway.spent()
    assert (spent.usd_held, spent.usd_presumed) == (0, 0)
    records = gateway.records()
    assert sum(one.price_settled or 0 for one in records) == spent.usd_posted
    total = asyncio.run(read_usage(gateway.store_url)).total
    assert (total.usd, total.disputed) == (spent.usd_posted, sum(one.price_disputed for one in records))
    usd = records[-1].price_settled
    assert usd is not None
    assert show_usd(usd) == cost
    return usd


def usage(made: object, taken: object = 3, total: object = None) -> str:
    """A usage object; numbers that JSON does not have may be given as text."""
    if total is None and isinstance(made, int) and isinstance(taken, int):
        total = made + taken
    counts = ", ".join(
        f'"{name}": {value}'
        for name, value in (("input_tokens", taken), ("output_tokens", made), ("total_tokens", total))
    )
    return f'{{"usage": {{{counts}}}}}'


def credited(amount: object, name: str = "charged") -> str:
    return f'{{"credits": {{"{name}": {amount}}}}}'


NUMBERS: list[tuple[str, str, bool]] = [
    (OFFICIAL, usage(10**10), True),
    (OFFICIAL, usage(10**15), True),
    (OFFICIAL, usage(10**28), True),
    (OFFICIAL, usage("9" * 5000, "0", "9" * 5000), True),
    (OFFICIAL, usage(1756, 10**10), True),
    (OFFICIAL, usage(-1756), False),
    (OFFICIAL, usage("NaN", 3, "NaN"), False),
    (OFFICIAL, usage(1756.5, 3, 1759.5), False),
    (OFFICIAL, usage('"10000000000"', '"3"', '"10000000003"'), False),
    (OFFICIAL, usage("null", "null", "null"), False),
    (OFFICIAL, usage('{"a": [10000000000]}', "[]", "{}"), False),
    (OFFICIAL, usage(10, 10, 10**10), False),
    (OFFICIAL, '{"usage": [10000000000]}', False),
    (TASKS, credited(10**9), True),
    (TASKS, credited("22.501"), True),
    (TASKS, credited(-5), False),
    (TASKS, credited('"1000000000"'), True),
    (TASKS, credited('{"usd": 10}'), False),
    (TASKS, credited(10**6, "reserved"), True),
]

RARE: list[tuple[str, str, bool]] = [
    (OFFICIAL, usage(10**19), True),
    (OFFICIAL, usage("1e28", "0", "1e28"), True),
    (OFFICIAL, usage("1e999", "3", "1e999"), False),
    (OFFICIAL, usage("-Infinity", 3, 3), False),
    (OFFICIAL, usage("true", "true", "true"), False),
    (OFFICIAL, usage(0, 0, 0), False),
    (OFFICIAL, '{"usage": null}', False),
    (OFFICIAL, '{"usage": 1e10}', False),
    (OFFICIAL, credited(10**9), False),
    (TASKS, credited(10**28), False),
    (TASKS, credited("NaN"), False),
    (TASKS, credited('"1e9"'), False),
    (TASKS, credited("null"), False),
    (TASKS, '{"credits": 1000000000}', False),
    (TASKS, usage(10**28), False),
]
"""Kin of those, for the long form."""


@pytest.mark.parametrize(("model", "more", "is_disputed"), NUMBERS + RARE if is_soak() else NUMBERS)
def test_number_that_cannot_be_booked_costs_no_picture(
    served: Gateway, answers: tuple[Answers, str], model: str, more: str, is_disputed: bool
) -> None:
    """Whatever an upstream counts, its picture is delivered at the listed price, and a false bill is disputed."""
    answers[0].more = more
    made = served.generate(model=model, size="1024x1024")
    assert made.status_code == 200, made.text
    assert made.json()["data"][0]["b64_json"] == PICTURE
    assert check_sums(served, made.headers["x-gateway-cost-usd"]) == LISTED[model]
    (record,) = served.records()
    assert (record.price_disputed > 0) is is_disputed
    assert "usage" not in made.json()


@pytest.mark.parametrize("form", ["b64_json", "url", "stream", "task"])
@pytest.mark.parametrize(("model", "more"), [(OFFICIAL, usage(10**28)), (TASKS, credited(10**9))])
def test_false_bill_reaches_no_form_of_answer(
    served: Gateway, answers: tuple[Answers, str], model: str, more: str, form: str
) -> None:
    """An answer of any form holds two pictures and what they cost, and no count that is not believed."""
    answers[0].more, answers[0].images = more, 2
    fields: dict[str, Any] = {"stream": True} if form == "stream" else {}
    fields |= {"response_format": form} if form in ("b64_json", "url") else {}
    headers = {"prefer": "respond-async"} if form == "task" else {}
    made = served.generate(headers, model=model, size="1024x1024", n=2, **fields)
    assert made.status_code == (202 if form == "task" else 200), made.text
    served.settle()
    if form == "task":
        made = served.get(f"/v1/tasks/{made.json()['task_id']}")
        assert made.json()["status"] == "succeeded"
    assert '"usage":{' not in made.text.replace(" ", "")
    (record,) = served.records()
    assert record.n_delivered == 2
    # The prompt counts once in the price list.
    listed = 2 * LISTED[model] - (10 if model == OFFICIAL else 0)
    assert check_sums(served, show_usd(listed)) == listed
    assert record.price_disputed > 10**8


def test_dispute_is_shown_to_operators(gateways: Gateways, answers: tuple[Answers, str]) -> None:
    """A disputed bill is in the record, in the filter of the history and in the usage, by the admin API."""
    told, url = answers
    served = gateways.open(
        upstreams={"anyfast": {"base_url": url}, "apiany": {"base_url": url}}, settings={"admin_token": TOKEN}
    )
    told.images = 1
    for told.more in ("{}", credited(10**9)):
        assert served.generate(model=TASKS, size="1024x1024").status_code == 200
    served.settle()
    office, disputed = Office(served), show_usd(10**12 - HELD[TASKS])
    listed = office.get("/history", is_disputed=True)["data"]
    assert [(one["usd_settled"], one["usd_disputed"]) for one in listed] == [("0.015000", disputed)]
    assert [one["usd_disputed"] for one in listed[0]["calls"]] == [disputed]
    assert len(office.get("/history")["data"]) == 2
    assert office.get("/usage")["total"]["usd_disputed"] == disputed


def test_tolerance_is_the_operators(gateways: Gateways, answers: tuple[Answers, str]) -> None:
    """A bill within `accounting.bill_tolerance` is charged as it came."""
    told, url = answers
    told.more, told.images = credited(45), 1
    served = gateways.open(upstreams={"apiany": {"base_url": url}}, accounting={"bill_tolerance": 3})
    made = served.generate(model=TASKS, size="1024x1024")
    assert check_sums(served, made.headers["x-gateway-cost-usd"]) == 45_000


async def test_late_bill_is_bounded_too(served: Gateway, answers: tuple[Answers, str]) -> None:
    """An adopter that collects a dead worker's call believes no more than its own worker would have."""
    answers[0].more = credited(10**9)
    assert served.record is not None
    task, call = new_id("task"), new_id("call")
    note = CallNote(upstream="apiany", credential="main", slots=(0,), prices=TIERED, held=15_000, believed=22_500)
    opening = Opening(task, served.record.id, "f" * 64, 15_000, 1, new_id("worker"))
    async with served.inside() as app:
        services: Services = app.state.services
        await services.ledger.open(opening)
        await services.ledger.mark_sent(task, call, [0], 15_000, 1, "presume", encode_note(note))
        await services.calls.bind(task, call, "apiany", "main", Ticket("t1", ""))
        assert await services.ledger.adopt(task, services.worker, 1) == 2
        await services.ledger.close(task, 2, "collect")
        hold = await services.ledger.show(task)
        assert hold is not None
        collector = Collector(services)
        assert await collector.collect(hold) == [call]
        for running in list(collector._running.values()):
            await running
        record = await _find_record(services, task)
        spent = (await services.ledger.look(served.record.id)).spent
    assert (record.price_settled, record.price_disputed) == (15_000, 10**12 - 15_000)
    assert {one.usd_posted for one in spent} == {15_000}


async def _find_record(services: Services, task: str) -> Record:
    await services.recorder.outbox.wait()
    record = await services.history.show(task)
    assert record is not None
    return record


def _objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Mapping[str, Any]]:
    names = st.sampled_from(["input_tokens", "output_tokens", "total_tokens", "charged", "reserved", "settled"])
    details = st.fixed_dictionaries({}, optional={"text_tokens": values, "image_tokens": values})
    counts = st.dictionaries(names, values, max_size=6)
    return st.builds(lambda one, two: {**one, "input_tokens_details": two}, counts, st.none() | details | values)


_numbers = (
    st.integers(0, 4000)
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.sampled_from([10**10, 10**15, 10**28, 2**53, 2**63, 2**64])
)
_values = _numbers | st.none() | st.booleans() | st.text(max_size=5) | st.lists(_numbers, max_size=2)


@st.composite
def _counted(draw: st.DrawFn) -> Mapping[str, Any]:
    """Counts that agree with each other, some of them far too high."""
    taken, made = draw(st.integers(0, 10**4)), draw(st.integers(1, 10**4) | st.integers(1, 10**30))
    return {"input_tokens": taken, "output_tokens": made, "total_tokens": taken + made}


@settings(
    max_examples=300 if is_soak() else 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    model=st.sampled_from([OFFICIAL, TASKS]),
    usage_object=_objects(_values) | _counted() | _values,
    credits_object=_objects(_values) | _values,
    n=st.integers(1, 3),
    images=st.integers(1, 3),
    form=st.sampled_from(["b64_json", "url"]),
    room=st.integers(1, 3),
)
def test_limit_is_passed_by_the_tolerance_at_most(
    served: Gateway,
    answers: tuple[Answers, str],
    model: str,
    usage_object: Any,
    credits_object: Any,
    n: int,
    images: int,
    form: str,
    room: int,
) -> None:
    """Random numbers of an upstream: a limit is never passed by more than the tolerance of what is in flight."""
    answers[0].more = json.dumps({"usage": usage_object, "credits": credits_object})
    answers[0].images = images
    served.record, served.key = served.new_key()
    before = served.spent().usd_posted
    limit = room * n * HELD[model]
    served.set_limit("usd_total", limit)
    for _ in range(room + 1):
        made = served.generate(model=model, size="1024x1024", n=n, response_format=form)
        assert made.status_code in (200, 429), made.text
        if made.status_code == 429:
            break
        assert len(made.json()["data"]) == min(n, images)
        usd = served.records()[-1].price_settled
        assert made.headers["x-gateway-cost-usd"] == show_usd(usd or 0)
    spent = served.spent().usd_posted - before
    assert spent == sum(one.price_settled or 0 for one in served.records())
    assert spent <= limit + (TOLERANCE[model] - 1) * n * HELD[model]
