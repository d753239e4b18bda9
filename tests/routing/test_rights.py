"""What a key allows: more is refused before anything is planned, and what was left open is held to it."""

from typing import Any

import pytest

from gateway.errors import ModelNotAllowed, UnsupportedValue
from gateway.jobs.job import SQUARE, Shape, Size
from gateway.routing.rights import Rights
from tests.support.plans import COMBINATIONS, make_job, plan, shipped

LEAST = 655_360


@pytest.mark.parametrize(
    ("rights", "asked", "param", "words"),
    [
        (Rights(max_n=2), {"n": 3}, "n", "at most 2 images at once, not 3"),
        (Rights(max_quality="medium"), {"quality": "high"}, "quality", "medium at most, not high"),
        (Rights(max_quality="low"), {"quality": "medium"}, "quality", "low at most"),
        (Rights(max_pixels=SQUARE.pixels), {"size": Size(1536, 1024)}, "size", "1536x1024 has 1,572,864"),
        (Rights(max_pixels=SQUARE.pixels), {"size": Shape(16, 9, "2K")}, "size", "(2048x1152) has 2,359,296"),
        (Rights(max_pixels=SQUARE.pixels - 1), {}, "size", "send a `size` such as 1024x640"),
    ],
    ids=str,
)
def test_more_than_allowed_is_refused(rights: Rights, asked: dict[str, Any], param: str, words: str) -> None:
    """Who asks for more than his key allows reads which parameter, and what would be right."""
    with pytest.raises(UnsupportedValue) as caught:
        rights.check(make_job(**asked))
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("rights", "asked"),
    [
        (Rights(), {"n": 10, "quality": "high", "size": Size(3840, 2160)}),
        (Rights(max_n=2), {"n": 2}),
        (Rights(max_quality="medium"), {"quality": "medium"}),
        (Rights(max_quality="low"), {}),
        (Rights(max_pixels=SQUARE.pixels), {"size": SQUARE}),
        (Rights(max_pixels=SQUARE.pixels), {}),
        (Rights(max_pixels=LEAST), {"size": Size(1024, 640)}),
    ],
    ids=str,
)
def test_the_cap_itself_is_allowed(rights: Rights, asked: dict[str, Any]) -> None:
    """A cap is the most that may be asked for, and not one less."""
    rights.check(make_job(**asked))


def test_auto_quality_stays_below_cap() -> None:
    """`auto` is medium, or what the key is held to where that is less."""
    shown = {
        cap: {choice.fit.sent.quality for choice in plan(make_job(), rights=Rights(max_quality=cap)).choices}
        for cap in ("low", "medium", "high")
    }
    assert shown == {"low": {"low"}, "medium": {"medium"}, "high": {"medium"}}


def test_upstream_without_quality_cannot_be_held() -> None:
    """An upstream that takes no quality makes medium, so it does not serve a key that is held to low."""
    edit = make_job("edit")
    assert [one.target.upstream for one in plan(edit, rights=Rights(max_quality="low")).choices] == ["apiany"]
    assert len(plan(edit, rights=Rights(max_quality="medium")).choices) == 3
    with pytest.raises(UnsupportedValue, match="takes no quality here, and this key is limited to low"):
        plan(edit, model="anyfast/gpt-image-2", rights=Rights(max_quality="low"))


def test_auto_size_is_named_under_a_cap() -> None:
    """An upstream that would choose a size by itself is told one that the key allows."""
    free = plan(make_job(), model="apiany/gpt-image-2").choices[0].fit
    assert free.made is None
    held = plan(make_job(), model="apiany/gpt-image-2", rights=Rights(max_pixels=SQUARE.pixels)).choices[0].fit
    assert (held.sent.size, held.made) == (SQUARE, SQUARE)


def test_snapped_size_counts_as_made() -> None:
    """An upstream that would make more pixels than were asked for is left out when that is more than is allowed."""
    size = Size(1280, 1024)
    catalogue = shipped(sizes="nearest", upstreams=["apiany"])
    assert plan(make_job(size=size), catalogue).choices[0].fit.made == Size(1536, 1024)
    with pytest.raises(UnsupportedValue, match="would make 1536x1024, and this key is limited to 1,400,000 pixels"):
        plan(make_job(size=size), catalogue, rights=Rights(max_pixels=1_400_000))


CAPS = [
    Rights(max_quality="low"),
    Rights(max_quality="medium", max_pixels=SQUARE.pixels),
    Rights(max_pixels=2_100_000, upstreams=("anyfast", "apiany")),
    Rights(max_n=3, max_quality="medium", max_pixels=3_000_000, upstreams=("apiany",)),
]


@pytest.mark.parametrize("rights", CAPS, ids=repr)
@pytest.mark.parametrize("rules", [{}, {"sizes": "nearest"}], ids=str)
def test_no_plan_is_beyond_the_caps(rights: Rights, rules: dict[str, Any]) -> None:
    """Whatever is asked: every target of every plan would make no more than the key allows, where it may."""
    catalogue, planned = shipped(**rules), 0
    ranks = {"low": 0, "medium": 1, "high": 2}
    for asked in COMBINATIONS:
        job = make_job(**asked)
        try:
            rights.check(job)
            found = plan(job, catalogue, rights=rights)
        except UnsupportedValue:
            continue
        planned += 1
        for choice in found.choices:
            made = choice.fit.made
            assert rights.upstreams is None or choice.target.upstream in rights.upstreams
            assert rights.max_n is None or job.n <= rights.max_n
            assert rights.max_pixels is None or (made is not None and made.pixels <= rights.max_pixels)
            assert ranks[choice.fit.sent.quality or "medium"] <= ranks[rights.max_quality or "high"]
    assert planned > 10


def test_other_upstreams_are_left_out() -> None:
    """A key's list of upstreams is kept to, and the others are told as not its own."""
    found = plan(make_job(), rights=Rights(upstreams=("apiany",)))
    assert [one.target.upstream for one in found.choices] == ["apiany"]
    assert {one.unfit.reason for one in found.rejections} == {"this key may not use it"}
    assert len(found.rejections) == 2


def test_no_upstream_left_names_limit() -> None:
    """Where a key may use none of a model's upstreams, the refusal says which it may use."""
    with pytest.raises(ModelNotAllowed, match=r"may use the upstreams apiany only"):
        plan(make_job(), model="anyfast/gpt-image-2", rights=Rights(upstreams=("apiany",)))


@pytest.mark.parametrize("pinned", ["anyfast", "anyfast/main"])
def test_chosen_upstream_goes_alone(pinned: str) -> None:
    """A chosen upstream, or one credential of it, serves alone."""
    found = plan(make_job(), rights=Rights(pinned=pinned))
    assert [one.target.upstream for one in found.choices] == ["anyfast"]
    assert {one.unfit.reason for one in found.rejections} == {"the request names another"}


@pytest.mark.parametrize("pinned", ["nowhere", "anyfast/other", "main"])
def test_unknown_choice_lists_upstreams(pinned: str) -> None:
    """A choice that serves nothing is refused with those there are for this key."""
    with pytest.raises(UnsupportedValue, match=r"use one of anyfast-c, apiany\.$"):
        plan(make_job(), rights=Rights(pinned=pinned, upstreams=("anyfast-c", "apiany")))


def test_refusal_names_the_parameter_in_the_way() -> None:
    """When the chosen upstream cannot, the error names what stands in its way, and not the choice."""
    with pytest.raises(UnsupportedValue) as caught:
        plan(make_job(size=Size(1920, 1088)), rights=Rights(pinned="apiany"))
    assert caught.value.param == "size"
