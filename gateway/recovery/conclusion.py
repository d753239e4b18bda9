"""The end of a task whose worker is gone, from the evidence: the ledger, the task's record, its calls.

Idempotent, in any process. It settles nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway import errors
from gateway.catalogue import pricing
from gateway.delivery.intake import find_shortfall, find_stored
from gateway.delivery.outcome import CallEnd, Outcome, conclude, describe_sizes
from gateway.errors import PublicError
from gateway.history.record import CallFact, Record, describe_hold
from gateway.jobs.job import SQUARE, TokenUsage
from gateway.money.ledger_results import HeldCall, Hold, LedgerAnswer
from gateway.money.unknown_outcome import charge_of, state_after
from gateway.pictures.spool import StorageFullError
from gateway.services import Services
from gateway.state.call_store import CallNote, CallRecord, Receipt
from gateway.state.task_store import Promise, TaskImage, TaskRecord
from gateway.store.windows import MICROSECONDS
from gateway.upstreams.verdict import Executed, Verdict, classify

Calls = Mapping[str, CallRecord]

LOST = "lost"
"""The outcome of a call whose worker died, and of which nothing else is known."""

_KINDS: Mapping[type[PublicError], str] = {
    errors.ModerationBlocked: "policy",
    errors.InvalidValue: "refused",
    errors.UpstreamUnavailable: "credential",
    errors.UpstreamBadResponse: "bad_response",
    errors.UpstreamOutcomeUnknown: "unknown",
}
"""The kind of the verdict for which an error was kept. That of an UpstreamFailed depends on the call's execution."""


async def end_task(services: Services, hold: Hold) -> None:
    """Store the task's end, and write the request's record in the background. Raises StoreUnavailable.

    Does nothing while the task is open or one of its calls is awaited. A stored end stays, unless it is a guess.
    """
    calls = await services.calls.read([call.call for call in hold.calls])
    if hold.is_open or any(is_awaited(call, calls.get(call.call)) for call in hold.calls):
        return
    promise = Promise(key=hold.key, operation="generation", n=hold.images, created=hold.opened // MICROSECONDS)
    record = await services.task_store.read(hold.task) or TaskRecord(id=hold.task, promise=promise)
    # A refund of a guess does not change the end that the guess led to.
    is_refunded = all(call.state is LedgerAnswer.VOID for call in hold.calls)
    if record.end is None or (record.end.is_guess and not is_refunded):
        for image in await _find_images(services, hold.calls, calls):
            if all(image.slot != each.slot for each in record.images):
                record = record.with_image(image)
        outcome = conclude_dead(hold, record, calls, services.signing_key)
        record = await services.task_store.end(record.with_end(outcome.to_end(int(time.time()))))
    services.recorder.note(_describe(hold, record, calls, services.signing_key))


async def describe(services: Services, hold: Hold) -> Record:
    """Make the request's record of a task whose worker did not write it. It stores nothing. Raises StoreUnavailable."""
    calls = await services.calls.read([call.call for call in hold.calls])
    return _describe(hold, await services.task_store.read(hold.task), calls, services.signing_key)


def is_awaited(call: HeldCall, known: CallRecord | None) -> bool:
    """True when another process than the call's dead worker may still bring its pictures."""
    if call.state is not LedgerAnswer.HELD or known is None or known.note is None or known.error is not None:
        return False
    return known.is_collectable or known.note.is_called_back


def make_unknown_error() -> PublicError:
    """Make the error for a call without an answer whose worker died."""
    return errors.UpstreamOutcomeUnknown(
        "The gateway's process ended before the upstream answered: the call may have been billed, so it is not sent "
        "again.",
        should_retry=False,
    )


def conclude_dead(hold: Hold, record: TaskRecord, calls: Calls, signing_key: bytes) -> Outcome:
    """Return the outcome of a task whose worker is gone, with the images in its record."""
    ends, verdicts = _judge_calls(hold, calls, signing_key)
    is_sent = any(call.state is not LedgerAnswer.VOID for call in hold.calls)
    outcome = conclude(record.images, record.promise.n, ends, verdicts or [_explain_death(is_sent=is_sent)])
    has_error = any(call.error for call in calls.values())
    return replace(outcome, is_unstarted=not is_sent and not has_error)


def _describe(hold: Hold, record: TaskRecord | None, calls: Calls, signing_key: bytes) -> Record:
    """Return the request's record. Its `request` stays empty, so that the record of its own worker would replace it."""
    base = describe_hold(hold)
    if record is None:
        ends, _ = _judge_calls(hold, calls, signing_key)
        return base.model_copy(update={"calls": tuple(end.fact for end in ends)})
    promise, end = record.promise, record.end
    known: dict[str, Any] = {
        "key_name": promise.key_name,
        "operation": promise.operation,
        "model": promise.model,
        "end_user": promise.end_user,
        "size_asked": None if promise.size == "auto" else promise.size,
        "seconds": max(0.0, round(end.completed - hold.opened / MICROSECONDS, 3)) if end else 0.0,
    }
    outcome = conclude_dead(hold, record, calls, signing_key)
    if end is None:
        return outcome.describe(base.model_copy(update=known), errors.InternalError("The gateway's process ended."))
    # The end that stands may be another process's.
    error = errors.read_error(end.error) if end.error else None
    return replace(outcome, error=error).describe(base.model_copy(update=known))


def _judge_calls(hold: Hold, calls: Calls, signing_key: bytes) -> tuple[list[CallEnd], list[Verdict]]:
    """Return the end of each call, and the verdicts on failed calls."""
    ends: list[CallEnd] = []
    verdicts: list[Verdict] = []
    for call, fact in zip(hold.calls, describe_hold(hold).calls, strict=True):
        known = calls.get(call.call)
        verdict = _find_verdict(call, known, signing_key)
        verdicts += [verdict] if verdict else []
        ends.append(_describe_end(fact, call, known, verdict))
    # Less is known of a lost call than of any other, so it comes last.
    return ends, sorted(verdicts, key=lambda verdict: verdict.kind == LOST)


def _find_verdict(call: HeldCall, known: CallRecord | None, signing_key: bytes) -> Verdict | None:
    """Return the verdict on the call's failure; None if all its images came or nothing is known of a failure."""
    if call.state is LedgerAnswer.POSTED:
        if known is None or known.note is None or known.receipt is None:
            return None
        shortfall = find_shortfall(known.note, known.receipt, signing_key)
        return classify(shortfall, error_is_unbilled=False) if shortfall else None
    if known is not None and known.error is not None:
        return _read_verdict(call, known.error)
    # Of a void call without an error its worker knew more; the error is lost with it.
    return None if call.state is LedgerAnswer.VOID else _explain_death(is_sent=True)


def _read_verdict(call: HeldCall, facts: dict[str, Any]) -> Verdict:
    """Return the verdict for which an error was kept."""
    error = errors.read_error(facts)
    # An upstream that releases its unknown outcomes has void calls that may be billed.
    is_unknown = isinstance(error, errors.UpstreamOutcomeUnknown | errors.UpstreamBadResponse)
    is_unexecuted = call.state is LedgerAnswer.VOID and not is_unknown
    kind = _KINDS.get(type(error), "task_failed" if is_unexecuted else "not_collected")
    if facts == make_unknown_error().to_facts():
        kind = LOST
    executed = Executed.NO if is_unexecuted else Executed.UNKNOWN
    return Verdict(kind, executed, again=False, elsewhere=False, error=error)


def _explain_death(*, is_sent: bool) -> Verdict:
    """Return the verdict if nothing is known but that the worker died."""
    if is_sent:
        return Verdict(LOST, Executed.UNKNOWN, again=False, elsewhere=False, error=make_unknown_error())
    error = errors.UpstreamUnavailable(
        "The gateway's process ended before anything was sent; nothing was billed.", retry_after=1
    )
    return Verdict("kept_away", Executed.NO, again=False, elsewhere=True, error=error)


def _describe_end(fact: CallFact, call: HeldCall, known: CallRecord | None, verdict: Verdict | None) -> CallEnd:
    may_be_billed = call.state is not LedgerAnswer.VOID or (verdict is not None and verdict.executed is not Executed.NO)
    # A price that will be presumed counts in the task's end already, and in the request's record once it is booked.
    charge = charge_of(call.policy, call.price) if call.state is LedgerAnswer.HELD else call.usd
    if known is None or known.note is None:
        return CallEnd(fact, charge=charge, may_be_billed=may_be_billed)
    note, receipt = known.note, known.receipt if call.state is LedgerAnswer.POSTED else None
    is_unpriced = _is_unpriced(call, note, receipt)
    usage = next((each.usage for each in reversed(receipt.pictures) if each.usage), None) if receipt else None
    more: dict[str, Any] = {
        "upstream": note.upstream,
        "target": note.target,
        "outcome": "delivered" if fact.images else verdict.kind if verdict else fact.outcome,
        "usd": None if is_unpriced and call.state is not LedgerAnswer.HELD else fact.usd,
        "disputed": receipt.disputed if receipt else 0,
    }
    more |= describe_sizes(note.promised, receipt.sizes) if receipt else {}
    return CallEnd(
        fact.model_copy(update=more),
        charge=None if is_unpriced else charge,
        quality=note.quality,
        may_be_billed=may_be_billed,
        is_answered=receipt is not None,
        usage=TokenUsage(**usage) if usage else None,
        dropped=note.dropped if receipt else (),
    )


def _is_unpriced(call: HeldCall, note: CallNote, receipt: Receipt | None) -> bool:
    """True when the call is or will be charged, and the catalogue had no price for it when it was sent."""
    if receipt is not None:
        return receipt.usd is None
    is_presumed = call.state is LedgerAnswer.PRESUMED or (
        call.state is LedgerAnswer.HELD and state_after(call.policy) is LedgerAnswer.PRESUMED
    )
    return is_presumed and not call.price and pricing.bill(note.terms, [note.promised or SQUARE]).usd is None


async def _find_images(services: Services, held: Sequence[HeldCall], calls: Calls) -> list[TaskImage]:
    """Return the stored images of posted calls, which the task's record may lack.

    While the storage does not answer, all images count as stored.
    """
    found: list[TaskImage] = []
    for call in held:
        known = calls.get(call.call)
        if call.state is not LedgerAnswer.POSTED or not known or not known.receipt:
            continue
        try:
            stands = await find_stored(services, known.receipt)
        except StorageFullError:
            # The storage does not answer; a picture that is really missing would be the rarer case.
            stands = known.receipt
        found += stands.images if stands else ()
    return found
