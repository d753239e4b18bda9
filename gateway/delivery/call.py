"""One paid call, from its mark as sent to its settlement. The ledger has the mark before the call's first byte.

This module classifies each failure and records it in the slots' progress. It never chooses a target.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import structlog

from gateway import errors
from gateway.delivery.bridge import Bridge, PollSchedule
from gateway.delivery.callbacks import CallbackListener, listen
from gateway.delivery.intake import Intake, make_note
from gateway.delivery.outcome import CallEnd, SlotProgress, describe_sizes, not_sent
from gateway.errors import PublicError
from gateway.health import health
from gateway.health.health import CallReport, Permit
from gateway.history.record import CallFact, SettledState
from gateway.jobs.job import Call, ImageJob, Inputs, TokenUsage
from gateway.money.ledger_results import LedgerAnswer
from gateway.money.reservation import Reservation, make_mark
from gateway.money.unknown_outcome import state_after
from gateway.pictures.spool import Spool
from gateway.routing.plan import Choice, Plan, split_job
from gateway.services import Services
from gateway.state.call_store import CallNote, Receipt
from gateway.state.task_store import TaskImage
from gateway.store.client import Command
from gateway.upstreams.verdict import CallFailed, Executed, Failure, Verdict, classify

OnImage = Callable[[TaskImage], None]

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class PaidCall:
    """One paid call at a target, its result and its failures so far. `began` is monotonic seconds."""

    choice: Choice
    call: Call
    permit: Permit
    note: CallNote
    began: float = field(default_factory=time.monotonic)
    receipt: Receipt | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    usage: TokenUsage | None = None
    is_answered: bool = False
    is_marked: bool = False

    @property
    def is_unexecuted(self) -> bool:
        """True when neither a receipt nor a failure shows that the upstream may have executed the call."""
        return self.receipt is None and all(one.executed is Executed.NO for one in self.verdicts)


@dataclass(frozen=True, slots=True)
class FirstCall:
    """The first call of a task, whose permit is taken in the step that opens the task.

    The step also marks the call if it is `paid`, with its `inputs`: a job without pictures has nothing to convert or to
    upload before it is sent. `calls` are all calls of the job at the first target.
    """

    permit: Permit
    calls: list[Call]
    paid: PaidCall | None = None
    inputs: Inputs | None = None

    def make_steps(self, services: Services, task: str) -> tuple[Command[Any], ...]:
        """The commands that take the permit, and mark the call if it is paid."""
        paid, taking = self.paid, services.health.make_take(self.permit)
        if paid is None:
            return (taking,)

        def note_mark(answer: LedgerAnswer) -> None:
            paid.is_marked = answer is LedgerAnswer.HELD

        policy = paid.choice.target.config.unknown_outcome
        return taking, make_mark(services.books, task, paid.call, paid.choice.quote, policy, paid.note, note_mark)

    def make_undo(self, services: Services, task: str) -> tuple[Command[Any], ...]:
        """The commands that undo the mark, if the call is paid. The permit ends with its lease."""
        return () if self.paid is None else (services.ledger.make_nack(task, self.paid.call.id),)


async def prepare_first(services: Services, job: ImageJob, plan: Plan, task: str, spool: Spool) -> FirstCall | None:
    """Prepare the first call of a task that is not open yet. Returns None if other calls wait for its target.

    A plan with a refusal can only join, so it has no first call.
    """
    if plan.refusal or not plan.choices or services.concurrency_queue.is_awaited(plan.choices[0].target):
        return None
    choice = plan.choices[0]
    permit, calls = Permit(choice.target, choice.target.key_digest), split_job(job, choice.fit, range(job.n))
    if job.references:
        return FirstCall(permit, calls)
    inputs = await services.upstreams[choice.target.label].prepare(job, spool)
    return FirstCall(permit, calls, _make_paid(services, job, task, choice, calls[0], permit, inputs), inputs)


def _make_paid(  # noqa: PLR0913 (the parts of a call)
    services: Services, job: ImageJob, task: str, choice: Choice, call: Call, permit: Permit, inputs: Inputs
) -> PaidCall:
    """Make the call with its note, and with a callback URL if callbacks are on and its vendor takes one."""
    if inputs.takes_callback and (callbacks := services.callbacks):
        address = callbacks.address(choice.target.config.kind, task, call.id)
        call = replace(call, callback_url=address)
    tolerance = services.catalogue.document.accounting.bill_tolerance
    return PaidCall(choice, call, permit, make_note(job, choice, call, tolerance))


@dataclass(frozen=True, slots=True)
class CallSender:
    """The paid calls of one task. `reservation` marks each as sent first; `on_image` gets each image once it is
    charged.
    """

    services: Services
    job: ImageJob
    spool: Spool
    reservation: Reservation
    on_image: OnImage
    progress: SlotProgress

    async def send(self, choice: Choice, call: Call, permit: Permit, inputs: Inputs) -> None:
        """Mark one call as sent, send it, store its pictures and settle it. The permit is returned in every case.

        A call that cannot be marked is not sent; the progress has the reason.
        """
        task = self.reservation.task
        await self.send_paid(_make_paid(self.services, self.job, task, choice, call, permit, inputs), inputs)

    async def send_paid(self, paid: PaidCall, inputs: Inputs) -> None:
        """Send a call as `send` does. One that is marked already, and may not be sent, is void again."""
        task, permit = self.reservation.task, paid.permit
        report = CallReport("none")
        try:
            if await self._mark(paid):
                self.services.shutdown.hold(task, paid.call.id)
                try:
                    await self._complete(paid, inputs)
                    report = await self._settle(paid)
                finally:
                    self.services.shutdown.release(task, paid.call.id)
        finally:
            self.services.concurrency_queue.finish(permit, report)

    async def drop(self, first: FirstCall) -> None:
        """Return the permit of a call that is not sent. If it is marked, it is void again."""
        if first.paid and first.paid.is_marked:
            await self.reservation.nack(first.paid.call)
        self.services.concurrency_queue.finish(first.permit, CallReport("none"))

    def is_stopped(self) -> bool:
        """True when nothing more is sent for the task.

        During a shutdown it ends a task that has no image yet and no call that only this process can finish: it adds a
        verdict and sets `progress.is_over`.
        """
        progress = self.progress
        if self.services.shutdown.forbids(self.reservation.task) and not progress.images and not progress.is_over:
            progress.verdicts.append(not_sent(errors.shutting_down()))
            progress.is_over = True
        return progress.is_over

    def judge(self, choice: Choice, failure: Failure, slots: Sequence[int]) -> Verdict:
        """Classify a failure of these slots, record it in the progress and as drift, log it, and return the verdict."""
        target = choice.target
        config = target.config
        verdict = classify(
            failure,
            error_is_unbilled=config.error_is_unbilled,
            refusal_is_unbilled=config.refusal_is_unbilled,
            failed_task_is_unbilled=config.failed_task_is_unbilled,
        )
        self.progress.note_failure(slots, target.label, verdict)
        if verdict.drift:
            unknown = "model" if verdict.kind == "missing" else None
            self.services.drift.note(target.upstream, "refused", failure.param or unknown)
        _log.warning(
            "call failed",
            upstream=target.label,
            verdict=verdict.kind,
            executed=verdict.executed.value,
            # Not the vendor's message: it may quote the prompt.
            phase=failure.phase,
            status=failure.status,
            code=failure.code,
            **({"leads_to": failure.leads_to} if failure.leads_to else {}),
        )
        return verdict

    async def _mark(self, paid: PaidCall) -> bool:
        """Mark the call as sent in the ledger. Returns False if it may not be sent; then the progress is over."""
        choice, call, progress = paid.choice, paid.call, self.progress
        if self.is_stopped():
            if paid.is_marked:
                await self.reservation.nack(call)
            return False
        for slot in call.slots:
            progress.sent[slot] = progress.sent.get(slot, 0) + 1
        try:
            if not paid.is_marked:
                await self.reservation.mark_sent(call, choice.quote, choice.target.config.unknown_outcome, paid.note)
        except PublicError as error:
            # A call without a mark is not sent.
            progress.verdicts.append(Verdict("not_marked", Executed.NO, again=False, elsewhere=False, error=error))
            progress.is_over = True
            return False
        progress.note_asked(call.slots, choice.target.label)
        self.services.retries.note_call()
        return True

    async def _complete(self, paid: PaidCall, inputs: Inputs) -> None:
        """Send the call, and store its pictures with their receipt; every failure gets a verdict."""
        choice, call = paid.choice, paid.call
        self.spool.expect_paid()
        try:
            with self._listen(paid) as listener:
                bridge = self._open_bridge(paid, listener)
                keep = partial(self.reservation.keep, call, paid.note)
                collected = await bridge.complete(call, inputs, self.spool, keep, partial(self._free_place, paid))
        except CallFailed as failed:
            paid.verdicts.append(self.judge(choice, failed.failure, call.slots))
            await self.services.unread_answers.keep(choice.target.label, call.id, failed.failure)
            return
        except Exception:  # noqa: BLE001 (whatever else happens after the mark may have been billed)
            _log.exception("a paid call broke off")
            broken = Failure("read", message="the gateway could not follow the call")
            paid.verdicts.append(self.judge(choice, broken, call.slots))
            return
        paid.is_answered = True
        intake = Intake(self.services, self.reservation.task, call.id, paid.note, self.spool)
        taken = await intake.take(collected)
        paid.receipt, paid.usage = taken.receipt, taken.usage
        for slots, failure in taken.failures:
            paid.verdicts.append(self.judge(choice, failure, slots))

    def _listen(self, paid: PaidCall) -> AbstractContextManager[CallbackListener | None]:
        if paid.call.callback_url is None or self.services.callbacks is None:
            return nullcontext()
        return listen(self.services, self.services.callbacks, paid.choice.target, paid.call.id)

    def _open_bridge(self, paid: PaidCall, listener: CallbackListener | None) -> Bridge:
        services, target = self.services, paid.choice.target
        latency = services.health.latency(paid.choice.fit, target)
        return Bridge(
            target,
            services.upstreams[target.label],
            services.fetcher,
            PollSchedule.of(latency, is_called_back=listener is not None and listener.trust.is_earned),
            listener,
            resting=services.shutdown.resting(self.reservation.task, paid.call.id),
        )

    def _free_place(self, paid: PaidCall, verdict: Verdict) -> None:
        """Report a lost answer to the breaker now, and return the permit, while a callback may still come."""
        self.services.concurrency_queue.finish(paid.permit, health.report_failure(verdict, paid.choice.target))

    async def _settle(self, paid: PaidCall) -> CallReport:
        """Settle the call in the ledger, then deliver its images. The charge may still wait for Redis in memory.

        Returns the report on its target's health.
        """
        choice, call, receipt = paid.choice, paid.call, paid.receipt
        images: tuple[TaskImage, ...] = ()
        usd: int | None = 0
        state: SettledState = "void"
        if receipt:
            images, usd, state = receipt.images, receipt.usd, "posted"
            is_last = {image.slot for image in images} == set(self.progress.open)
            await self.reservation.post(call, usd, len(images), is_last=is_last)
        elif paid.is_unexecuted:
            await self.reservation.nack(call)
        else:
            policy = choice.target.config.unknown_outcome
            state = cast(SettledState, state_after(policy).value)
            usd = await self.reservation.give_up(call, choice.quote, policy, paid.verdicts[-1].error)
        for image in images:
            self.progress.images[image.slot] = image
            self.progress.open.remove(image.slot)
            self.on_image(image)
        sizes = receipt.sizes if receipt else []
        seconds = time.monotonic() - paid.began
        fact = CallFact(
            id=call.id,
            upstream=choice.target.upstream,
            target=choice.target.label,
            outcome="delivered" if images else paid.verdicts[-1].kind,
            seconds=round(seconds, 3),
            n=call.n,
            images=len(images),
            usd=usd,
            state=state,
            disputed=receipt.disputed if receipt else 0,
            **describe_sizes(choice.fit.made, sizes),
        )
        self.progress.calls.append(_describe_end(paid, fact))
        presumed = (usd or 0) if state == "presumed" else 0
        return health.report_call(
            choice.fit, choice.target, paid.verdicts, images=len(sizes), seconds=seconds, presumed=presumed
        )


def _describe_end(paid: PaidCall, fact: CallFact) -> CallEnd:
    return CallEnd(
        fact,
        charge=fact.usd,
        quality=paid.note.quality,
        may_be_billed=paid.is_answered or not paid.is_unexecuted,
        is_answered=paid.is_answered,
        usage=paid.usage,
        dropped=paid.note.dropped if paid.is_answered else (),
    )
