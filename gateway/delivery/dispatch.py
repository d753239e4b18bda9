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
from gateway.delivery.slots import Tally, UnderWay, choose_error, describe_sizes, kept_away
from gateway.errors import PublicError
from gateway.health import condition, health
from gateway.health.concurrency_queue import Patience
from gateway.health.condition import Bar
from gateway.health.health import Permit
from gateway.health.target_store import Report as CallReport
from gateway.history.record import CallFact, PassedBy, Settled
from gateway.jobs.job import Call, ImageJob, Inputs, Usage
from gateway.money.reservation import Reservation
from gateway.pictures.spool import Spool, StorageFullError
from gateway.routing import split
from gateway.routing.plan import Choice, Plan
from gateway.services import Services
from gateway.state.task_record import Made
from gateway.upstreams.verdict import CallFailed, Executed, Failure, Verdict, classify

PAUSE = 0.3
"""Seconds before a target that could not be reached is asked once more."""

Report = Callable[[Made], None]
Entry = tuple[Call, Permit]

_log = structlog.get_logger(__name__)

_GIVEN_UP: Mapping[str, Settled] = {"presume": "presumed", "release": "void", "hold": "held"}
"""The ledger's state of a call whose outcome nobody knows, by its upstream's policy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task came to: the images by slot, what was sent, and why a slot stayed empty.

    `calls` counts those that an upstream may have executed; `facts` tells of every one, `passed_by` of who had none.
    """

    images: tuple[Made, ...] = ()
    usage: Usage | None = None
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
    report: Report
    patience: Patience = field(default_factory=Patience)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    @property
    def _sender(self) -> Sender:
        return Sender(self.services, self.reservation, self.job)

    async def deliver(self, plan: Plan) -> Outcome:
        """Follow the plan. Answers an Outcome whatever the upstreams do."""
        tally = Tally(open=list(range(self.job.n)), choices=plan.choices)
        await self._fill(list(tally.open), plan.choices, tally)
        return self._conclude(tally)

    async def _fill(self, slots: list[int], choices: Sequence[Choice], tally: Tally) -> None:
        """Offer slots to these targets in order, and what nobody had a place for to whichever has one first."""
        for index, choice in enumerate(choices):
            later = choices[index + 1 :]
            slots = await self._try_target(choice, slots, tally, later)
            if self._may_knock_again(choice, slots, tally):
                await self.sleep(PAUSE)
                slots = await self._try_target(choice, slots, tally, later)
        while slots := tally.may_send(slots):
            found = await self._wait_for_place(slots, tally)
            if found is None:
                return
            choice, permit = found
            slots = await self._try_target(choice, slots, tally, (), permit)

    async def _wait_for_place(self, slots: Sequence[int], tally: Tally) -> tuple[Choice, Permit] | None:
        """The target that first has a place again, or may be asked again; None when none will in time."""
        passing = tally.passing(slots)
        if not passing:
            return None

        async def has_left() -> bool:
            return self._stops(tally) or await self.patience.has_left()

        try:
            patience = replace(self.patience, has_left=has_left)
            found = await self.services.door.wait([one.target for one in passing], patience)
        except errors.QueueFull as full:
            tally.verdicts.append(kept_away(full))
            return None
        if isinstance(found, Permit):
            return next(one for one in passing if one.target.label == found.target.label), found
        if tally.is_over:
            return None
        in_vain = errors.QueueFull("No place at an upstream became free in time; nothing was sent.", retry_after=5)
        tally.verdicts.append(kept_away(in_vain if found is None else condition.refuse([found])))
        return None

    async def _try_target(
        self, choice: Choice, slots: list[int], tally: Tally, later: Sequence[Choice], permit: Permit | None = None
    ) -> list[int]:
        """Send slots to one target, as many calls as it has places for; `permit` is the first of them.

        Meanwhile the others go to the `later` ones, or wait. Answers the slots that are still the asker's business.
        """
        slots = tally.may_send(slots)
        entries: list[Entry] = []
        if slots and await self._may_afford(choice, tally):
            entries = await self._enter(choice, split.split(self.job, choice.fit, slots), tally, permit)
        elif permit:
            self.services.door.finish(permit, CallReport("none"))
        if not entries:
            return slots
        entered = [slot for call, _ in entries for slot in call.slots]
        others = [slot for slot in slots if slot not in entered]
        work = [self._send_all(choice, entries, tally)]
        if others:
            work.append(self._fill(others, later, tally))
        await run_all(work)
        return entered

    async def _send_all(self, choice: Choice, entries: list[Entry], tally: Tally) -> None:
        inputs = await self._prepare(choice, tally, entries)
        if inputs is None:
            return
        await run_all(
            [self._make(self._sender.begin(choice, call, permit, inputs), inputs, tally) for call, permit in entries]
        )

    async def _may_afford(self, choice: Choice, tally: Tally) -> bool:
        refusal = await self.reservation.afford(choice.quote)
        if refusal:
            # A cheaper one further down the plan may still be within the limit.
            tally.bars.pop(choice.target.label, None)
            tally.pass_by(choice.target.label, refusal.message)
            tally.verdicts.append(Verdict("not_affordable", Executed.NO, again=False, elsewhere=True, error=refusal))
        return refusal is None

    async def _enter(self, choice: Choice, calls: list[Call], tally: Tally, permit: Permit | None) -> list[Entry]:
        """The calls that may begin, each with its place. Which may not is told by `tally.bars`."""
        label = choice.target.label
        slots = [slot for call in calls for slot in call.slots]
        if tally.was_asked(slots, label) and not self.services.retries.take():
            tally.give_up(slots, label)
            if permit:
                self.services.door.finish(permit, CallReport("none"))
            spent = errors.UpstreamUnavailable("Too many requests are being sent again just now.", retry_after=60)
            tally.verdicts.append(kept_away(spent))
            return []
        entries: list[Entry] = []
        for call in calls:
            found = permit or await self.services.door.enter(choice.target)
            permit = None
            if isinstance(found, Bar):
                tally.bars[label] = found
                tally.pass_by(label, found.words)
                break
            entries.append((call, found))
        if not entries:
            tally.verdicts.append(kept_away(condition.refuse([tally.bars[label]])))
        return entries

    async def _prepare(self, choice: Choice, tally: Tally, entries: list[Entry]) -> Inputs | None:
        """What the calls send, or None: then their places are given back."""
        report = CallReport("none")
        try:
            return await self.services.upstreams[choice.target.label].prepare(self.job, self.spool)
        except CallFailed as failed:
            slots = [slot for call, _ in entries for slot in call.slots]
            tally.ask(slots, choice.target.label)
            report = health.report_failure(self._judge(choice, failed.failure, tally, slots), choice.target)
        except StorageFullError:
            full = errors.StorageFull("The gateway's disk takes no more bytes; nothing was sent.", retry_after=60)
            tally.verdicts.append(Verdict("no_room", Executed.NO, again=False, elsewhere=False, error=full))
            tally.is_over = True
        except BaseException:
            self._give_back(entries, report)
            raise
        self._give_back(entries, report)
        return None

    def _give_back(self, entries: list[Entry], first: CallReport) -> None:
        for index, (_, permit) in enumerate(entries):
            self.services.door.finish(permit, CallReport("none") if index else first)

    async def _make(self, under_way: UnderWay, inputs: Inputs, tally: Tally) -> None:
        """One paid call, from its mark to its settlement."""
        report = CallReport("none")
        try:
            if await self._mark(under_way, tally):
                self.services.closing.hold(self.reservation.task, under_way.call.id)
                try:
                    await self._send(under_way, inputs, tally)
                    report = await self._settle(under_way, tally)
                finally:
                    self.services.closing.release(self.reservation.task, under_way.call.id)
        finally:
            self.services.door.finish(under_way.permit, report)

    async def _mark(self, under_way: UnderWay, tally: Tally) -> bool:
        """Whether the call is written down, so that it may be sent."""
        if self._stops(tally):
            return False
        choice, call = under_way.choice, under_way.call
        for slot in call.slots:
            tally.sent[slot] = tally.sent.get(slot, 0) + 1
        try:
            await self.reservation.mark_sent(call, choice.quote, choice.target.config.unknown_outcome, under_way.note)
        except PublicError as error:
            # What cannot be written down is not sent.
            tally.verdicts.append(Verdict("not_marked", Executed.NO, again=False, elsewhere=False, error=error))
            tally.is_over = True
            return False
        tally.ask(call.slots, choice.target.label)
        self.services.retries.note_call()
        return True

    async def _send(self, under_way: UnderWay, inputs: Inputs, tally: Tally) -> None:
        """Send the call and take its pictures in; whatever fails is judged."""
        choice, call = under_way.choice, under_way.call
        try:
            with self._sender.listen(under_way) as ear:
                made = await self._sender.reach(under_way, ear).complete(call, inputs, self.spool)
        except CallFailed as failed:
            under_way.verdicts.append(self._judge(choice, failed.failure, tally, list(call.slots), is_paid=True))
            return
        except Exception as error:  # noqa: BLE001 (whatever else happens after the mark may have been billed)
            _log.exception("a paid call broke off")
            failure = Failure("read", message=type(error).__name__)
            under_way.verdicts.append(self._judge(choice, failure, tally, list(call.slots), is_paid=True))
            return
        tally.calls += 1
        tally.usages.append(made.usage)
        tally.dropped.update(dict.fromkeys(choice.fit.dropped))
        intake = Intake(self.services, self.reservation.task, call.id, under_way.note, self.spool)
        taken = await intake.take(made)
        under_way.receipt = taken.receipt
        for slots, failure in taken.troubles:
            under_way.verdicts.append(self._judge(choice, failure, tally, list(slots)))

    def _stops(self, tally: Tally) -> bool:
        """Whether nothing more is sent; so where the process ends, and nothing came of the task or is out for it."""
        if self.services.closing.forbids(self.reservation.task) and not tally.images and not tally.is_over:
            tally.verdicts.append(kept_away(errors.shutting_down()))
            tally.is_over = True
        return tally.is_over

    async def _settle(self, under_way: UnderWay, tally: Tally) -> CallReport:
        """Book what the call cost, then hand its images out: what a caller has is always paid for.

        Answers what the call says of its target."""
        choice, call, receipt = under_way.choice, under_way.call, under_way.receipt
        policy = choice.target.config.unknown_outcome
        images: tuple[Made, ...] = ()
        usd: int | None = 0
        state: Settled = "void"
        if receipt:
            images, usd, state = receipt.images, receipt.usd, "posted"
            await self.reservation.post(call, usd, len(images))
        elif under_way.is_unexecuted:
            await self.reservation.nack(call)
        else:
            state = _GIVEN_UP[policy]
            usd = await self.reservation.give_up(call, choice.quote, policy)
        for made in images:
            tally.images[made.slot] = made
            tally.open.remove(made.slot)
            self.report(made)
        sizes = receipt.sizes if receipt else []
        seconds = time.monotonic() - under_way.began
        tally.facts.append(
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
        self, choice: Choice, failure: Failure, tally: Tally, slots: list[int], *, is_paid: bool = False
    ) -> Verdict:
        config = choice.target.config
        verdict = classify(
            failure,
            error_is_unbilled=config.error_is_unbilled,
            refusal_is_unbilled=config.refusal_is_unbilled,
        )
        if is_paid and verdict.executed is not Executed.NO:
            tally.calls += 1
        tally.verdicts.append(verdict)
        tally.note(slots, choice.target.label, verdict)
        if verdict.drift:
            unknown = "model" if verdict.kind == "missing" else None
            self.services.drift.note(choice.target.upstream, "refused", failure.param or unknown)
        ended = tally.move_on(slots, verdict)
        tally.open = [slot for slot in tally.open if slot not in ended]
        # One refusal by a safety system speaks for the prompt, and every further call might be billed.
        if verdict.kind == "policy":
            tally.is_over = True
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

    def _may_knock_again(self, choice: Choice, slots: list[int], tally: Tally) -> bool:
        """A target that could not be reached is asked once more at once: nothing listened for a moment, perhaps."""
        return any((slot, choice.target.label) in tally.unreachable for slot in tally.may_send(slots))

    def _conclude(self, tally: Tally) -> Outcome:
        images = tuple(tally.images[slot] for slot in sorted(tally.images))
        usages = [usage for usage in tally.usages if usage is not None]
        is_counted = bool(usages) and len(usages) == len(tally.usages)
        total = sum(usages[1:], usages[0]) if is_counted else None
        return Outcome(
            images=images,
            usage=total,
            calls=tally.calls,
            upstreams=tuple(dict.fromkeys(image.upstream for image in images)),
            dropped=tuple(tally.dropped),
            error=None if len(images) == self.job.n else choose_error(tally.verdicts),
            facts=tuple(tally.facts),
            passed_by=tally.list_passed(),
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
