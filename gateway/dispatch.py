"""Tries a plan's targets in order until every slot has its image or may not be tried again.

Called by `pipeline.work`. It alone acts on verdicts: which failure may be retried, where, and what the caller hears.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import structlog

from gateway import errors, fanout, pricing
from gateway.artifacts.links import link
from gateway.bridge import Bridge
from gateway.errors import PublicError
from gateway.job import Call, ImageJob, Inputs, Usage
from gateway.quota import Reservation
from gateway.receiving import Image, Promise, Receiver
from gateway.routing import Choice, Plan
from gateway.services import Services
from gateway.sizes import Size
from gateway.spool import Blob, Spool, StorageFullError
from gateway.store.records import CallFact, Settled
from gateway.verdict import CallFailed, Executed, Failure, Verdict, classify

MAX_CALLS = 3
"""Paid calls for one slot over all targets."""

LONGEST_WAIT = 30.0
"""Seconds that a request waits for an upstream's Retry-After before its answer passes it on."""

Report = Callable[[Image], None]

_log = structlog.get_logger(__name__)


_GIVEN_UP: Mapping[str, Settled] = {"presume": "presumed", "release": "void", "hold": "held"}
"""The ledger's state of a call whose outcome nobody knows, by its upstream's policy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task came to: the images by slot, what was sent, and why a slot stayed empty.

    `calls` counts those that an upstream may have executed; `facts` tells of every one.
    """

    images: tuple[Image, ...] = ()
    usage: Usage | None = None
    calls: int = 0
    upstreams: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    error: PublicError | None = None
    facts: tuple[CallFact, ...] = ()


@dataclass(slots=True)
class _Tally:
    """What happened so far to one task's slots."""

    open: list[int]
    sent: dict[int, int] = field(default_factory=dict)
    images: dict[int, Image] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    usages: list[Usage | None] = field(default_factory=list)
    dropped: dict[str, None] = field(default_factory=dict)
    facts: list[CallFact] = field(default_factory=list)
    calls: int = 0
    is_over: bool = False


@dataclass(slots=True)
class _Call:
    """One paid call under way: what it brought, and what went wrong."""

    choice: Choice
    call: Call
    began: float = field(default_factory=time.monotonic)
    images: list[Image] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    usage: Usage | None = None
    credits: Decimal | None = None

    @property
    def is_unexecuted(self) -> bool:
        return not self.images and all(one.executed is Executed.NO for one in self.verdicts)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One task's way through its plan. Nothing is sent that `reservation` does not hold and mark."""

    services: Services
    job: ImageJob
    spool: Spool
    reservation: Reservation
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
        if refusal := await self.reservation.afford(choice.quote):
            # A cheaper one further down the plan may still be within the limit.
            tally.verdicts.append(Verdict("not_affordable", Executed.NO, again=False, elsewhere=True, error=refusal))
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
        """One paid call, from its mark to its settlement."""
        if tally.is_over:
            return
        for slot in call.slots:
            tally.sent[slot] = tally.sent.get(slot, 0) + 1
        try:
            await self.reservation.mark_sent(call, choice.quote, choice.target.config.unknown_outcome)
        except PublicError as error:
            # What cannot be written down is not sent.
            tally.verdicts.append(Verdict("not_marked", Executed.NO, again=False, elsewhere=False, error=error))
            tally.is_over = True
            return
        under_way = _Call(choice, call)
        await self._send(under_way, inputs, tally)
        await self._settle(under_way, tally)

    async def _send(self, under_way: _Call, inputs: Inputs, tally: _Tally) -> None:
        """Send the call and take its pictures in; whatever fails is judged."""
        choice, call = under_way.choice, under_way.call
        bridge = Bridge(choice.target, self.services.upstreams[choice.target.label], self.services.fetcher)
        try:
            made = await bridge.complete(call, inputs, self.spool)
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
        under_way.usage, under_way.credits = made.usage, made.credits
        for slot, (got, revised_prompt) in zip(call.slots, made.pictures, strict=False):
            taken = got if isinstance(got, Failure) else await self._receive(got, choice, slot)
            if isinstance(taken, Failure):
                under_way.verdicts.append(self._judge(choice, taken, tally, [slot]))
                continue
            usage = made.usage if slot == call.slots[-1] else None
            under_way.images.append(replace(taken, revised_prompt=revised_prompt, usage=usage))
            if taken.is_withheld:
                under_way.verdicts.append(self._judge(choice, self._describe_withheld(taken, choice), tally, [slot]))
        # Slots that a 2xx left empty are not topped up: the vendor may have billed them.
        for slot in call.slots[len(made.pictures) :]:
            missing = Failure("body", message=f"{len(made.pictures)} of {call.n} images came")
            under_way.verdicts.append(self._judge(choice, missing, tally, [slot]))

    async def _receive(self, blob: Blob, choice: Choice, slot: int) -> Image | Failure:
        """One picture's trouble must not take the others, which are paid."""
        promise = Promise(choice.fit.made, choice.other_size)
        receiver = Receiver(self.services.darkroom, self.services.artifacts)
        try:
            artifact, made = await receiver.receive(blob, self.job, self.spool, promise)
        except CallFailed as failed:
            return failed.failure
        except Exception as error:  # noqa: BLE001 (the same)
            _log.exception("a picture could not be taken in")
            return Failure("collect", message=type(error).__name__)
        image = Image(slot, artifact, made, choice.target.upstream, choice.target.label)
        if not promise.is_broken_by(made):
            return image
        self.services.drift.note(choice.target.upstream, "made", "size", f"{promise.size} became {made}")
        return replace(image, is_withheld=promise.other_size == "refuse")

    def _describe_withheld(self, image: Image, choice: Choice) -> Failure:
        where = link(image.artifact.id, image.artifact.expires, self.services.signing_key)
        return Failure("body", message=f"it made {image.made} in place of {choice.fit.made}, which is kept at {where}")

    async def _settle(self, under_way: _Call, tally: _Tally) -> None:
        """Book what the call cost, then hand its images out: what a caller has is always paid for."""
        choice, call = under_way.choice, under_way.call
        images = [image for image in under_way.images if not image.is_withheld]
        made = [image.made for image in under_way.images]
        usd: int | None = 0
        state: Settled = "void"
        if made:
            usd = pricing.bill(
                choice.target.prices, self.job, choice.fit, made, usage=under_way.usage, charged=under_way.credits
            )
            state = "posted"
            await self.reservation.post(call, usd, len(images))
        elif under_way.is_unexecuted:
            await self.reservation.nack(call)
        else:
            state = _GIVEN_UP[choice.target.config.unknown_outcome]
            usd = await self.reservation.give_up(call, choice.quote, choice.target.config.unknown_outcome)
        for index, image in enumerate(images):
            paid = replace(image, usd=share(usd, index, len(images)))
            tally.images[image.slot] = paid
            tally.open.remove(image.slot)
            self.report(paid)
        tally.facts.append(
            CallFact(
                id=call.id,
                upstream=choice.target.upstream,
                target=choice.target.label,
                outcome="delivered" if images else under_way.verdicts[-1].kind,
                seconds=round(time.monotonic() - under_way.began, 3),
                n=call.n,
                images=len(images),
                usd=usd,
                state=state,
                **_describe_sizes(choice, made),
            )
        )

    def _judge(
        self, choice: Choice, failure: Failure, tally: _Tally, slots: list[int], *, is_paid: bool = False
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
        if verdict.drift:
            unknown = "model" if verdict.kind == "missing" else None
            self.services.drift.note(choice.target.upstream, "refused", failure.param or unknown)
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
        return verdict

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
            facts=tuple(tally.facts),
        )


def _describe_sizes(choice: Choice, made: list[Size]) -> dict[str, Any]:
    """What the record of a call tells of sizes: nothing, unless one is not as it was to be."""
    promised = choice.fit.made
    if promised is None or all(one == promised for one in made):
        return {}
    return {"promised": str(promised), "made": tuple(map(str, made))}


def share(usd: int | None, index: int, count: int) -> int | None:
    """One image's part of a bill; the parts add up to the whole."""
    return None if usd is None else usd // count + (index < usd % count)


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
