"""The end of a task whose worker is gone, made from what is written down: the ledger, its record, its calls.

Called by `collecting` whenever something is settled. Idempotent, in any process; never settles anything itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gateway import errors
from gateway.delivery.intake import find_stored
from gateway.errors import PublicError
from gateway.history.record import CallFact, Record, describe_hold
from gateway.jobs.job import TokenUsage
from gateway.money.ledger_results import HeldCall, Hold, LedgerAnswer
from gateway.pictures.spool import StorageFullError
from gateway.services import Services
from gateway.state.call_store import CallRecord, Receipt
from gateway.state.task_store import End, Promise, TaskImage, TaskRecord
from gateway.store.windows import MICROSECONDS

Calls = Mapping[str, CallRecord]


async def conclude(services: Services, hold: Hold) -> None:
    """End the task's record, and tell the history, once no call is waited for. Raises StoreUnavailable."""
    calls = await services.calls.read([call.call for call in hold.calls])
    if hold.is_open or any(is_awaited(call, calls.get(call.call)) for call in hold.calls):
        return
    promise = Promise(key=hold.key, operation="generation", n=hold.images, created=hold.opened // MICROSECONDS)
    record = await services.task_store.read(hold.task) or TaskRecord(id=hold.task, promise=promise)
    accepted = [call for call in hold.calls if call.state is not LedgerAnswer.VOID]
    # A guess is not taken back because its money was.
    if record.end is None or (record.end.is_guess and accepted):
        for made in await _find_images(services, accepted, calls):
            if all(made.slot != each.slot for each in record.images):
                record = record.with_image(made)
        record = await services.task_store.end(record.with_end(_make_end(record, accepted, calls)))
    services.recorder.note(describe_task(hold, record, calls))


async def describe(services: Services, hold: Hold) -> Record:
    """What the history is told of a task whose worker could not tell it. Raises StoreUnavailable."""
    calls = await services.calls.read([call.call for call in hold.calls])
    return describe_task(hold, await services.task_store.read(hold.task), calls)


def is_awaited(call: HeldCall, known: CallRecord | None) -> bool:
    """Whether pictures of the call may still come by somebody else than its dead worker."""
    if call.state is not LedgerAnswer.HELD or known is None or known.note is None or known.error is not None:
        return False
    return known.is_collectable or known.note.is_called_back


def describe_task(hold: Hold, record: TaskRecord | None, calls: Calls) -> Record:
    """The record of a request whose worker is gone: `request` stays empty, so that its worker's own would outdo it."""
    told = describe_hold(hold)
    facts = tuple(_describe_call(fact, calls.get(fact.id)) for fact in told.calls)
    if record is None:
        return told.model_copy(update={"calls": facts})
    promise, end = record.promise, record.end
    error = errors.read_error(end.error) if end and end.error else None
    is_served = end is not None and bool(record.images)
    return told.model_copy(
        update={
            "calls": facts,
            "key_name": promise.key_name,
            "operation": promise.operation,
            "model": promise.model,
            "end_user": promise.end_user,
            "size_asked": None if promise.size == "auto" else promise.size,
            "sizes_made": tuple(each.size for each in record.images),
            "quality_sent": next((each.quality for each in record.images), None),
            "n_delivered": len(record.images),
            "seconds": max(0.0, round(end.completed - hold.opened / MICROSECONDS, 3)) if end else 0.0,
            "status": 200 if is_served else error.status if error else told.status,
            "error": error.code if error else None if is_served else told.error,
        }
    )


def _describe_call(fact: CallFact, known: CallRecord | None) -> CallFact:
    if known is None or known.note is None:
        return fact
    note, receipt = known.note, known.receipt
    outcome = "delivered" if fact.images else fact.outcome
    usd = receipt.usd if receipt and fact.state == "posted" else fact.usd
    return fact.model_copy(
        update={"upstream": note.upstream, "target": note.target, "outcome": outcome, "usd": usd},
    )


async def _find_images(services: Services, accepted: Sequence[HeldCall], calls: Calls) -> list[TaskImage]:
    """What was posted and is there, though the record may not have it."""
    found: list[TaskImage] = []
    for call in accepted:
        known = calls.get(call.call)
        if call.state is not LedgerAnswer.POSTED or not known or not known.receipt:
            continue
        try:
            stands = await find_stored(services, known.receipt)
        except StorageFullError:
            # The storage is away: a picture that is not there would be the rarer case.
            stands = known.receipt
        found += stands.images if stands else ()
    return found


def _make_end(record: TaskRecord, accepted: Sequence[HeldCall], calls: Calls) -> End:
    error = _choose_error(record, accepted, calls)
    dropped = dict.fromkeys(name for each in record.images for name in each.dropped)
    return End(
        status="succeeded" if record.images else "failed",
        completed=int(time.time()),
        calls=len(accepted),
        upstreams=tuple(dict.fromkeys(each.upstream for each in record.images)),
        dropped=tuple(dropped),
        usage=_add_usages(accepted, calls),
        spent=_sum(accepted, calls),
        error=error.to_facts() if error else None,
        is_unstarted=not accepted and not any(call.error for call in calls.values()),
        is_guess=any(call.state is not LedgerAnswer.POSTED for call in accepted),
    )


def _choose_error(record: TaskRecord, accepted: Sequence[HeldCall], calls: Calls) -> PublicError | None:
    """What the caller hears of slots that stayed empty: a refusal first, then what may have cost money."""
    if len(record.images) >= record.promise.n:
        return None
    found = [errors.read_error(call.error) for call in calls.values() if call.error]
    refusals = [error for error in found if isinstance(error, errors.ModerationBlocked | errors.InvalidValue)]
    if refusals or (found and not accepted):
        return (refusals or found)[0]
    if accepted:
        # Of the one that was looked for in vain more is known than that its process ended.
        doubts = (error for error in found if isinstance(error, errors.UpstreamOutcomeUnknown))
        return next(doubts, find_unknown())
    return errors.UpstreamUnavailable(
        "The gateway's process ended before anything was sent; nothing was billed.", retry_after=1
    )


def find_unknown() -> PublicError:
    """What is told of a call of which nobody knows what became."""
    return errors.UpstreamOutcomeUnknown(
        "The gateway's process ended while the request was out: it may have been billed, so it is not sent again.",
        should_retry=False,
    )


def _sum(accepted: Sequence[HeldCall], calls: Calls) -> int | None:
    """µ$; what is held for a call that will be presumed counts already."""
    receipts: list[Receipt | None] = [known.receipt if (known := calls.get(call.call)) else None for call in accepted]
    is_unpriced = (receipt is not None and receipt.usd is None for receipt in receipts)
    if any(is_unpriced):
        return None
    return sum(
        call.price if call.state is LedgerAnswer.HELD and call.policy == "presume" else call.usd for call in accepted
    )


def _add_usages(accepted: Sequence[HeldCall], calls: Calls) -> dict[str, Any] | None:
    """What the upstreams counted; nothing where one of them did not."""
    usages: list[TokenUsage] = []
    for call in accepted:
        known = calls.get(call.call)
        if call.state is not LedgerAnswer.POSTED or known is None or known.receipt is None:
            continue
        told = next((each.usage for each in reversed(known.receipt.images) if each.usage), None)
        if told is None:
            return None
        usages.append(TokenUsage(**told))
    return asdict(sum(usages[1:], usages[0])) if usages else None
