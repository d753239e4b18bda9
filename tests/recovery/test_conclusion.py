"""The end of a dead worker's task is the one that its worker would have written, as far as there is evidence."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from gateway import errors
from gateway.catalogue.pricing import Prices
from gateway.delivery.outcome import Outcome
from gateway.errors import PublicError
from gateway.money.ledger_results import AMOUNTS, HeldCall, Hold, LedgerAnswer, Policy
from gateway.recovery.conclusion import LOST, conclude_dead, make_unknown_error
from gateway.state.call_store import CallNote, CallRecord, Receipt
from gateway.state.task_store import Promise, TaskImage, TaskRecord
from tests.support.ledgers import make_id

TASK, KEY = make_id("task", 1), b"k" * 32
PRICED = Prices.model_validate({"per_image": "0.01"})
USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "text_tokens": 1, "image_tokens": 0}


def image(slot: int, **more: Any) -> TaskImage:
    facts = {
        "format": "png",
        "width": 1024,
        "height": 1024,
        "bytes": 1,
        "created": 1,
        "expires": 2,
        "upstream": "apiany",
    }
    return TaskImage.model_validate({"slot": slot, "artifact": make_id("img", slot) + ".png"} | facts | more)


def call(number: int, state: LedgerAnswer, policy: Policy = "presume", price: int = 10, slots: int = 1) -> HeldCall:
    usd = price if state in (LedgerAnswer.POSTED, LedgerAnswer.PRESUMED) else 0
    images = slots if usd else 0
    return HeldCall(make_id("call", number), state, price, usd, images, slots, 1, policy)


def know(
    one: HeldCall, first: int = 0, receipt: Receipt | None = None, error: PublicError | None = None, **note: Any
) -> CallRecord:
    slots = tuple(range(first, first + one.slots))
    facts = {"upstream": "apiany", "credential": "main", "slots": slots, "prices": PRICED, "given": Decimal(0)} | note
    made = CallNote.model_validate(facts)
    return CallRecord(one.call, TASK, made, receipt=receipt, error=error.to_facts() if error else None)


def conclude(n: int, calls: list[HeldCall], known: list[CallRecord], *images: TaskImage) -> Outcome:
    hold = Hold(
        task=TASK,
        key=make_id("key", 1),
        team="",
        worker=make_id("worker", 1),
        fence=2,
        state="closed",
        opened=1_000_000,
        windows=("", "", ""),
        images=n,
        free=0,
        amounts=dict.fromkeys(AMOUNTS, 0),
        calls=tuple(calls),
    )
    promise = Promise(key=hold.key, operation="generation", n=n, created=1)
    record = TaskRecord(id=TASK, promise=promise, images=images)
    return conclude_dead(hold, record, {one.id: one for one in known}, KEY)


def test_missing_images_are_told() -> None:
    """A paid call that brought fewer images than it has slots is reported so, not as an unknown outcome."""
    one = call(1, LedgerAnswer.POSTED, slots=2)
    outcome = conclude(2, [one], [know(one, receipt=Receipt(usd=10, images=(image(0),)))], image(0))
    assert isinstance(outcome.error, errors.UpstreamBadResponse)
    assert "1 of 2 images came" in outcome.error.message
    assert outcome.to_end(1).status == "succeeded"


def test_withheld_picture_is_told_with_its_link() -> None:
    """A picture of an unwanted size is paid for and kept: the error says where, and its tokens count."""
    one = call(1, LedgerAnswer.POSTED)
    kept = image(0, width=512, height=512, usage=USAGE, dropped=("seed",))
    known = know(one, receipt=Receipt(usd=10, images=(), withheld=(kept,)), size="1024x1024", dropped=("seed",))
    outcome = conclude(1, [one], [known])
    assert isinstance(outcome.error, errors.UpstreamBadResponse)
    assert "it made 512x512 in place of 1024x1024, which is kept at /" in outcome.error.message
    end = outcome.to_end(1)
    assert (end.usage, end.dropped) == (USAGE, ("seed",))
    assert (outcome.calls[0].fact.promised, outcome.calls[0].fact.made) == ("1024x1024", ("512x512",))


@pytest.mark.parametrize("policy", ["presume", "hold"])
def test_undownloaded_picture_is_told(policy: Policy) -> None:
    """What an adopter found out of a call is reported, though nobody knows whether it was billed."""
    state = LedgerAnswer.PRESUMED if policy == "presume" else LedgerAnswer.HELD
    one = call(1, state, policy)
    error = errors.UpstreamFailed("The upstream made the image, but it could not be downloaded.")
    outcome = conclude(1, [one], [know(one, error=error)])
    assert isinstance(outcome.error, errors.UpstreamFailed)
    assert outcome.calls[0].fact.outcome == "not_collected"
    end = outcome.to_end(1)
    assert (end.calls, end.is_guess, end.spent) == (1, True, 10 if policy == "presume" else 0)


def test_failed_task_is_told_beside_a_paid_call() -> None:
    """A call that failed for nothing is reported as that, though another call of the task was paid."""
    paid, failed = call(1, LedgerAnswer.POSTED), call(2, LedgerAnswer.VOID)
    known = [
        know(paid, receipt=Receipt(usd=10, images=(image(0),))),
        know(failed, 1, error=errors.UpstreamFailed("The upstream's task failed.")),
    ]
    outcome = conclude(2, [paid, failed], known, image(0))
    assert isinstance(outcome.error, errors.UpstreamFailed)
    assert [one.fact.outcome for one in outcome.calls] == ["delivered", "task_failed"]


def test_policy_goes_before_other_refusals() -> None:
    """A refusal by a safety system is reported before an invalid value, whichever came first."""
    first, second = call(1, LedgerAnswer.VOID), call(2, LedgerAnswer.VOID)
    known = [know(first, error=errors.InvalidValue("no")), know(second, 1, error=errors.ModerationBlocked("no"))]
    assert isinstance(conclude(2, [first, second], known).error, errors.ModerationBlocked)


def test_released_call_may_be_billed() -> None:
    """A call whose unknown outcome was released counts as one that may have been billed."""
    one = call(1, LedgerAnswer.VOID, "release")
    end = conclude(1, [one], [know(one, error=errors.UpstreamOutcomeUnknown("expired"))]).to_end(1)
    assert (end.calls, end.spent, end.is_guess, end.is_unstarted) == (1, 0, False, False)


@pytest.mark.parametrize("state", [LedgerAnswer.PRESUMED, LedgerAnswer.HELD])
def test_presumed_call_without_a_price(state: LedgerAnswer) -> None:
    """The price of a presumed call is unknown where the catalogue has none, and not zero."""
    one = call(1, state, price=0)
    assert conclude(1, [one], [know(one, prices=None)]).spent is None
    assert conclude(1, [one], [know(one)]).spent == 0


def test_lost_call_is_unknown() -> None:
    """Of a call without any evidence nothing is known but that its worker died; better evidence goes before."""
    lost, expired = call(1, LedgerAnswer.PRESUMED), call(2, LedgerAnswer.PRESUMED)
    outcome = conclude(1, [lost], [know(lost, error=make_unknown_error())])
    assert outcome.error is not None
    assert outcome.error.to_facts() == make_unknown_error().to_facts()
    assert (outcome.calls[0].fact.outcome, outcome.spent) == (LOST, 10)
    both = conclude(2, [lost, expired], [know(lost), know(expired, 1, error=errors.UpstreamOutcomeUnknown("expired"))])
    assert both.error is not None
    assert both.error.message == "expired"


def test_unsent_task_is_unstarted() -> None:
    """A task for which nothing was sent can be begun anew, and costs nothing."""
    end = conclude(1, [], []).to_end(1)
    assert (end.is_unstarted, end.calls, end.spent) == (True, 0, 0)


def test_last_quality_is_recorded() -> None:
    """Of several calls the record tells the quality of the last one."""
    first, second = call(1, LedgerAnswer.POSTED), call(2, LedgerAnswer.POSTED)
    receipts = [Receipt(usd=10, images=(image(slot, quality="low"),)) for slot in (0, 1)]
    known = [know(first, receipt=receipts[0], quality="low"), know(second, 1, receipts[1], quality="high")]
    assert [one.quality for one in conclude(2, [first, second], known).calls] == ["low", "high"]
