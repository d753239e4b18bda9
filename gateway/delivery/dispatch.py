"""Tries a plan's targets in order until every slot has its image or may not be tried again.

Called by `pipeline.work`. It alone acts on verdicts: which failure may be retried, where, and what the caller hears.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from gateway import errors
from gateway.delivery.call import Sender
from gateway.delivery.intake import Intake
from gateway.delivery.slots import SlotProgress, UnderWay, choose_error, describe_sizes, kept_away
from gateway.errors import PublicError
from gateway.health import condition, health
from gateway.health.concurrency_queue import WaitLimit
from gateway.health.condition import Block
from gateway.health.health import Permit
from gateway.health.target_store import CallReport
from gateway.history.record import CallFact, PassedBy, SettledState
from gateway.jobs.job import Call, ImageJob, Inputs, TokenUsage
from gateway.money.reservation import Reservation
from gateway.pictures.spool import Spool, StorageFullError
from gateway.routing.plan import Choice, Plan, split_job
from gateway.services import Services
from gateway.state.task_store import TaskImage
from gateway.upstreams.verdict import CallFailed, Executed, Failure, Verdict, classify

PAUSE = 0.3
"""Seconds before a target that could not be reached is asked once more."""

OnImage = Callable[[TaskImage], None]
Entry = tuple[Call, Permit]

_log = structlog.get_logger(__name__)

_GIVEN_UP: Mapping[str, SettledState] = {"presume": "presumed", "release": "void", "hold": "held"}
"""The ledger's state of a call whose outcome nobody knows, by its upstream's policy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task came to: the images by slot, what was sent, and why a slot stayed empty.

    `calls` counts those that an upstream may have executed; `facts` tells of every one, `passed_by` of who had none.
    """

    images: tuple[TaskImage, ...] = ()
    usage: TokenUsage | None = None
    calls: int = 0
    upstreams: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    error: PublicError | None = None
    facts: tuple[CallFact, ...] = ()
    passed_by: tuple[PassedBy, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """One task's way through its plan. Nothing is sent that `reservation` does not hold and mark."""

    services: Services
    job: ImageJob
    spool: Spool
    reservation: Reservation
    report: OnImage
    patience: WaitLimit = field(default_factory=WaitLimit)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    @property
    def _sender(self) -> Sender:
        return Sender(self.services, self.reservation, self.job)

    async def deliver(self, plan: Plan) -> Outcome:
        """Follow the plan. Answers an Outcome whatever the upstreams do."""
        progress = SlotProgress(open=list(range(self.job.n)), choices=plan.choices)
        await self._fill(list(progress.open), plan.choices, progress)
        return self._conclude(progress)

    async def _fill(self, slots: list[int], choices: Sequence[Choice], progress: SlotProgress) -> None:
        """Offer slots to these targets in order, and what nobody had a place for to whichever has one first."""
        for index, choice in enumerate(choices):
            later = choices[index + 1 :]
            slots = await self._try_target(choice, slots, progress, later)
            if self._may_knock_again(choice, slots, progress):
                await self.sleep(PAUSE)
                slots = await self._try_target(choice, slots, progress, later)
        while slots := progress.may_send(slots):
            found = await self._wait_for_place(slots, progress)
            if found is None:
                return
            choice, permit = found
            slots = await self._try_target(choice, slots, progress, (), permit)

    async def _wait_for_place(self, slots: Sequence[int], progress: SlotProgress) -> tuple[Choice, Permit] | None:
        """The target that first has a place again, or may be asked again; None when none will in time."""
        passing = progress.passing(slots)
        if not passing:
            return None

        async def has_disconnected() -> bool:
            return self._stops(progress) or await self.patience.has_disconnected()

        try:
            patience = replace(self.patience, has_disconnected=has_disconnected)
            found = await self.services.concurrency_queue.wait([one.target for one in passing], patience)
        except errors.QueueFull as full:
            progress.verdicts.append(kept_away(full))
            return None
        if isinstance(found, Permit):
            return next(one for one in passing if one.target.label == found.target.label), found
        if progress.is_over:
            return None
        in_vain = errors.QueueFull("No place at an upstream became free in time; nothing was sent.", retry_after=5)
        progress.verdicts.append(kept_away(in_vain if found is None else condition.refuse([found])))
        return None

    async def _try_target(
        self,
        choice: Choice,
        slots: list[int],
        progress: SlotProgress,
        later: Sequence[Choice],
        permit: Permit | None = None,
    ) -> list[int]:
        """Send slots to one target, as many calls as it has places for; `permit` is the first of them.

        Meanwhile the others go to the `later` ones, or wait. Answers the slots that are still the asker's business.
        """
        slots = progress.may_send(slots)
        entries: list[Entry] = []
        if slots and await self._may_afford(choice, progress):
            entries = await self._enter(choice, split_job(self.job, choice.fit, slots), progress, permit)
        elif permit:
            self.services.concurrency_queue.finish(permit, CallReport("none"))
        if not entries:
            return slots
        entered = [slot for call, _ in entries for slot in call.slots]
        others = [slot for slot in slots if slot not in entered]
        work = [self._send_all(choice, entries, progress)]
        if others:
            work.append(self._fill(others, later, progress))
        await run_all(work)
        return entered

    async def _send_all(self, choice: Choice, entries: list[Entry], progress: SlotProgress) -> None:
        inputs = await self._prepare(choice, progress, entries)
        if inputs is None:
            return
        await run_all(
            [self._make(self._sender.begin(choice, call, permit, inputs), inputs, progress) for call, permit in entries]
        )

    async def _may_afford(self, choice: Choice, progress: SlotProgress) -> bool:
        refusal = await self.reservation.afford(choice.quote)
        if refusal:
            # A cheaper one further down the plan may still be within the limit.
            progress.bars.pop(choice.target.label, None)
            progress.pass_by(choice.target.label, refusal.message)
            progress.verdicts.append(Verdict("not_affordable", Executed.NO, again=False, elsewhere=True, error=refusal))
        return refusal is None

    async def _enter(
        self, choice: Choice, calls: list[Call], progress: SlotProgress, permit: Permit | None
    ) -> list[Entry]:
        """The calls that may begin, each with its place. Which may not is told by `progress.bars`."""
        label = choice.target.label
        slots = [slot for call in calls for slot in call.slots]
        if progress.was_asked(slots, label) and not self.services.retries.take():
            progress.give_up(slots, label)
            if permit:
                self.services.concurrency_queue.finish(permit, CallReport("none"))
            spent = errors.UpstreamUnavailable("Too many requests are being sent again just now.", retry_after=60)
            progress.verdicts.append(kept_away(spent))
            return []
        entries: list[Entry] = []
        for call in calls:
            found = permit or await self.services.concurrency_queue.enter(choice.target)
            permit = None
            if isinstance(found, Block):
                progress.bars[label] = found
                progress.pass_by(label, found.words)
                break
            entries.append((call, found))
        if not entries:
            progress.verdicts.append(kept_away(condition.refuse([progress.bars[label]])))
        return entries

    async def _prepare(self, choice: Choice, progress: SlotProgress, entries: list[Entry]) -> Inputs | None:
        """What the calls send, or None: then their places are given back."""
        report = CallReport("none")
        try:
            return await self.services.upstreams[choice.target.label].prepare(self.job, self.spool)
        except CallFailed as failed:
            slots = [slot for call, _ in entries for slot in call.slots]
            progress.ask(slots, choice.target.label)
            report = health.report_failure(self._judge(choice, failed.failure, progress, slots), choice.target)
        except StorageFullError:
            full = errors.StorageFull("The gateway's disk takes no more bytes; nothing was sent.", retry_after=60)
            progress.verdicts.append(Verdict("no_room", Executed.NO, again=False, elsewhere=False, error=full))
            progress.is_over = True
        except BaseException:
            self._give_back(entries, report)
            raise
        self._give_back(entries, report)
        return None

    def _give_back(self, entries: list[Entry], first: CallReport) -> None:
        for index, (_, permit) in enumerate(entries):
            self.services.concurrency_queue.finish(permit, CallReport("none") if index else first)

    async def _make(self, under_way: UnderWay, inputs: Inputs, progress: SlotProgress) -> None:
        """One paid call, from its mark to its settlement."""
        report = CallReport("none")
        try:
            if await self._mark(under_way, progress):
                self.services.shutdown.hold(self.reservation.task, under_way.call.id)
                try:
                    await self._send(under_way, inputs, progress)
                    report = await self._settle(under_way, progress)
                finally:
                    self.services.shutdown.release(self.reservation.task, under_way.call.id)
        finally:
            self.services.concurrency_queue.finish(under_way.permit, report)

    async def _mark(self, under_way: UnderWay, progress: SlotProgress) -> bool:
        """Whether the call is written down, so that it may be sent."""
        if self._stops(progress):
            return False
        choice, call = under_way.choice, under_way.call
        for slot in call.slots:
            progress.sent[slot] = progress.sent.get(slot, 0) + 1
        try:
            await self.reservation.mark_sent(call, choice.quote, choice.target.config.unknown_outcome, under_way.note)
        except PublicError as error:
            # What cannot be written down is not sent.
            progress.verdicts.append(Verdict("not_marked", Executed.NO, again=False, elsewhere=False, error=error))
            progress.is_over = True
            return False
        progress.ask(call.slots, choice.target.label)
        self.services.retries.note_call()
        return True

    async def _send(self, under_way: UnderWay, inputs: Inputs, progress: SlotProgress) -> None:
        """Send the call and take its pictures in; whatever fails is judged."""
        choice, call = under_way.choice, under_way.call
        try:
            with self._sender.listen(under_way) as ear:
                made = await self._sender.reach(under_way, ear).complete(call, inputs, self.spool)
        except CallFailed as failed:
            under_way.verdicts.append(self._judge(choice, failed.failure, progress, list(call.slots), is_paid=True))
            return
        except Exception as error:  # noqa: BLE001 (whatever else happens after the mark may have been billed)
            _log.exception("a paid call broke off")
            failure = Failure("read", message=type(error).__name__)
            under_way.verdicts.append(self._judge(choice, failure, progress, list(call.slots), is_paid=True))
            return
        progress.calls += 1
        progress.usages.append(made.usage)
        progress.dropped.update(dict.fromkeys(choice.fit.dropped))
        intake = Intake(self.services, self.reservation.task, call.id, under_way.note, self.spool)
        taken = await intake.take(made)
        under_way.receipt = taken.receipt
        for slots, failure in taken.troubles:
            under_way.verdicts.append(self._judge(choice, failure, progress, list(slots)))

    def _stops(self, progress: SlotProgress) -> bool:
        """Whether nothing more is sent; so where the process ends, and nothing came of the task or is out for it."""
        if self.services.shutdown.forbids(self.reservation.task) and not progress.images and not progress.is_over:
            progress.verdicts.append(kept_away(errors.shutting_down()))
            progress.is_over = True
        return progress.is_over

    async def _settle(self, under_way: UnderWay, progress: SlotProgress) -> CallReport:
        """Book what the call cost, then hand its images out: what a caller has is always paid for.

        Answers what the call says of its target."""
        choice, call, receipt = under_way.choice, under_way.call, under_way.receipt
        policy = choice.target.config.unknown_outcome
        images: tuple[TaskImage, ...] = ()
        usd: int | None = 0
        state: SettledState = "void"
        if receipt:
            images, usd, state = receipt.images, receipt.usd, "posted"
            await self.reservation.post(call, usd, len(images))
        elif under_way.is_unexecuted:
            await self.reservation.nack(call)
        else:
            state = _GIVEN_UP[policy]
            usd = await self.reservation.give_up(call, choice.quote, policy)
        for made in images:
            progress.images[made.slot] = made
            progress.open.remove(made.slot)
            self.report(made)
        sizes = receipt.sizes if receipt else []
        seconds = time.monotonic() - under_way.began
        progress.facts.append(
            CallFact(
                id=call.id,
                upstream=choice.target.upstream,
                target=choice.target.label,
                outcome="delivered" if images else under_way.verdicts[-1].kind,
                seconds=round(seconds, 3),
                n=call.n,
                images=len(images),
                usd=usd,
                state=state,
                **describe_sizes(choice, sizes),
            )
        )
        presumed = (usd or 0) if state == "presumed" else 0
        return health.report_call(
            choice.fit, choice.target, under_way.verdicts, images=len(sizes), seconds=seconds, presumed=presumed
        )

    def _judge(
        self, choice: Choice, failure: Failure, progress: SlotProgress, slots: list[int], *, is_paid: bool = False
    ) -> Verdict:
        config = choice.target.config
        verdict = classify(
            failure,
            error_is_unbilled=config.error_is_unbilled,
            refusal_is_unbilled=config.refusal_is_unbilled,
        )
        if is_paid and verdict.executed is not Executed.NO:
            progress.calls += 1
        progress.verdicts.append(verdict)
        progress.note(slots, choice.target.label, verdict)
        if verdict.drift:
            unknown = "model" if verdict.kind == "missing" else None
            self.services.drift.note(choice.target.upstream, "refused", failure.param or unknown)
        ended = progress.move_on(slots, verdict)
        progress.open = [slot for slot in progress.open if slot not in ended]
        # One refusal by a safety system speaks for the prompt, and every further call might be billed.
        if verdict.kind == "policy":
            progress.is_over = True
        _log.warning(
            "call failed",
            upstream=choice.target.label,
            verdict=verdict.kind,
            executed=verdict.executed.value,
            # Not the vendor's message: it may quote the prompt.
            phase=failure.phase,
            status=failure.status,
            code=failure.code,
        )
        return verdict

    def _may_knock_again(self, choice: Choice, slots: list[int], progress: SlotProgress) -> bool:
        """A target that could not be reached is asked once more at once: nothing listened for a moment, perhaps."""
        return any((slot, choice.target.label) in progress.unreachable for slot in progress.may_send(slots))

    def _conclude(self, progress: SlotProgress) -> Outcome:
        images = tuple(progress.images[slot] for slot in sorted(progress.images))
        usages = [usage for usage in progress.usages if usage is not None]
        is_counted = bool(usages) and len(usages) == len(progress.usages)
        total = sum(usages[1:], usages[0]) if is_counted else None
        return Outcome(
            images=images,
            usage=total,
            calls=progress.calls,
            upstreams=tuple(dict.fromkeys(image.upstream for image in images)),
            dropped=tuple(progress.dropped),
            error=None if len(images) == self.job.n else choose_error(progress.verdicts),
            facts=tuple(progress.facts),
            passed_by=progress.list_passed(),
        )


async def run_all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run pieces of work at once; one alone needs no task of its own, which would be memory while it waits.

    Each ends by itself before the first exception is heard: the others' bytes are still arriving in the spool.
    """
    if len(work) == 1:
        await work[0]
        return
    for end in await asyncio.gather(*work, return_exceptions=True):
        if end is not None:
            raise end
