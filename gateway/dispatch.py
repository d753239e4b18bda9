"""Tries a plan's targets in order until every slot has its image or may not be tried again.

Called by `pipeline.work`. It alone acts on verdicts: which failure may be retried, where, and what the caller hears.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from gateway import errors, fanout
from gateway.bridge import Bridge
from gateway.errors import PublicError
from gateway.job import Call, ImageJob, Inputs, Usage
from gateway.receiving import Image, Receiver
from gateway.routing import Choice, Plan
from gateway.services import Services
from gateway.spool import Spool, StorageFullError
from gateway.verdict import CallFailed, Executed, Failure, Verdict, classify

MAX_CALLS = 3
"""Paid calls for one slot over all targets."""

LONGEST_WAIT = 30.0
"""Seconds that a request waits for an upstream's Retry-After before its answer passes it on."""

MarkSent = Callable[[Call, Choice], Awaitable[None]]
Report = Callable[[Image], None]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task came to: the images by slot, what was sent, and why a slot stayed empty."""

    images: tuple[Image, ...] = ()
    usage: Usage | None = None
    calls: int = 0
    upstreams: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    error: PublicError | None = None


@dataclass(slots=True)
class _Tally:
    """What happened so far to one task's slots."""

    open: list[int]
    sent: dict[int, int] = field(default_factory=dict)
    images: dict[int, Image] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    usages: list[Usage | None] = field(default_factory=list)
    dropped: dict[str, None] = field(default_factory=dict)
    calls: int = 0
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """One task's way through its plan. `mark_sent` is awaited before every paid POST and may refuse it by raising."""

    services: Services
    job: ImageJob
    spool: Spool
    mark_sent: MarkSent
    report: Report
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def deliver(self, plan: Plan) -> Outcome:
        """Follow the plan. Answers an Outcome whatever the upstreams do."""
        tally = _Tally(open=list(range(self.job.n)))
        for index, choice in enumerate(plan.choices):
            is_last = index == len(plan.choices) - 1
            await self._try_target(choice, tally)
            if wait := self._pause_before_again(tally, is_last):
                await self.sleep(wait)
                await self._try_target(choice, tally)
            if tally.is_over or not tally.open:
                break
        return self._conclude(tally)

    async def _try_target(self, choice: Choice, tally: _Tally) -> None:
        slots = [slot for slot in tally.open if tally.sent.get(slot, 0) < MAX_CALLS]
        if not slots or tally.is_over:
            return
        try:
            inputs = await self.services.upstreams[choice.target.label].prepare(self.job, self.spool)
        except CallFailed as failed:
            self._judge(choice, failed.failure, tally, slots)
            return
        except StorageFullError:
            full = errors.StorageFull("The gateway's disk takes no more bytes; nothing was sent.", retry_after=60)
            tally.verdicts.append(Verdict("no_room", Executed.NO, again=False, elsewhere=False, error=full))
            tally.is_over = True
            return
        calls = fanout.split(self.job, choice.fit, slots)
        # Each ends by itself before the first exception is heard: the others' bytes are still arriving in the spool.
        ends = await asyncio.gather(
            *(self._make(choice, call, inputs, tally) for call in calls), return_exceptions=True
        )
        for end in ends:
            if end is not None:
                raise end

    async def _make(self, choice: Choice, call: Call, inputs: Inputs, tally: _Tally) -> None:
        """One paid call, from its mark to its artifacts."""
        if tally.is_over:
            return
        for slot in call.slots:
            tally.sent[slot] = tally.sent.get(slot, 0) + 1
        try:
            await self.mark_sent(call, choice)
        except PublicError as error:
            # What cannot be written down is not sent.
            tally.verdicts.append(Verdict("not_marked", Executed.NO, again=False, elsewhere=False, error=error))
            tally.is_over = True
            return
        bridge = Bridge(choice.target, self.services.upstreams[choice.target.label], self.services.fetcher)
        try:
            made = await bridge.complete(call, inputs, self.spool)
        except CallFailed as failed:
            self._judge(choice, failed.failure, tally, list(call.slots), is_paid=True)
            return
        except Exception as error:  # noqa: BLE001 (whatever else happens after the mark may have been billed)
            _log.exception("a paid call broke off")
            failure = Failure("read", message=type(error).__name__)
            self._judge(choice, failure, tally, list(call.slots), is_paid=True)
            return
        tally.calls += 1
        tally.usages.append(made.usage)
        tally.dropped.update(dict.fromkeys(choice.fit.dropped))
        receiver = Receiver(self.services.darkroom, self.services.artifacts)
        for slot, (got, revised_prompt) in zip(call.slots, made.pictures, strict=False):
            if isinstance(got, Failure):
                self._judge(choice, got, tally, [slot])
                continue
            try:
                artifact = await receiver.receive(got, self.job, self.spool)
            except CallFailed as failed:
                self._judge(choice, failed.failure, tally, [slot])
                continue
            except Exception as error:  # noqa: BLE001 (one picture's trouble must not take the others, which are paid)
                _log.exception("a picture could not be taken in")
                self._judge(choice, Failure("collect", message=type(error).__name__), tally, [slot])
                continue
            usage = made.usage if slot == call.slots[-1] else None
            image = Image(slot, artifact, choice.target.upstream, choice.target.label, revised_prompt, usage)
            tally.images[slot] = image
            tally.open.remove(slot)
            self.report(image)
        self._close_missing(call, len(made.pictures), choice, tally)

    def _close_missing(self, call: Call, made: int, choice: Choice, tally: _Tally) -> None:
        """Slots that a 2xx left empty are not topped up: the vendor may have billed them."""
        for slot in call.slots[made:]:
            what = f"{made} of {call.n} images came"
            self._judge(choice, Failure("body", message=what), tally, [slot])

    def _judge(
        self, choice: Choice, failure: Failure, tally: _Tally, slots: list[int], *, is_paid: bool = False
    ) -> None:
        verdict = classify(failure, error_is_unbilled=choice.target.config.error_is_unbilled)
        if is_paid and verdict.executed is not Executed.NO:
            tally.calls += 1
        tally.verdicts.append(verdict)
        if not verdict.elsewhere and not verdict.again:
            tally.open = [slot for slot in tally.open if slot not in slots]
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

    def _pause_before_again(self, tally: _Tally, is_last: bool) -> float:
        """Seconds until the same target may be asked once more; 0 for not at all."""
        if not tally.open or tally.is_over or not tally.verdicts or not tally.verdicts[-1].again:
            return 0.0
        verdict = tally.verdicts[-1]
        if verdict.kind == "unreachable":
            return 0.3
        wait = float(verdict.error.retry_after or 5)
        # Another target now is better than this one later.
        return wait if is_last and wait <= LONGEST_WAIT else 0.0

    def _conclude(self, tally: _Tally) -> Outcome:
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
            error=None if len(images) == self.job.n else _choose_error(tally.verdicts),
        )


def _choose_error(verdicts: list[Verdict]) -> PublicError:
    """What the caller hears when slots stayed empty: a refusal first, then what may have cost money, then the last."""
    for kind in ("policy", "refused"):
        for verdict in verdicts:
            if verdict.kind == kind:
                return verdict.error
    for verdict in verdicts:
        if verdict.executed is not Executed.NO:
            return verdict.error
    if not verdicts:
        return errors.UpstreamUnavailable("No upstream took the request; nothing was billed.", retry_after=5)
    last = verdicts[-1]
    waits = [one.error.retry_after for one in verdicts if one.kind == last.kind and one.error.retry_after is not None]
    if waits:
        last.error.retry_after = min(waits)
    return last.error
