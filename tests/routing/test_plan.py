"""The Plan: which upstreams serve a job, in which order, and why the others cannot."""

import re
from dataclasses import replace
from typing import Any

import pytest

from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.document import STRATEGIES
from gateway.catalogue.vendors import SEVEN
from gateway.errors import UnsupportedValue, UpstreamUnavailable
from gateway.jobs.job import SQUARE, ImageJob, Shape, Size, find_fault
from gateway.routing.plan import Choice, Circumstances, Medians, Plan, split_job
from tests.support.plans import COMBINATIONS, LOW_MODERATION, make_job, plan, shipped

ODD = Size(1920, 1088)


def names(found: Plan) -> list[str]:
    return [choice.target.upstream for choice in found.choices]


@pytest.mark.parametrize(
    ("asked", "order"),
    [
        ({}, ["anyfast-c", "apiany", "anyfast"]),
        ({"size": ODD}, ["anyfast-c", "anyfast"]),
        ({"size": Shape(16, 9, "1K")}, ["anyfast-c", "anyfast"]),
        ({"size": Shape(16, 9, "2K")}, ["anyfast-c", "apiany", "anyfast"]),
        ({"operation": "edit"}, ["anyfast-c", "apiany", "anyfast"]),
        ({"operation": "edit", "quality": "high"}, ["apiany"]),
        ({"operation": "edit", "masked": True}, ["anyfast-c", "apiany", "anyfast"]),
        ({"operation": "edit", "masked": True, "images": 2}, ["anyfast-c", "anyfast"]),
        ({"passed": LOW_MODERATION}, ["anyfast-c", "apiany", "anyfast"]),
        ({"output_format": "webp", "n": 10}, ["anyfast-c", "apiany", "anyfast"]),
    ],
    ids=str,
)
def test_honouring_targets_go_alone(asked: dict[str, Any], order: list[str]) -> None:
    """The catalogue's order; who would drop a hard parameter serves only where nobody honours them all."""
    assert names(plan(make_job(**asked))) == order


@pytest.mark.parametrize(
    ("asked", "order"),
    [
        ({"operation": "edit", "quality": "high"}, ["apiany"]),
        ({"size": Shape(16, 9, "1K")}, ["anyfast-c", "anyfast"]),
        ({"passed": LOW_MODERATION}, ["anyfast-c", "apiany", "anyfast"]),
    ],
    ids=str,
)
def test_refusing_models_make_no_compromise(asked: dict[str, Any], order: list[str]) -> None:
    """`compromises: refuse` leaves out who would drop a hard parameter; a soft one is still dropped and told."""
    found = plan(make_job(**asked), shipped(compromises="refuse"))
    assert names(found) == order
    assert all("would not honour" in one.unfit.reason for one in found.rejections)


def test_refusal_names_the_compromise() -> None:
    """When only compromises are left and the model refuses them, the error says which."""
    with pytest.raises(UnsupportedValue) as caught:
        plan(make_job("edit", masked=True, quality="low"), shipped(compromises="refuse"))
    assert caught.value.param == "quality"
    assert "(each of anyfast-c, apiany, anyfast: it would not honour quality)" in caught.value.message


def test_nearest_sizes_need_no_exact_one() -> None:
    """`sizes: nearest` lets apiany serve any size where nobody makes it exactly."""
    found = plan(make_job(size=ODD), shipped(sizes="nearest"))
    assert names(found) == ["anyfast-c", "anyfast"]
    assert [one.unfit.reason for one in found.rejections] == ["it would not honour size, and another does"]
    assert names(plan(make_job(size=ODD), shipped(sizes="nearest", upstreams=["apiany"]))) == ["apiany"]
    refusing = shipped(sizes="nearest", compromises="refuse")
    assert names(plan(make_job(size=ODD), refusing)) == ["anyfast-c", "anyfast"]


@pytest.mark.parametrize(
    ("asked", "param", "reason", "remedy"),
    [
        (
            {"background": "transparent"},
            "background",
            "each of anyfast-c, apiany, anyfast: it makes no transparent backgrounds",
            " Leave `background` out, or send `opaque`.",
        ),
        (
            {"operation": "edit", "images": 17},
            "image",
            "each of anyfast-c, apiany, anyfast: it takes at most 16 images, not 17",
            "",
        ),
    ],
)
def test_impossible_request_hears_every_reason(asked: dict[str, Any], param: str, reason: str, remedy: str) -> None:
    """When no upstream can, the caller reads why for each, and which field."""
    with pytest.raises(UnsupportedValue) as caught:
        plan(make_job(**asked))
    assert caught.value.param == param
    assert caught.value.message == f"No upstream of `gpt-image-2` can serve this request ({reason}).{remedy}"


@pytest.mark.parametrize(
    ("model", "asked", "reason"),
    [
        ("apiany/gpt-image-2", {"size": ODD}, "apiany: it makes only 1024x1024"),
        ("apiany/gpt-image-2", {"operation": "edit", "masked": True, "images": 2}, "one image, not 2"),
    ],
)
def test_pinned_model_has_no_way_out(model: str, asked: dict[str, Any], reason: str) -> None:
    """A pinned model is that upstream, or an error."""
    with pytest.raises(UnsupportedValue, match=reason):
        plan(make_job(**asked), model=model)
    assert names(plan(make_job(), model=model)) == [model.partition("/")[0]]


def test_masks_need_a_direct_key() -> None:
    """Outside the Direct group masks go to apiany; two images under a mask go nowhere, and both reasons are told."""
    catalogue = shipped(group="default")
    assert names(plan(make_job("edit", masked=True), catalogue)) == ["apiany"]
    with pytest.raises(UnsupportedValue, match=r"Direct group.*one image, not 2"):
        plan(make_job("edit", masked=True, images=2), catalogue)


def test_upstream_without_key_is_off() -> None:
    """An upstream whose key is not set is not tried."""
    assert names(plan(make_job(), shipped(without="ANYFAST_C_API_KEY"))) == ["apiany", "anyfast"]


def test_model_without_keys_is_unavailable() -> None:
    """When all upstreams of a model are off, that is the operator's to mend, and no SDK should try again."""
    with pytest.raises(UpstreamUnavailable, match="APIANY_API_KEY is not set") as caught:
        plan(make_job(), shipped(without="APIANY_API_KEY"), "apiany/gpt-image-2")
    assert caught.value.should_retry is False


def attempt(job: ImageJob, catalogue: Catalogue) -> Plan | UnsupportedValue:
    try:
        return plan(job, catalogue)
    except UnsupportedValue as error:
        return error


def check(job: ImageJob, choice: Choice, group: str) -> None:
    """A choice stays inside its vendor's documentation."""
    upstream, found, sent = choice.target.upstream, choice.fit, choice.fit.sent
    calls = split_job(job, found, range(job.n))
    is_several = max(call.n for call in calls) > 1
    assert [slot for call in calls for slot in call.slots] == list(range(job.n))
    assert all(1 <= call.n <= found.per_call <= 10 for call in calls)
    if upstream == "anyfast-c" or (upstream == "anyfast" and group != "direct"):
        assert not is_several
    if upstream == "apiany":
        assert sent.output_format is None
        assert not (job.mask and is_several)
        assert not isinstance(sent.size, Shape) or sent.size.ratio in SEVEN.ratios
        assert found.made is None or found.made in SEVEN.made
        assert not sent.passed
        assert not (job.mask and (sent.quality or isinstance(sent.size, Shape)))
    else:
        assert isinstance(sent.size, Size)
        assert find_fault(sent.size) is None
        assert sent.output_format in ("png", "jpeg")
        assert sent.quality in ((None,) if job.operation == "edit" else ("low", "medium", "high"))
        assert job.mask is None or group == "direct"
    assert sent.quality is None or sent.quality == (job.quality or "medium")
    assert found.transcode == (job.output_format != (sent.output_format or "png"))
    assert set(found.compromises) <= {"size", "quality"}
    assert ("quality" in found.dropped) == (job.quality is not None and sent.quality is None)
    if isinstance(job.size, Size) and "size" not in found.compromises:
        assert found.made == job.size


@pytest.mark.parametrize("group", ["direct", "default"])
@pytest.mark.parametrize("rules", [{}, {"sizes": "nearest"}, {"compromises": "refuse"}], ids=str)
def test_plans_stay_inside_documentation(group: str, rules: dict[str, Any]) -> None:
    """Every combination of what may be asked: planned within the vendors' pages, or refused with reasons."""
    catalogue = shipped(group=group, **rules)
    planned = refused = 0
    for asked in COMBINATIONS:
        job = make_job(**asked)
        found = attempt(job, catalogue)
        if isinstance(found, UnsupportedValue):
            refused += 1
            assert not {"anyfast", "anyfast-c", "apiany"} - set(re.findall(r"[\w-]+(?=[,:])", found.message))
            continue
        planned += 1
        compromised = [bool(choice.fit.compromises) for choice in found.choices]
        assert compromised == sorted(compromised)
        assert not (rules.get("compromises") == "refuse" and any(compromised))
        assert len(found.choices) + len(found.rejections) == 3
        for choice in found.choices:
            check(job, choice, group)
    assert planned + refused == len(COMBINATIONS) == 540
    assert planned > 300


def test_cheapest_for_the_request_goes_first() -> None:
    """The order follows this request's price: another quality, or another number of references, and it is another."""
    catalogue = shipped(has_prices=True)
    low, high = (plan(make_job(size=SQUARE, quality=quality), catalogue) for quality in ("low", "high"))
    assert names(low) == ["anyfast", "apiany", "anyfast-c"]
    assert names(high) == ["apiany", "anyfast-c", "anyfast"]
    assert [choice.reason for choice in high.choices][:2] == ["cheapest", "$0.015000 dearer than apiany/main"]
    assert (high.strategy, high.note) == ("cost", None)


def test_unknown_price_leaves_catalogue_order() -> None:
    """Where a price is not known the catalogue's order decides, and the Plan says for whom it is missing."""
    found = plan(make_job())
    assert names(found) == ["anyfast-c", "apiany", "anyfast"]
    assert found.note == (
        "the catalogue's order decides: no price is known for anyfast-c/main, apiany/main, anyfast/main"
    )


def test_dollar_limits_restore_cost_order() -> None:
    """Where only priced targets may serve, they are compared after all."""
    catalogue = shipped(has_prices=True)
    targets = [one if one.upstream != "anyfast-c" else replace(one, prices=None) for one in catalogue.targets]
    found = plan(make_job(size=SQUARE), catalogue.model_copy(update={"targets": tuple(targets)}))
    assert names(found) == ["anyfast-c", "apiany", "anyfast"]
    kept = found.keep_priced("no price")
    assert names(kept) == ["apiany", "anyfast"]
    assert kept.note is None
    assert [one.label for one in kept.rejections] == ["anyfast-c/main"]


def test_hard_parameters_beat_any_price() -> None:
    """A cheaper target that would drop what the caller set serves only where nobody honours it."""
    for strategy in STRATEGIES:
        around = Circumstances(strategy=strategy, draw=0.99)
        found = plan(make_job("edit", quality="low"), shipped(has_prices=True), around=around)
        assert names(found) == ["apiany"]


def test_choice_tells_calls_and_their_price() -> None:
    """A choice says in how many calls, for how much in all and for an image."""
    found = plan(make_job(size=SQUARE, n=4), shipped(has_prices=True))
    told = {choice.target.upstream: choice for choice in found.choices}
    assert {name: choice.calls for name, choice in told.items()} == {"apiany": 1, "anyfast-c": 4, "anyfast": 1}
    flat = told["anyfast-c"]
    assert flat.quote
    assert flat.total
    assert (flat.quote.expected, flat.total.expected) == (30_000, 120_000)


def test_fastest_goes_first_where_asked() -> None:
    """Medians are read at the tier and the quality that each target would really make."""
    medians: Medians = {
        ("anyfast-c/main", "high/1K"): 90.0,
        ("apiany/main", "high/1K"): 60.0,
        ("anyfast/main", "high/1K"): 75.0,
        ("anyfast-c/main", "high/2K"): 100.0,
        ("apiany/main", "high/2K"): 120.0,
        ("anyfast/main", "high/2K"): 110.0,
    }
    around = Circumstances(strategy="latency", medians=medians)
    found = plan(make_job(size=SQUARE, quality="high"), around=around)
    assert names(found) == ["apiany", "anyfast", "anyfast-c"]
    assert found.choices[0].reason == "median 60.0 s"
    large = plan(make_job(size=Size(2048, 2048), quality="high"), around=around)
    assert names(large) == ["anyfast-c", "anyfast", "apiany"]
    assert names(plan(make_job(quality="low"), around=around)) == ["anyfast-c", "apiany", "anyfast"]
