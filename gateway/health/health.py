"""One process's view of the targets' health: permits for calls, reports of their outcomes, and the last conditions.

While Redis is away the last conditions stay, and nothing here blocks a call: a call that cannot be marked in Redis is
not sent in any case.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from gateway.catalogue.capabilities import Fit
from gateway.catalogue.catalogue import Target
from gateway.health.condition import Block, Condition, Latency, kind_of
from gateway.health.target_store import CallReport, Caps, TargetStore, make_caps
from gateway.ids import new_id
from gateway.store.client import StoreUnavailable
from gateway.store.outbox import Outbox
from gateway.upstreams.verdict import Executed, Verdict

LOOK_S = 1.0
"""Seconds for which a plan may use the last conditions. The start of each call asks the store."""

_LONGEST_COOL = 3600.0
"""The longest cool-down in seconds, also when a vendor asks for more."""

_UNCOUNTED = frozenset({"refused", "policy", "credential", "unfit"})
"""Failures that do not count against an upstream: the caller's, and those with a cool-down of the credential."""

LEAST = 10
"""Retries of a minute that are always allowed."""

SHARE = 0.1
"""The share of a minute's calls that may be retries."""

_MINUTE = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to one call at a target. Its holder must return it by `Health.finish`."""

    target: Target
    id: str = field(default_factory=lambda: new_id("permit"))


class Health:
    """The targets' health in one process. A permit of a dead process expires after `lease_s` seconds."""

    def __init__(
        self, store: TargetStore, targets: Iterable[Target], *, lease_s: float, look_s: float = LOOK_S
    ) -> None:
        self.store = store
        self._targets = {target.label: target for target in targets}
        self._lease_s = lease_s
        self._look_s = look_s
        self._seen: dict[str, Condition] = {}
        self._seen_at = float("-inf")
        # Calls of other processes, as of the last look.
        self._others: dict[str, int] = {}
        self._looking: asyncio.Task[None] | None = None
        self._held: dict[str, Permit] = {}
        self._passes: dict[str, float] = {}
        # All at once, since the next call may need the permit. A late report is of no use: the permit's lease ends.
        self.reports: Outbox[tuple[Permit, CallReport]] = Outbox("health reports", self._write_report, pause_s=None)

    @property
    def targets(self) -> Mapping[str, Target]:
        return self._targets

    def forget(self) -> None:
        """Drop the last conditions, so that the next look asks the store."""
        self._seen.clear()
        self._seen_at = float("-inf")
        self._passes.clear()
        self._others.clear()

    async def look(self) -> Mapping[str, Condition]:
        """Return every target's condition, at most a second old; while Redis is away, the last known one."""
        if time.monotonic() - self._seen_at >= self._look_s:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._refresh())
            await asyncio.shield(self._looking)
        return self._seen

    def latency(self, fit: Fit, target: Target) -> Latency | None:
        """Return the known latency of such calls at a target, without asking the store."""
        condition = self._seen.get(target.label)
        return condition.latencies.get(kind_of(fit)) if condition else None

    def find_blocks(self) -> dict[str, Block]:
        """Return the targets that are blocked for longer than a request waits, as of the last look."""
        found = ((label, self._find_block(target)) for label, target in self._targets.items())
        return {label: block for label, block in found if block is not None and not block.is_passing}

    def _find_block(self, target: Target) -> Block | None:
        caps = caps_of(target)
        condition = self._seen.get(target.label, Condition())
        return condition.find_block(has_floor=caps.has_floor, spend_limit=caps.spend_limit)

    def medians(self) -> dict[tuple[str, str], float]:
        """Return the median seconds of good calls, by target and kind of call."""
        return {
            (label, kind): latency.median
            for label, condition in self._seen.items()
            for kind, latency in condition.latencies.items()
        }

    def load(self, target: Target) -> tuple[float, float]:
        """Return the sort key of credentials of one rank: calls under way, then permits given, both by weight."""
        weight = target.weight
        busy = self._own(target.label) + self._others.get(target.label, 0)
        return busy / weight, self._passes.get(target.label, 0.0)

    async def take(self, target: Target) -> Permit | Block:
        """Return a permit for one call, or the reason why there is none."""
        permit = Permit(target)
        try:
            block = await self.store.take(target.label, permit.id, self._lease_s, caps_of(target))
        except StoreUnavailable:
            # Without Redis the call cannot be marked either, so nothing is sent.
            block = None
        if block is not None:
            return block
        self._held[permit.id] = permit
        floor = min(self._passes.values(), default=0.0)
        self._passes[target.label] = max(self._passes.get(target.label, floor), floor) + 1 / target.weight
        return permit

    def finish(self, permit: Permit, report: CallReport) -> None:
        """Return a permit, and report the call's outcome to all processes soon."""
        if self._held.pop(permit.id, None) is None:
            return
        self.reports.put(f"{permit.target.label} {permit.id}", (permit, report))

    async def renew_permits(self) -> None:
        """Renew the permits of the calls under way; due several times a lease."""
        by_label: dict[str, list[str]] = {}
        for permit in self._held.values():
            by_label.setdefault(permit.target.label, []).append(permit.id)
        for label, permits in by_label.items():
            with suppress(StoreUnavailable):
                await self.store.hold(label, permits, self._lease_s)

    def _own(self, label: str) -> int:
        return sum(permit.target.label == label for permit in self._held.values())

    async def read(self) -> None:
        """Read every target's condition from the store now. Raises StoreUnavailable."""
        self._seen = await self.store.look(list(self._targets))
        self._others = {label: max(0, seen.in_flight - self._own(label)) for label, seen in self._seen.items()}

    async def _refresh(self) -> None:
        with suppress(StoreUnavailable):
            await self.read()
        # Also while Redis is away, so that the next request does not ask again at once.
        self._seen_at = time.monotonic()

    async def _write_report(self, item: tuple[Permit, CallReport]) -> None:
        permit, report = item
        target = permit.target
        change = await self.store.finish(target.label, permit.id, report, target.config.health)
        if change.breaker or change.cooled:
            self._seen_at = float("-inf")
        if change.breaker == "opened":
            _log.error("circuit opened: the upstream fails too often", upstream=target.label, last=report.result)
        elif change.breaker == "closed":
            _log.info("circuit closed: the upstream works again", upstream=target.label)
        if change.cooled == "credential":
            log_rejected_credential(target, report.cool)


def log_rejected_credential(target: Target, seconds: float) -> None:
    """Log that a vendor rejected a credential, for the operator."""
    _log.error(
        "credential rejected: no call goes to it for a time; see `imagegate upstreams`",
        upstream=target.label,
        seconds=round(seconds),
    )


def report_call(
    fit: Fit, target: Target, verdicts: Sequence[Verdict], *, images: int, seconds: float, presumed: int
) -> CallReport:
    """Make the report of one call for its target's health."""
    if images:
        return CallReport("good", kind=kind_of(fit), seconds=seconds)
    return report_failure(verdicts[-1], target, presumed=presumed) if verdicts else CallReport("none")


def report_failure(verdict: Verdict, target: Target, *, presumed: int = 0) -> CallReport:
    """Make the report of a failed call."""
    if verdict.credential_down:
        return CallReport("none", cool=target.config.health.cool_down, why="credential", presumed=presumed)
    if verdict.kind in _UNCOUNTED:
        return CallReport("none", presumed=presumed)
    cool = min(verdict.cool, _LONGEST_COOL)
    if verdict.executed is Executed.NO:
        return CallReport("refusal", cool=cool, why="limit" if cool else "", presumed=presumed)
    return CallReport("unknown", presumed=presumed)


def caps_of(target: Target) -> Caps:
    """Return the catalogue's caps for a target."""
    return make_caps(target.credential_config, target.config.health)


class RetryBudget:
    """How often one process sends to the same target again: `LEAST` times a minute, or a `SHARE` of the minute's calls.

    Without a bound every retry would make an upstream's bad minute worse. `clock` tells seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: deque[float] = deque()
        self._retries: deque[float] = deque()

    def note_call(self) -> None:
        """Count a call that was sent, a retry or not."""
        self._calls.append(self._clock())

    def take(self) -> bool:
        """Count one more retry, and return True, when it may be sent."""
        now = self._clock()
        for times in (self._calls, self._retries):
            while times and times[0] <= now - _MINUTE:
                times.popleft()
        if len(self._retries) >= max(LEAST, int(SHARE * len(self._calls))):
            return False
        self._retries.append(now)
        return True

    def forget(self) -> None:
        self._calls.clear()
        self._retries.clear()
