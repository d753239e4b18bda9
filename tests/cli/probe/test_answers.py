"""What replies to a probe mean: each answer, either way, and no guess where a reply does not tell."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from gateway.catalogue.catalogue import Target
from gateway.cli.probe.answers import (
    Seen,
    read_balance,
    read_edit_quality,
    read_mask,
    read_models,
    read_n,
    read_plain,
    read_price,
    read_snapping,
    read_webp,
)
from gateway.jobs.job import Size, TokenUsage
from gateway.upstreams.verdict import Failure
from tests.support.plans import shipped

SMALL = Size(1024, 640)


def target(name: str = "anyfast", **prices: Any) -> Target:
    catalogue = shipped(has_prices=True)
    found = next(one for one in catalogue.targets if one.upstream == name)
    if not prices or found.prices is None:
        return found
    return replace(found, prices=found.prices.model_copy(update=prices))


def made(*sizes: Size, form: str = "png", **more: Any) -> Seen:
    return Seen(submitted={}, pictures=tuple((form, size) for size in sizes), **more)


def refused(param: str | None, status: int = 400, **more: Any) -> Seen:
    return Seen(failure=Failure("status", status=status, spoke=True, code="no", message="no", param=param, **more))


def test_n_is_read() -> None:
    """Two images are a yes, one is a no, and so is a refusal of `n`."""
    assert read_n(made(SMALL, SMALL), target()).capabilities == {"max_n": 10}
    one = read_n(made(SMALL), target())
    assert (one.verdict, one.capabilities) == ("no", {"max_n": 1})
    for answer in (refused("n"), refused("n", 403), refused(None)):
        assert read_n(answer, target()).capabilities == {"max_n": 1}


def test_mask_is_read() -> None:
    """A picture is a yes and tells its form; a refusal of the mask is a no."""
    yes = read_mask(made(SMALL, in_answer=True), target())
    assert (yes.verdict, yes.capabilities) == ("yes", {"masks": True})
    assert yes.words[0] == "it takes a mask, and answers at once, in the answer itself"
    assert "as a task, as a link" in read_mask(made(SMALL, ended={}), target()).words[0]
    assert read_mask(refused("mask", 403), target()).capabilities == {"masks": False}


@pytest.mark.parametrize(
    ("tokens", "verdict", "is_taken"), [(107, "yes", True), (957, "no", False), (None, "yes", True)]
)
def test_edit_quality_is_read(tokens: int | None, verdict: str, is_taken: bool) -> None:
    """A quality that is taken and not heeded is a no: the tokens of the bill tell."""
    usage = None if tokens is None else TokenUsage(1, tokens, tokens + 1)
    learned = read_edit_quality(made(SMALL, usage=usage), target())
    assert (learned.verdict, learned.capabilities) == (verdict, {"edit_quality": is_taken})


def test_webp_is_read_from_bytes() -> None:
    """WebP is a yes only where the bytes are WebP."""
    assert read_webp(made(SMALL, form="webp"), target()).capabilities == {"formats": ["png", "jpeg", "webp"]}
    assert read_webp(made(SMALL), target()).capabilities == {"formats": ["png", "jpeg"]}
    assert read_webp(refused("output_format"), target()).capabilities == {"formats": ["png", "jpeg"]}


def test_snapping_is_read() -> None:
    """The nearest is a yes; another of the seven is a no, with the list; anything else is unclear."""
    asked = Size(1600, 1024)
    assert read_snapping(asked, made(Size(1536, 1024)), target("apiany")).verdict == "yes"
    covering = read_snapping(asked, made(Size(2048, 1152)), target("apiany"))
    assert covering.verdict == "no"
    assert covering.capabilities["sizes"][:2] == ["auto", "1024x1024"]
    assert len(covering.capabilities["sizes"]) == 8
    strange = read_snapping(asked, made(asked), target("apiany"))
    assert (strange.verdict, strange.capabilities) == ("unclear", {})


@pytest.mark.parametrize(
    "answer",
    [
        Seen(failure=Failure("status", status=400, spoke=True, code="content_policy", message="no")),
        Seen(failure=Failure("status", status=429, spoke=True)),
        Seen(failure=Failure("status", status=502, message="html")),
        Seen(failure=Failure("status", status=404, message="html")),
        Seen(failure=Failure("read", message="reset")),
        Seen(failure=Failure("prepare", status=400, message="the upload failed")),
        Seen(failure=Failure("body", message="no image in it")),
        Seen(submitted={"data": []}),
    ],
    ids=lambda seen: str(seen.failure),
)
def test_other_failures_are_no_answer(answer: Seen) -> None:
    """A refusal of something else, a failure and a proxy's page say nothing of what was asked."""
    for read in (read_plain, read_n, read_mask, read_edit_quality, read_webp):
        learned = read(answer, target())
        assert (learned.verdict, learned.capabilities) == ("unclear", {})


def test_refusal_of_another_field_is_no_answer() -> None:
    """Where a refusal names another field, nothing is concluded of the one that was asked about."""
    for read in (read_n, read_mask, read_edit_quality, read_webp):
        learned = read(refused("prompt"), target())
        assert (learned.verdict, learned.capabilities) == ("unclear", {})


@pytest.mark.parametrize(("phase", "is_said"), [("read", True), ("body", True), ("connect", False)])
def test_possible_bill_is_told(phase: Any, is_said: bool) -> None:
    """Where a call may have been billed, the words say so."""
    learned = read_plain(Seen(failure=Failure(phase, message="gone")), target())
    assert ("may have been billed" in learned.words[0]) is is_said


def test_plain_answer_is_described() -> None:
    """Tokens, size, form and what was made are told."""
    seen = made(SMALL, in_answer=True, usage=TokenUsage(5, 107, 112), seconds=1.25)
    words = read_plain(Seen(submitted={"size": "1024x640"}, pictures=seen.pictures, usage=seen.usage), target()).words
    assert "pictures come as links" in words
    assert "it reports `usage`: 107 output tokens" in words
    assert "it reports `size`: 1024x640" in words
    assert read_plain(seen, target()).words[-1] == "it made 1024x640 png in 1.2 s"


def test_price_is_read_from_balance() -> None:
    """Credits become dollars by the catalogue's rate, and the price at 1K is corrected where it is another."""
    square = Size(1024, 1024)
    seen = made(square, ended={"credits": {"charged": 99}}, balances=(Decimal(1000), Decimal(980)))
    learned = read_price(seen, target("apiany"))
    assert "the ended task reports credits: charged 99" in learned.words
    assert "an image took 20 credits" in learned.words
    assert "that is $0.020000 at $1.00 for a thousand" in learned.words
    assert learned.prices == {"by_size": {"any": {"1K": "0.02", "2K": "0.03", "4K": "0.06"}}}
    agreed = read_price(made(square, ended={"credits": {"charged": 15}}), target("apiany"))
    assert (agreed.verdict, agreed.prices) == ("yes", {})
    unknown = read_price(seen, target("apiany", per_thousand_credits=None))
    assert "per_thousand_credits" in unknown.words[-1]
    assert unknown.prices == {}


def test_free_answers_are_read() -> None:
    """The list of models and the balance, as they should be and otherwise."""
    listed = read_models(Seen(submitted={"data": [{"id": "gpt-image-2", "pricing": {"1K": 15}}, 7]}), target())
    assert (listed.verdict, listed.words[1]) == ("yes", "its list says of the price: {'1K': 15}")
    other = read_models(Seen(submitted={"data": [{"id": "other"}]}), target())
    assert (other.verdict, other.words) == ("no", ("its list has no gpt-image-2; it has other",))
    assert read_models(Seen(submitted=[]), target()).verdict == "no"
    assert read_balance(Seen(submitted={"credits": 12.5}), target()).words == ("12.5 credits are left",)
    assert read_balance(Seen(submitted={}), target()).verdict == "unclear"
