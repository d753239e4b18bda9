"""The translation table: what each shipped upstream sends and makes for what a caller asks, or why it cannot."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.catalogue.capabilities import Fit, Profile, Unfit, fit
from gateway.catalogue.vendors import SEVEN, THREE, find_offer
from gateway.jobs.job import Operation, Shape, Size
from gateway.pictures.spool import Blob
from tests.support.plans import LOW_MODERATION, facts_of, make_job, picture, shipped, target

UPSTREAMS = ("anyfast", "anyfast-c", "apiany")
ANYFAST = ("anyfast", "anyfast-c")

# (what is asked, upstreams, what the Fit must hold); an edit has one square reference.
TABLE: list[tuple[dict[str, Any], tuple[str, ...], dict[str, Any]]] = [
    # n
    ({"n": 4}, ("anyfast", "apiany"), {"per_call": 10}),
    ({"n": 4}, ("anyfast-c",), {"per_call": 1}),
    ({"operation": "edit", "n": 4}, ("anyfast", "apiany"), {"per_call": 10}),
    ({"operation": "edit", "n": 4}, ("anyfast-c",), {"per_call": 1}),
    # size WIDTHxHEIGHT
    ({"size": Size(1920, 1088)}, ANYFAST, {"size": Size(1920, 1088), "made": Size(1920, 1088), "compromises": ()}),
    *(({"size": one}, UPSTREAMS, {"size": one, "made": one, "compromises": (), "dropped": ()}) for one in SEVEN.made),
    # size auto or absent
    ({}, ANYFAST, {"size": Size(1024, 1024), "made": Size(1024, 1024)}),
    ({}, ("apiany",), {"size": None, "made": None}),
    ({"operation": "edit"}, ANYFAST, {"size": Size(1024, 1024)}),
    ({"operation": "edit"}, ("apiany",), {"size": None, "made": None}),
    ({"operation": "edit", "references": (picture(1600, 900), picture(9, 16))}, ANYFAST, {"size": Size(1360, 768)}),
    ({"operation": "edit", "references": (picture(10, 900),)}, ANYFAST, {"size": Size(592, 1776)}),
    # resolution and aspect_ratio
    ({"size": Shape(16, 9, "2K")}, ANYFAST, {"size": Size(2048, 1152), "made": Size(2048, 1152)}),
    ({"size": Shape(16, 9, "2K")}, ("apiany",), {"size": Shape(16, 9, "2K"), "compromises": ()}),
    ({"size": Shape(16, 9, "1K")}, ("apiany",), {"made": Size(1536, 1024), "compromises": ("size",)}),
    ({"size": Shape(7, 5, "1K")}, ("apiany",), {"size": Size(1536, 1104), "made": Size(1536, 1024)}),
    # quality
    ({}, UPSTREAMS, {"quality": "medium", "compromises": (), "dropped": ()}),
    *(({"quality": one}, UPSTREAMS, {"quality": one, "compromises": ()}) for one in ("low", "medium", "high")),
    ({"operation": "edit", "quality": "high"}, ("apiany",), {"quality": "high", "compromises": (), "dropped": ()}),
    (
        {"operation": "edit", "quality": "high"},
        ANYFAST,
        {"quality": None, "compromises": ("quality",), "dropped": ("quality",)},
    ),
    ({"operation": "edit"}, ANYFAST, {"quality": None, "compromises": (), "dropped": ()}),
    # output_format
    ({}, ANYFAST, {"output_format": "png", "transcode": False}),
    ({}, ("apiany",), {"output_format": None, "transcode": False}),
    ({"output_format": "webp"}, ANYFAST, {"output_format": "png", "transcode": True}),
    ({"output_format": "webp"}, ("apiany",), {"output_format": None, "transcode": True}),
    ({"output_format": "jpeg"}, ANYFAST, {"output_format": "jpeg", "transcode": False}),
    ({"output_format": "jpeg"}, ("apiany",), {"output_format": None, "transcode": True}),
    # background
    ({"background": "opaque"}, UPSTREAMS, {"compromises": (), "dropped": ()}),
    # moderation
    ({"passed": LOW_MODERATION}, ANYFAST, {"passed": LOW_MODERATION, "dropped": ()}),
    ({"passed": LOW_MODERATION}, ("apiany",), {"passed": (), "dropped": ("moderation",)}),
    ({"operation": "edit", "passed": LOW_MODERATION}, UPSTREAMS, {"passed": (), "dropped": ("moderation",)}),
    ({}, UPSTREAMS, {"passed": (), "dropped": ()}),
    # several images
    ({"operation": "edit", "images": 16}, UPSTREAMS, {"compromises": ()}),
    # masks
    ({"operation": "edit", "masked": True, "n": 3}, ("anyfast",), {"per_call": 10, "quality": None}),
    ({"operation": "edit", "masked": True, "n": 3}, ("anyfast-c", "apiany"), {"per_call": 1, "quality": None}),
    ({"operation": "edit", "masked": True, "images": 16}, ANYFAST, {"compromises": ()}),
    (
        {"operation": "edit", "masked": True, "quality": "low"},
        UPSTREAMS,
        {"compromises": ("quality",), "dropped": ("quality",)},
    ),
    ({"operation": "edit", "masked": True, "size": Shape(16, 9, "4K")}, ("apiany",), {"size": Size(3840, 2160)}),
    ({"operation": "edit", "masked": True}, ("apiany",), {"size": None}),
]


@pytest.mark.parametrize(
    ("asked", "upstream", "expected"),
    [(asked, upstream, expected) for asked, upstreams, expected in TABLE for upstream in upstreams],
)
def test_table_is_kept(asked: dict[str, Any], upstream: str, expected: dict[str, Any]) -> None:
    """What a caller sends becomes what the vendor's documentation takes."""
    found = fit(make_job(**asked), target(upstream).profile)
    assert isinstance(found, Fit)
    assert {name: facts_of(found)[name] for name in expected} == expected


SEVEN_ONLY = "it makes only 1024x1024, 1536x1024, 1024x1536, 2048x2048, 2048x1152, 3840x2160, 2160x3840"


@pytest.mark.parametrize(
    ("asked", "upstreams", "unfit"),
    [
        ({"size": Size(1920, 1088)}, ("apiany",), Unfit(SEVEN_ONLY, "size")),
        (
            {"background": "transparent"},
            UPSTREAMS,
            Unfit("it makes no transparent backgrounds", "background"),
        ),
        (
            {"operation": "edit", "images": 17},
            UPSTREAMS,
            Unfit("it takes at most 16 images, not 17", "image"),
        ),
        (
            {"operation": "edit", "images": 2, "masked": True},
            ("apiany",),
            Unfit("with a mask it takes one image, not 2", "mask"),
        ),
    ],
)
def test_refusals_are_readable(asked: dict[str, Any], upstreams: tuple[str, ...], unfit: Unfit) -> None:
    """What an upstream cannot do has a reason and the field in the way."""
    for upstream in upstreams:
        assert fit(make_job(**asked), target(upstream).profile) == unfit


@pytest.mark.parametrize("upstream", ANYFAST)
def test_other_groups_make_one_image(upstream: str) -> None:
    """A key outside the Direct group has one image a call and no masks."""
    profile = target(upstream, shipped(group="default")).profile
    several = fit(make_job(n=5), profile)
    assert isinstance(several, Fit)
    assert several.per_call == 1
    masked = fit(make_job("edit", masked=True), profile)
    assert masked == Unfit("its key is not in the Direct group, which masks need", "mask")


def test_nearest_size_is_told() -> None:
    """Where the route allows another size, the fit says which, and that it is a compromise."""
    found = fit(make_job(size=Size(1920, 1088)), target("apiany").profile, allows_nearest=True)
    assert isinstance(found, Fit)
    assert (found.sent.size, found.made, found.compromises) == (Size(1920, 1088), Size(2048, 1152), ("size",))


@pytest.mark.parametrize(
    ("overrides", "asked", "expected"),
    [
        ({"max_n": 3}, {"n": 9}, {"anyfast": 3, "anyfast-c": 3, "apiany": 3}),
        ({"max_n": 3}, {"operation": "edit", "masked": True}, {"anyfast": 3, "anyfast-c": 1, "apiany": 1}),
    ],
)
def test_operator_corrects_n(overrides: dict[str, int], asked: dict[str, Any], expected: dict[str, int]) -> None:
    """An operator who knows better than the documentation sets the images of a call."""
    catalogue = shipped(capabilities=overrides)
    for upstream, per_call in expected.items():
        found = fit(make_job(**asked), target(upstream, catalogue).profile)
        assert isinstance(found, Fit)
        assert found.per_call == per_call


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_operator_switches_masks_off(upstream: str) -> None:
    """The reason then is the catalogue's, not a group's."""
    profile = target(upstream, shipped(capabilities={"masks": False})).profile
    found = fit(make_job("edit", masked=True), profile)
    assert found == Unfit("the catalogue switches its masks off", "mask")


@pytest.mark.parametrize(
    ("upstream", "masked", "sent"),
    [("anyfast", False, True), ("anyfast", True, True), ("apiany", False, True), ("apiany", True, False)],
)
def test_operator_allows_edit_quality(upstream: str, masked: bool, sent: bool) -> None:
    """Anyfast's edits get a quality once the catalogue says so; apiany's masked endpoint has no such field."""
    profile = target(upstream, shipped(capabilities={"edit_quality": True})).profile
    found = fit(make_job("edit", masked=masked, quality="low"), profile)
    assert isinstance(found, Fit)
    assert (found.sent.quality, found.dropped) == (("low", ()) if sent else (None, ("quality",)))


def test_operator_allows_masks_and_references() -> None:
    """Masks can be switched on outside Direct, and references limited."""
    profile = target("anyfast", shipped(group="default", capabilities={"masks": True, "max_references": 2})).profile
    assert isinstance(fit(make_job("edit", masked=True), profile), Fit)
    assert fit(make_job("edit", images=3), profile) == Unfit("it takes at most 2 images, not 3", "image")
    assert fit(make_job("edit", images=2, masked=True), profile) == Unfit(
        "with a mask it takes one image, not 2", "mask"
    )


@pytest.mark.parametrize("operation", ["generation", "edit"])
def test_profiles_are_the_narrowest(operation: Operation) -> None:
    """A profile without facts promises nothing beyond one image of one reference set, without masks."""
    found = fit(make_job(operation, n=2), Profile())
    assert isinstance(found, Fit)
    assert found.per_call == 1
    assert fit(make_job("edit", masked=True), Profile()) == Unfit("its key takes no masks", "mask")
    few = Profile(masked_references=3)
    assert fit(make_job("edit", images=4, masked=True), few) == Unfit(
        "with a mask it takes at most 3 images, not 4", "mask"
    )


@pytest.mark.parametrize(
    ("model", "group", "max_n", "masked"),
    [
        ("gpt-image-2", "direct", 10, 10),
        ("gpt-image-2", "default", 1, 1),
        ("gpt-image-2", "Direct", 1, 1),
        ("gpt-image-2-c", "direct", 1, 1),
    ],
)
def test_variant_never_gets_n(model: str, group: str, max_n: int, masked: int) -> None:
    """The cost-effective variant documents no `n` in any group."""
    profile = find_offer("anyfast", model, group).profile
    assert (profile.max_n, profile.masked_n) == (max_n, masked)


GENERAL, FIRST = (find_offer("openai", model, "default").profile for model in ("gpt-image-2", "gpt-image-1"))


@pytest.mark.parametrize(
    ("asked", "profile", "expected"),
    [
        ({}, GENERAL, {"size": None, "made": None, "quality": "medium", "output_format": "png", "background": None}),
        ({"n": 10, "size": Size(1920, 1088)}, GENERAL, {"per_call": 10, "made": Size(1920, 1088)}),
        ({"size": Shape(16, 9, "4K")}, GENERAL, {"size": Size(3840, 2160), "compromises": ()}),
        ({"output_format": "webp"}, GENERAL, {"output_format": "webp", "transcode": False}),
        ({"background": "opaque"}, GENERAL, {"background": "opaque"}),
        ({"passed": LOW_MODERATION}, GENERAL, {"passed": LOW_MODERATION, "dropped": ()}),
        ({"operation": "edit", "passed": LOW_MODERATION}, GENERAL, {"passed": (), "dropped": ("moderation",)}),
        (
            {"operation": "edit", "masked": True, "images": 16, "n": 3, "quality": "low"},
            GENERAL,
            {"per_call": 10, "quality": "low", "compromises": ()},
        ),
        ({"explicit": frozenset({"user"}), "end_user": "u"}, GENERAL, {"dropped": ("user",), "end_user": None}),
        (
            {"explicit": frozenset({"user", "safety_identifier"}), "end_user": "u"},
            GENERAL.change(passes_user=True),
            {"dropped": (), "end_user": "u"},
        ),
        ({"output_format": "jpeg", "output_compression": 40}, GENERAL, {"transcode": False, "compression": 40}),
        (
            {"output_format": "jpeg", "output_compression": 40},
            GENERAL.change(formats=("png",)),
            {"transcode": True, "compression": None},
        ),
        (
            {"background": "transparent", "output_format": "webp"},
            GENERAL.change(backgrounds=("transparent",), formats=("png",)),
            {"background": "transparent", "output_format": "png", "transcode": True},
        ),
        ({"output_format": "png"}, GENERAL.change(formats=("jpeg",)), {"output_format": "jpeg", "transcode": True}),
        ({"size": Size(1536, 1024)}, FIRST, {"made": Size(1536, 1024), "compromises": ()}),
        ({"size": Shape(16, 9, "2K")}, FIRST, {"size": Size(1536, 1024), "compromises": ("size",)}),
        ({}, FIRST.change(takes_auto_size=False), {"size": Size(1024, 1024), "compromises": ()}),
        ({"size": Shape(9, 16, "1K")}, FIRST.change(sizes=(Size(1024, 1024),)), {"made": Size(1024, 1024)}),
    ],
)
def test_openais_own_dialect_is_kept(asked: dict[str, Any], profile: Profile, expected: dict[str, Any]) -> None:
    """What OpenAI's specification takes is sent as it was asked for; what it cannot do is made here or told."""
    found = fit(make_job(**asked), profile)
    assert isinstance(found, Fit)
    assert {name: facts_of(found)[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("asked", "profile", "unfit"),
    [
        ({"background": "transparent"}, GENERAL, Unfit("it makes no transparent backgrounds", "background")),
        (
            {"background": "transparent"},
            GENERAL.change(backgrounds=("transparent",), formats=("jpeg",)),
            Unfit("it makes no transparent backgrounds", "background"),
        ),
        (
            {"size": Size(2048, 2048)},
            FIRST,
            Unfit("it makes only 1024x1024, 1536x1024, 1024x1536", "size"),
        ),
        (
            {"operation": "edit", "mask": replace(picture(), blob=Blob(4_000_000)), "images": 1},
            GENERAL,
            Unfit("its masks must be smaller than 4,000,000 bytes", "mask"),
        ),
    ],
)
def test_openais_own_refusals_are_readable(asked: dict[str, Any], profile: Profile, unfit: Unfit) -> None:
    """What the specification excludes has a reason and the field in the way."""
    assert fit(make_job(**asked), profile) == unfit


def test_listed_size_nearest_is_told() -> None:
    """An endpoint of few sizes is sent the nearest of them, for it would refuse another."""
    found = fit(make_job(size=Size(1920, 1088)), FIRST, allows_nearest=True)
    assert isinstance(found, Fit)
    assert (found.sent.size, found.made, found.compromises) == (Size(1536, 1024), Size(1536, 1024), ("size",))


@pytest.mark.parametrize(
    ("model", "exact"),
    [
        ("gpt-image-2", True),
        ("gpt-image-2-2026-04-21", True),
        ("openai/gpt-image-2", True),
        ("gpt-image-1.5", False),
        ("a-deployment", False),
    ],
)
def test_only_documented_models_make_any_size(model: str, exact: bool) -> None:
    """A model that nobody documented gets the three sizes that all of them make."""
    assert find_offer("openai", model, "default").profile.sizes == ("exact" if exact else THREE)
