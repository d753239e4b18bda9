"""A parameter that is only checked and passed on: a row of the table and an entry in a vendor's profile are enough."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from gateway.api.document import build_document
from gateway.catalogue.vendors import VENDORS
from gateway.errors import InvalidValue
from gateway.jobs.job import ImageJob, Passed, take_fingerprint
from gateway.jobs.parameter_table import PARAMETERS, Parameter
from gateway.jobs.parameters import make_job, read_params
from tests.support.gateways import ENV, OFFICIAL, SMALLEST, TASKS, Gateway, Gateways, error_of
from tests.support.plain_pictures import mask, png
from tests.support.vendor import Sent, vendor

TAKER, BOTH, STRICT = "taker", "both", "strict"
"""Models: one whose upstream takes the parameters, one where it comes last, and one without it."""

DRY = {"X-Gateway-Dry-Run": "1"}


@dataclass(frozen=True)
class MadeUp:
    """A parameter that nobody has: its row, a good value, the same as text, and a wrong value."""

    row: Parameter
    good: str | int
    text: str
    wrong: object


ROWS = {
    "grain": MadeUp(Parameter("choice", "How fine.", values=("auto", "fine"), default="auto"), "fine", "fine", "wild"),
    "hints": MadeUp(Parameter("integer", "How many.", least=1, most=9), 7, "7", 10),
    "sharpen": MadeUp(Parameter("boolean", "True: sharper.", default=False), True, "true", "perhaps"),
    "palette": MadeUp(Parameter("text", "Which.", most=20), "warm", "warm", "w" * 21),
}
GOOD = {name: one.good for name, one in ROWS.items()}


def declare(monkeypatch: pytest.MonkeyPatch, *, kind: str = "openai", changes_picture: bool = False) -> None:
    """Add the rows to the table, and to what upstreams of one kind take; then nothing else is needed."""
    for name, one in ROWS.items():
        row = replace(one.row, use="passed", changes_picture=changes_picture)
        monkeypatch.setitem(cast("dict[str, Parameter]", PARAMETERS), name, row)
    known = VENDORS[kind]
    taken = frozenset((name, operation) for name in ROWS for operation in ("generation", "edit"))
    offers = tuple(replace(one, profile=one.profile.change(passes=one.profile.passes | taken)) for one in known.offers)
    monkeypatch.setitem(cast("dict[str, Any]", VENDORS), kind, replace(known, offers=offers))


@pytest.fixture
def soft(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)


@pytest.fixture
def hard(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, changes_picture=True)


@pytest.fixture
def seen_by() -> Iterator[tuple[str, list[Sent]]]:
    """A vendor that takes anything, with what it was sent."""
    answer = {"data": [{"b64_json": base64.b64encode(png(1024, 640)).decode()}], "url": "https://a.example/a.png"}
    with vendor(lambda method, path: answer) as found:
        yield found


def opened(gateways: Gateways, url: str, kind: str = "openai") -> Gateway:
    """A gateway with one more upstream, which takes the parameters."""
    taker = {
        "kind": kind,
        "base_url": url,
        "model": "gpt-image-2",
        "credentials": [{"key": "env:OPENAI_API_KEY", "group": "direct"}],
        "prices": {"per_image": "0.05"},
    }
    models = {
        TAKER: {"upstreams": ["taker"]},
        BOTH: {"upstreams": ["anyfast", "taker"]},
        STRICT: {"upstreams": ["anyfast"], "compromises": "refuse"},
    }
    return gateways.open(env=ENV | {"OPENAI_API_KEY": "key"}, upstreams={"taker": taker}, models=models)


def read(**fields: Any) -> ImageJob:
    params = read_params({"prompt": "a fox"} | fields, "generation", is_text=False, refuse_unknown=True)
    return make_job(params, (), None)


@pytest.mark.parametrize("name", ROWS)
def test_row_is_the_check(soft: None, name: str) -> None:
    """A right value is read, null and the default say nothing, and a wrong value is refused by its field."""
    one = ROWS[name]
    assert read(**{name: one.good}).passed == (Passed(name, one.good),)
    assert read(**{name: None}).passed == read(**{name: one.row.default}).passed == ()
    with pytest.raises(InvalidValue) as refused:
        read(**{name: one.wrong})
    assert refused.value.param == name


@pytest.mark.parametrize("name", ROWS)
def test_value_is_part_of_the_fingerprint(soft: None, name: str) -> None:
    """A request with the parameter is another one, and its default is none."""
    plain, other, default = ({}, {name: ROWS[name].good}, {name: ROWS[name].row.default})
    digests = [take_fingerprint(read(**fields), "m", None) for fields in (plain, other, default)]
    assert digests[0] == digests[2] != digests[1]


def test_rows_are_in_the_document(soft: None) -> None:
    """Every form of a request has the parameter in the OpenAPI document."""
    schemas = build_document()["components"]["schemas"]
    for form in ("GenerationRequest", "EditRequest", "EditForm"):
        assert {schemas[form]["properties"][name]["description"] for name in ROWS} == {
            one.row.about for one in ROWS.values()
        }


@pytest.mark.parametrize("kind", VENDORS)
def test_values_are_sent_as_they_came(
    monkeypatch: pytest.MonkeyPatch, gateways: Gateways, seen_by: tuple[str, list[Sent]], kind: str
) -> None:
    """A vendor that declares them gets them: by their types in JSON, as text in a form, with a mask or without."""
    url, seen = seen_by
    declare(monkeypatch, kind=kind)
    gateway = opened(gateways, url, kind)
    answers = [
        gateway.generate(model=TAKER, size="1024x1024", **GOOD),
        gateway.edit({"image": png()}, model=TAKER, **GOOD),
        gateway.edit({"image": png(64, 64), "mask": mask(64, 64)}, model=TAKER, **GOOD),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3, [answer.text for answer in answers]
    assert not [answer for answer in answers if "x-gateway-dropped-params" in answer.headers]
    paid = [one.body for one in seen if one.path != "/v1/images/upload"]
    assert len(paid) == 3
    for body in paid:
        if body.startswith(b"{"):
            sent = json.loads(body)
            assert {name: sent[name] for name in ROWS} == GOOD
        else:
            parts = [f'name="{name}"\r\n\r\n{one.text}\r\n'.encode() for name, one in ROWS.items()]
            assert [part for part in parts if part not in body] == []


@pytest.mark.parametrize("model", [OFFICIAL, TASKS])
def test_soft_values_are_dropped_elsewhere(
    soft: None, gateways: Gateways, seen_by: tuple[str, list[Sent]], model: str
) -> None:
    """An upstream that does not declare them gets none, and the answer's header names them."""
    gateway = opened(gateways, seen_by[0])
    answer = gateway.generate(model=model, size="1024x1024", **GOOD)
    assert answer.status_code == 200, answer.text
    assert set(answer.headers["x-gateway-dropped-params"].split(",")) == set(ROWS)
    (paid,) = gateway.simulator.paid()
    assert not paid["undocumented"]
    assert not set(paid["fields"]) & set(ROWS)


def test_soft_values_choose_no_upstream(soft: None, gateways: Gateways, seen_by: tuple[str, list[Sent]]) -> None:
    """The plan and its prices are those of the request without them; only what is dropped differs."""
    gateway = opened(gateways, seen_by[0])
    plain, found = (gateway.generate(DRY, model=BOTH, **fields).json() for fields in ({}, GOOD))
    assert [one["dropped"] for one in found["choices"]] == [list(ROWS), []]
    assert [one | {"dropped": []} for one in found["choices"]] == plain["choices"]


def test_hard_values_choose_the_upstream(hard: None, gateways: Gateways, seen_by: tuple[str, list[Sent]]) -> None:
    """An upstream that would drop one serves only where no other takes it, and never under `compromises: refuse`."""
    gateway = opened(gateways, seen_by[0])
    plain = gateway.generate(DRY, model=BOTH).json()
    found = gateway.generate(DRY, model=BOTH, grain="fine").json()
    assert [one["target"] for one in plain["choices"]] == ["anyfast/main", "taker/main"]
    (chosen,), (left_out,) = found["choices"], found["rejections"]
    assert (chosen["target"], chosen["price_usd"], chosen["dropped"]) == ("taker/main", "0.050000", [])
    assert (left_out["param"], left_out["reason"]) == ("grain", "it would not honour grain, and another does")
    dropped = gateway.generate(model=OFFICIAL, grain="fine")
    assert (dropped.status_code, dropped.headers["x-gateway-dropped-params"]) == (200, "grain")
    refused = gateway.generate(model=STRICT, grain="fine", size=SMALLEST)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "grain")
