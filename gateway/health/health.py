"""One process's view of the targets' health: places for calls, what these taught, and a picture of all, a second old.

Asked by `pipeline`, `dispatch`, `waiting` and `cli_quote`. While Redis is away the last picture stays, and nothing here
stands in a call's way: what cannot be written down is not sent in any case.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from gateway.catalogue.capabilities import Fit
from gateway.catalogue.catalogue import Target
from gateway.health.condition import Block, Condition, Latency, kind_of
from gateway.health.target_store import CallReport, Caps, TargetStore, make_caps
from gateway.ids import new_id
from gateway.store.client import StoreUnavailable
from gateway.upstreams.verdict import Executed, Verdict

LOOK_S = 1.0
"""Seconds that a picture of the targets is good for a plan. Whether a call may begin is asked anew each time."""

_LONGEST_COOL = 3600.0
"""Seconds; a vendor that names more is asked again all the same."""

_UNCOUNTED = frozenset({"refused", "policy", "credential", "unfit"})
"""Failures that say nothing of an upstream's health: the caller's, and those that cool the credential down."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Permit:
    """The place of one call at a target. Whoever has it must give it back by `Health.finish`."""

    target: Target
    id: str = field(default_factory=lambda: new_id("permit"))


class Health:
    """The targets' health in one process. `lease_s` is how long a dead process's places stay taken."""

    def __init__(
        self, store: TargetStore, targets: Iterable[Target], *, lease_s: float, look_s: float = LOOK_S
    ) -> None:
        self.store = store
        self._targets = {target.label: target for target in targets}
        self._lease_s = lease_s
        self._look_s = look_s
        self._seen: dict[str, Condition] = {}
        self._seen_at = float("-inf")
        # Calls of other processes, as the last look told.
        self._others: dict[str, int] = {}
        self._looking: asyncio.Task[None] | None = None
        self._held: dict[str, Permit] = {}
        self._passes: dict[str, float] = {}
        self._reports: set[asyncio.Task[None]] = set()

    @property
    def targets(self) -> Mapping[str, Target]:
        return self._targets

    def forget(self) -> None:
        """Have the next look ask the store."""
        self._seen.clear()
        self._seen_at = float("-inf")
        self._passes.clear()
        self._others.clear()

    async def look(self) -> Mapping[str, Condition]:
        """How every target is, as it was known within the last second; as it was last known while Redis is away."""
        if time.monotonic() - self._seen_at >= self._look_s:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._refresh())
            await asyncio.shield(self._looking)
        return self._seen

    def latency(self, fit: Fit, target: Target) -> Latency | None:
        """What is known of calls of that kind there, without asking anybody."""
        condition = self._seen.get(target.label)
        return condition.latencies.get(kind_of(fit)) if condition else None

    def bar(self, target: Target) -> Block | None:
        """What keeps calls away from a target, as far as the last look tells."""
        caps = caps_of(target)
        condition = self._seen.get(target.label, Condition())
        return condition.bar(has_floor=caps.has_floor, brake=caps.brake)

    def down(self) -> dict[str, Block]:
        """The targets that calls are kept away from for longer than a request waits, as far as the last look tells."""
        found = ((label, self.bar(target)) for label, target in self._targets.items())
        return {label: bar for label, bar in found if bar is not None and not bar.is_passing}

    def medians(self) -> dict[tuple[str, str], float]:
        """The median seconds of good calls, by target and kind of call."""
        return {
            (label, kind): latency.median
            for label, condition in self._seen.items()
            for kind, latency in condition.latencies.items()
        }

    def load(self, target: Target) -> tuple[float, float]:
        """What orders credentials of one rank, the least first: calls under way, then calls given, by weight."""
        weight = target.weight
        busy = self._own(target.label) + self._others.get(target.label, 0)
        return busy / weight, self._passes.get(target.label, 0.0)

    async def take(self, target: Target) -> Permit | Block:
        """A place for one call, or why there is none."""
        permit = Permit(target)
        try:
            bar = await self.store.take(target.label, permit.id, self._lease_s, caps_of(target))
        except StoreUnavailable:
            # Without Redis the call cannot be marked either, so nothing is sent.
            bar = None
        if bar is not None:
            return bar
        self._held[permit.id] = permit
        floor = min(self._passes.values(), default=0.0)
        self._passes[target.label] = max(self._passes.get(target.label, floor), floor) + 1 / target.weight
        return permit

    def finish(self, permit: Permit, report: CallReport) -> None:
        """Give a place back, and have everybody know how the call went, soon."""
        if self._held.pop(permit.id, None) is None:
            return
        telling = asyncio.create_task(self._tell(permit, report))
        self._reports.add(telling)
        telling.add_done_callback(self._reports.discard)

    @property
    def untold(self) -> int:
        """Reports on their way to the store."""
        return len(self._reports)

    async def settle(self) -> None:
        """Return once everything is told."""
        while self._reports:
            await asyncio.wait(set(self._reports))

    async def keep(self) -> None:
        """Hold the places of what is under way; called several times a lease."""
        by_label: dict[str, list[str]] = {}
        for permit in self._held.values():
            by_label.setdefault(permit.target.label, []).append(permit.id)
        for label, rights in by_label.items():
            with suppress(StoreUnavailable):
                await self.store.hold(label, rights, self._lease_s)

    def _own(self, label: str) -> int:
        return sum(permit.target.label == label for permit in self._held.values())

    async def read(self) -> None:
        """Ask the store now how every target is. Raises StoreUnavailable."""
        self._seen = await self.store.look(list(self._targets))
        self._others = {label: max(0, seen.in_flight - self._own(label)) for label, seen in self._seen.items()}

    async def _refresh(self) -> None:
        with suppress(StoreUnavailable):
            await self.read()
        # Not asked again at once while Redis is away, either.
        self._seen_at = time.monotonic()

    async def _tell(self, permit: Permit, report: CallReport) -> None:
        target = permit.target
        try:
            change = await self.store.finish(target.label, permit.id, report, target.config.health)
        except StoreUnavailable as error:
            _log.warning("an upstream's health could not be told", upstream=target.label, reason=str(error))
            return
        if change.breaker or change.cooled:
            self._seen_at = float("-inf")
        if change.breaker == "opened":
            _log.error("an upstream fails too often and is left alone", upstream=target.label, last=report.result)
        elif change.breaker == "closed":
            _log.info("an upstream works again", upstream=target.label)
        if change.cooled == "credential":
            tell_of_credential(target, report.cool)


def tell_of_credential(target: Target, seconds: float) -> None:
    """The one line by which an operator hears that a key does not work."""
    _log.error(
        "an upstream refuses our credential, which is left alone; see `imagegate upstreams`",
        upstream=target.label,
        seconds=round(seconds),
    )


def report_call(
    fit: Fit, target: Target, verdicts: Sequence[Verdict], *, images: int, seconds: float, presumed: int
) -> CallReport:
    """What one call says of its target's health."""
    if images:
        return CallReport("good", kind=kind_of(fit), seconds=seconds)
    return report_failure(verdicts[-1], target, presumed=presumed) if verdicts else CallReport("none")


def report_failure(verdict: Verdict, target: Target, *, presumed: int = 0) -> CallReport:
    """What a failure says of it."""
    if verdict.credential_down:
        return CallReport("none", cool=target.config.health.cool_down, why="credential", presumed=presumed)
    if verdict.kind in _UNCOUNTED:
        return CallReport("none", presumed=presumed)
    cool = min(verdict.cool, _LONGEST_COOL)
    if verdict.executed is Executed.NO:
        return CallReport("refusal", cool=cool, why="limit" if cool else "", presumed=presumed)
    return CallReport("unknown", presumed=presumed)


def caps_of(target: Target) -> Caps:
    """What the catalogue bounds of a target."""
    return make_caps(target.credential_config, target.config.health)
