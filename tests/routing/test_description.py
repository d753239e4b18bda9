"""A Plan as people and programs read it: prices, what the gateway does for it, and what it tells of a compromise."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dollars import parse_usd, show_usd
from gateway.errors import InsufficientQuota
from gateway.jobs.job import Shape, Size
from gateway.routing.description import describe_plan
from tests.support.plans import make_job, plan, shipped


def quoted(has_prices: bool = True, **asked: Any) -> dict[str, Any]:
    job = make_job(**asked)
    return describe_plan(plan(job, shipped(has_prices=has_prices)), job, "gpt-image-2")


@pytest.mark.parametrize(
    ("upstream", "asked", "told"),
    [
        ("apiany", {"size": Size(1024, 1024)}, []),
        ("anyfast-c", {"size": Size(1024, 1024), "n": 3}, ["3 calls"]),
        ("apiany", {"operation": "edit", "masked": True, "n": 2}, ["2 calls"]),
        ("anyfast", {"size": Size(1024, 1024), "n": 3, "output_format": "webp"}, ["converted to webp here"]),
        ("apiany", {"size": Size(1024, 1024), "output_format": "jpeg"}, ["converted to jpeg here"]),
    ],
    ids=str,
)
def test_plan_tells_what_is_done_for_it(upstream: str, asked: dict[str, Any], told: list[str]) -> None:
    """Calls and conversions are told where there are any."""
    found = next(one for one in quoted(**asked)["choices"] if one["upstream"] == upstream)
    assert found["compensation"] == told


@pytest.mark.parametrize(
    ("size", "asked", "made"),
    [(Size(1920, 1088), "1920x1088", "2048x1152"), (Shape(7, 5, "1K"), "1536x1104", "1536x1024")],
)
def test_other_size_is_told(size: Size | Shape, asked: str, made: str) -> None:
    """Where another size would be made, both stand in the Plan."""
    job = make_job(size=size)
    catalogue = shipped(sizes="nearest", upstreams=["apiany"])
    (found,) = describe_plan(plan(job, catalogue), job, "gpt-image-2")["choices"]
    assert (found["size"], found["compensation"]) == (made, [f"{made} in place of {asked}"])


def test_calls_of_several_are_told() -> None:
    """An upstream that takes fewer at once than were asked for says how many a call has."""
    job = make_job(n=10)
    catalogue = shipped(capabilities={"max_n": 4})
    found = describe_plan(plan(job, catalogue), job, "gpt-image-2")["choices"][-1]
    assert (found["calls"], found["images_per_call"], found["compensation"]) == (3, 4, ["3 calls of up to 4"])


def test_unknown_is_null() -> None:
    """A price that is not known, and a size that only the upstream knows, are null and not guessed."""
    found = quoted(has_prices=False)
    unpriced = next(one for one in found["choices"] if one["upstream"] == "apiany")
    assert [unpriced[name] for name in ("price_usd", "price_per_image_usd", "held_usd", "size")] == [None] * 4
    assert found["note"]


def test_held_is_the_most_it_may_cost() -> None:
    """What a limit must have room for is told beside what is expected: here the untold quality may be high."""
    job = make_job("edit", n=2)
    found = plan(job, shipped(has_prices=True), "anyfast/gpt-image-2")
    (told,) = describe_plan(found, job, "anyfast/gpt-image-2")["choices"]
    quote = found.choices[0].quote
    assert quote
    assert told["held_usd"] == show_usd(2 * quote.ceiling)
    assert parse_usd(told["held_usd"]) > 2 * parse_usd(told["price_usd"])


def test_what_was_asked_stands_beside_it() -> None:
    """The Plan repeats the request, so that it can be read alone."""
    found = quoted(operation="edit", images=2, n=2)
    assert {name: found[name] for name in ("operation", "n", "size", "quality", "references", "mask")} == {
        "operation": "edit",
        "n": 2,
        "size": "auto",
        "quality": "auto",
        "references": 2,
        "mask": False,
    }


def test_refusal_is_openais() -> None:
    """What the limits would say is an error in OpenAI's shape."""
    job = make_job()
    found = describe_plan(plan(job), job, "gpt-image-2", InsufficientQuota("No money is left."))
    assert found["refusal"] == {
        "message": "No money is left.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
