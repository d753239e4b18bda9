"""A probe's questions: what each may cost, which there are for whom, and what an answer changes in the catalogue."""

from dataclasses import replace

import pytest

from gateway.catalogue.catalogue import Target
from gateway.catalogue.vendors import THREE, find_offer
from gateway.cli.probe.answers import Learned, Seen
from gateway.cli.probe.questions import choose, cost_at_most, ends, find_changes, questions_of
from gateway.dollars import show_usd
from gateway.jobs.job import Size
from gateway.upstreams.verdict import Failure
from tests.support.plans import shipped

TARGETS = {one.upstream: one for one in shipped(has_prices=True).targets}


def costs(target: Target) -> dict[str, str]:
    found = {one.name: cost_at_most(one, target) for one in questions_of(target)}
    return {name: "unknown" if cost is None else show_usd(cost) for name, cost in found.items()}


def test_cost_is_by_the_dearest_answer() -> None:
    """A question costs what the dearest of its possible pictures does; a free one nothing."""
    assert costs(TARGETS["apiany"]) == {
        "models": "0.000000",
        "balance": "0.000000",
        "price": "0.015000",
        "n": "0.030000",
        "edit-quality": "0.015000",
        "mask": "0.015000",
        "snapping": "0.030000",
        "tall": "0.060000",
    }
    assert set(costs(TARGETS["anyfast-c"]).values()) == {"0.000000", "0.030000", "0.060000"}
    official = costs(TARGETS["anyfast"])
    # By OpenAI's formula 107 tokens at low; an edit whose quality nobody promises may be made at high.
    assert float(official["plain"]) == pytest.approx(107 * 30e-6, abs=0.0003)
    assert float(official["mask"]) > 3824 * 30e-6


def test_cost_without_prices_is_unknown() -> None:
    """Where the catalogue has no prices, no question's cost is guessed."""
    target = next(one for one in shipped().targets if one.upstream == "anyfast")
    assert {name for name, cost in costs(target).items() if cost == "unknown"} == {
        *("plain", "n", "webp", "edit-quality", "mask")
    }


@pytest.mark.parametrize("name", TARGETS)
def test_free_questions_come_first(name: str) -> None:
    """What is free is asked before anything is paid, and then an ordinary picture, without which nothing tells."""
    questions = questions_of(TARGETS[name])
    free = [one.is_free for one in questions]
    assert free == sorted(free, reverse=True)
    paid = [one for one in questions if not one.is_free]
    assert [one.is_control for one in paid] == [True] + [False] * (len(paid) - 1)


def test_questions_keep_to_listed_sizes() -> None:
    """An upstream that takes only some sizes is asked for the smallest of them."""
    profile = find_offer("openai", "gpt-image-1", "default").profile
    target = replace(TARGETS["anyfast"], profile=profile)
    jobs = [one.job for one in questions_of(target) if one.job]
    assert {job.size for job in jobs} == {THREE[0]}
    assert {(one.width, one.height) for job in jobs for one in job.references} == {(1024, 1024)}
    (masked,) = [job.mask for job in jobs if job.mask]
    assert Size(masked.width, masked.height) == THREE[0]


def test_unknown_question_names_the_others() -> None:
    """A question that is not there is refused with those that are."""
    questions = questions_of(TARGETS["anyfast"])
    assert [one.name for one in choose(questions, ["mask", "models"])] == ["models", "mask"]
    with pytest.raises(ValueError, match=r"no question 'tall' here; there are models, plain, n"):
        choose(questions, ["tall"])


def test_only_changes_are_written() -> None:
    """What the catalogue says already is left out, and so is a bound of the operator's own on n."""
    profile = find_offer("anyfast", "gpt-image-2", "direct").profile.change(max_n=4)
    learned = [
        Learned("yes", (), {"max_n": 10}),
        Learned("yes", (), {"masks": True}),
        Learned("no", (), {"formats": ["png", "jpeg"]}),
        Learned("yes", (), {"edit_quality": True}),
    ]
    assert find_changes(learned, profile) == {"edit_quality": True}
    assert find_changes(learned, profile.change(max_n=1, masked_references=0)) == {
        "max_n": 10,
        "masks": True,
        "edit_quality": True,
    }


@pytest.mark.parametrize(
    ("failure", "is_end"),
    [
        (None, False),
        (Failure("status", status=400, spoke=True), False),
        (Failure("status", status=403, spoke=True), False),
        (Failure("status", status=401, spoke=True), True),
        (Failure("status", status=402, spoke=True), True),
        (Failure("read"), True),
        (Failure("connect"), True),
        (Failure("status", status=504), True),
    ],
    ids=str,
)
def test_hopeless_probe_ends(failure: Failure | None, is_end: bool) -> None:
    """A refused key, silence and an outcome nobody knows end a probe; a no to one question does not."""
    question = questions_of(TARGETS["anyfast"])[-1]
    assert ends(question, Seen(failure=failure), Learned("no", ())) is is_end


def test_probe_needs_an_ordinary_picture() -> None:
    """Where even a plain picture is not made, no other answer would tell anything."""
    plain = next(one for one in questions_of(TARGETS["anyfast"]) if one.is_control)
    assert ends(plain, Seen(), Learned("no", ()))
    assert not ends(plain, Seen(), Learned("yes", ()))
