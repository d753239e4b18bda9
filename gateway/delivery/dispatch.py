"""The delivery of one task: it sends the task's slots to the targets in the plan's order.

It ends when every slot has its image or may not be sent again, or when no permit is free in time. It decides to which
target each slot goes, and when a slot waits. `delivery/call.py` makes the calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway import errors
from gateway.delivery.call import CallSender, FirstCall, OnImage
from gateway.delivery.outcome import Outcome, SlotProgress, conclude, not_sent
from gateway.health import condition, health
from gateway.health.concurrency_queue import WaitLimit
from gateway.health.condition import Block
from gateway.health.health import CallReport, Permit
from gateway.jobs.job import Call, ImageJob, Inputs
from gateway.money.reservation import Reservation
from gateway.pictures.spool import Spool, StorageFullError
from gateway.routing.plan import Choice, Plan, split_job
from gateway.services import Services
from gateway.upstreams.verdict import CallFailed, Executed, Verdict

PAUSE = 0.3
"""Seconds before a target that could not be reached is tried once more."""

Entry = tuple[Call, Permit]


@dataclass(slots=True)
class Delivery:
    """One task's delivery. Before it sends a call, `reservation` holds its price, if known, and marks it.

    `first` is the call that the opening of the task began; its first target is the plan's.
    """

    services: Services
    job: ImageJob
    spool: Spool
    reservation: Reservation
    on_image: OnImage
    wait_limit: WaitLimit = field(default_factory=WaitLimit)
    first: FirstCall | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    progress: SlotProgress = field(init=False)
    sender: CallSender = field(init=False)

    async def deliver(self, plan: Plan) -> Outcome:
        """Send the slots by the plan, and return the outcome, also if upstreams fail. Call this once for a Delivery."""
        progress = self.progress = SlotProgress(open=list(range(self.job.n)), choices=plan.choices)
        self.sender = CallSender(self.services, self.job, self.spool, self.reservation, self.on_image, progress)
        if self.first and not self.services.health.is_held(self.first.permit):
            # The target had no permit to give. It is asked again in its turn.
            self.first = None
        try:
            await self._fill(list(progress.open), plan.choices)
        finally:
            if self.first:
                await self.sender.drop(self.first)
        images, passed = list(progress.images.values()), progress.list_passed()
        return conclude(images, self.job.n, progress.calls, progress.verdicts, passed)

    async def _fill(self, slots: list[int], choices: Sequence[Choice]) -> None:
        """Send slots to these targets in the plan's order. The rest waits for the first permit of a target."""
        for index, choice in enumerate(choices):
            later = choices[index + 1 :]
            slots = await self._try_target(choice, slots, later)
            if self.progress.was_unreachable(slots, choice.target.label):
                await self.sleep(PAUSE)
                slots = await self._try_target(choice, slots, later)
        while slots := self.progress.may_send(slots):
            found = await self._wait_for_place(slots)
            if found is None:
                return
            choice, permit = found
            slots = await self._try_target(choice, slots, (), permit)

    async def _wait_for_place(self, slots: Sequence[int]) -> tuple[Choice, Permit] | None:
        """Wait for a permit of a target that is blocked for a short time.

        Returns None if there is no such target, or if no permit comes; then the progress has the reason.
        """
        progress = self.progress
        waitable = progress.find_waitable(slots)
        if not waitable:
            return None

        async def has_disconnected() -> bool:
            return self.sender.is_stopped() or await self.wait_limit.has_disconnected()

        try:
            limit = replace(self.wait_limit, has_disconnected=has_disconnected)
            found = await self.services.concurrency_queue.wait([one.target for one in waitable], limit)
        except errors.QueueFull as full:
            progress.verdicts.append(not_sent(full))
            return None
        if isinstance(found, Permit):
            return next(one for one in waitable if one.target.label == found.target.label), found
        if progress.is_over:
            return None
        in_vain = errors.QueueFull("No place at an upstream became free in time; nothing was sent.", retry_after=5)
        progress.verdicts.append(not_sent(in_vain if found is None else condition.refuse([found])))
        return None

    async def _try_target(
        self, choice: Choice, slots: list[int], later: Sequence[Choice], permit: Permit | None = None
    ) -> list[int]:
        """Send slots to one target, in as many calls as it gives permits for; the first call uses `permit`.

        The other slots go to the `later` targets meanwhile, or wait. Returns the slots of the target's calls, or all
        slots that may be sent if it got no call.
        """
        slots = self.progress.may_send(slots)
        entries: list[Entry] = []
        first = None
        if slots and await self._may_afford(choice):
            if self.first and self.first.permit.target.label == choice.target.label:
                first, self.first = self.first, None
                entries = await self._take_places(choice, first.calls, first.permit)
            else:
                entries = await self._take_places(choice, split_job(self.job, choice.fit, slots), permit)
        elif permit:
            self.services.concurrency_queue.finish(permit, CallReport("none"))
        if not entries:
            return slots
        entered = [slot for call, _ in entries for slot in call.slots]
        others = [slot for slot in slots if slot not in entered]
        work = [self._send_all(choice, entries, first)]
        if others:
            work.append(self._fill(others, later))
        await run_all(work)
        return entered

    async def _send_all(self, choice: Choice, entries: list[Entry], first: FirstCall | None) -> None:
        inputs = first.inputs if first and first.inputs else await self._prepare(choice, entries)
        if inputs is None:
            return
        marked = first.paid if first and first.paid and first.paid.is_marked else None
        sends = [self.sender.send(choice, call, permit, inputs) for call, permit in entries[bool(marked) :]]
        await run_all([self.sender.send_paid(marked, inputs), *sends] if marked else sends)

    async def _may_afford(self, choice: Choice) -> bool:
        """Hold the target's price. Returns False, with a verdict, if a limit or the ledger refuses it."""
        refusal = await self.reservation.afford(choice.quote)
        if refusal:
            # A cheaper target further down the plan may still be within the limit.
            progress = self.progress
            progress.blocks.pop(choice.target.label, None)
            progress.pass_by(choice.target.label, refusal.message)
            progress.verdicts.append(Verdict("not_affordable", Executed.NO, again=False, elsewhere=True, error=refusal))
        return refusal is None

    async def _take_places(self, choice: Choice, calls: list[Call], permit: Permit | None) -> list[Entry]:
        """Take a permit for each call; return the calls that have one. `progress.blocks` gets the target's block.

        Returns none if these slots were sent to the target before and the retry budget is used up.
        """
        progress, queue, label = self.progress, self.services.concurrency_queue, choice.target.label
        slots = [slot for call in calls for slot in call.slots]
        if progress.was_asked(slots, label) and not self.services.retries.take():
            progress.give_up(slots, label)
            if permit:
                queue.finish(permit, CallReport("none"))
            spent = errors.UpstreamUnavailable("Too many requests are being sent again just now.", retry_after=60)
            progress.verdicts.append(not_sent(spent))
            return []
        entries: list[Entry] = []
        for call in calls:
            found = permit or await queue.enter(choice.target)
            permit = None
            if isinstance(found, Block):
                progress.blocks[label] = found
                progress.pass_by(label, found.words)
                break
            entries.append((call, found))
        if not entries:
            progress.verdicts.append(not_sent(condition.refuse([progress.blocks[label]])))
        return entries

    async def _prepare(self, choice: Choice, entries: list[Entry]) -> Inputs | None:
        """Prepare the inputs of the calls. If that fails, add a verdict, give the permits back, and return None."""
        report = CallReport("none")
        try:
            return await self.services.upstreams[choice.target.label].prepare(self.job, self.spool)
        except CallFailed as failed:
            slots = [slot for call, _ in entries for slot in call.slots]
            self.progress.note_asked(slots, choice.target.label)
            report = health.report_failure(self.sender.judge(choice, failed.failure, slots), choice.target)
        except StorageFullError:
            full = errors.StorageFull("The gateway's disk takes no more bytes; nothing was sent.", retry_after=60)
            self.progress.verdicts.append(Verdict("no_room", Executed.NO, again=False, elsewhere=False, error=full))
            self.progress.is_over = True
        except BaseException:
            self._give_places_back(entries, report)
            raise
        self._give_places_back(entries, report)
        return None

    def _give_places_back(self, entries: list[Entry], first: CallReport) -> None:
        for index, (_, permit) in enumerate(entries):
            self.services.concurrency_queue.finish(permit, CallReport("none") if index else first)


async def run_all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run pieces of work at once; a single one gets no task of its own, which would be memory while it waits.

    Every piece ends before the first exception is raised, since the others still write into the spool.
    """
    if len(work) == 1:
        await work[0]
        return
    for end in await asyncio.gather(*work, return_exceptions=True):
        if end is not None:
            raise end
