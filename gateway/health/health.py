"""One process's view of the targets' health: permits for calls, reports of their outcomes, and the last conditions.

While Redis is unavailable the last conditions stay, and every call gets a permit: a call that cannot be marked in Redis
is not sent in any case.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

import orjson
import structlog

from gateway.catalogue.capabilities import Fit
from gateway.catalogue.catalogue import Target
from gateway.catalogue.upstream import HealthRules
from gateway.health.condition import (
    Block,
    Caps,
    Condition,
    Latency,
    Pauses,
    Reason,
    find_pause,
    kind_of,
    make_caps,
    read_condition,
)
from gateway.ids import new_id
from gateway.store.client import Command, CommandQueue, StoreUnavailable
from gateway.store.lua import join_scripts, read_sources
from gateway.store.outbox import Outbox
from gateway.store.windows import MICROSECONDS
from gateway.upstreams.verdict import Executed, Verdict

LOOK_S = 1.0
"""Seconds for which a plan may use the last conditions. The start of each call asks the store."""

_LONGEST_COOL = 3600.0
"""The longest cool-down in seconds that a vendor can ask for."""

_UNCOUNTED = frozenset({"refused", "policy", "credential", "unfit"})
"""Kinds of failure that the circuit breaker does not count: the caller's, and rejected credentials."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to one call at a target. Its holder must return it by `Health.finish`."""

    target: Target
    key: str
    """The digest of the key that the call is sent with."""

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
        self.pauses: Pauses = {}
        """The pauses of operators, as of the last look."""
        # Calls of other processes, as of the last look.
        self._others: dict[str, int] = {}
        self._looking: asyncio.Task[None] | None = None
        # By target, this process's permits.
        self._held: dict[str, dict[str, Permit]] = {label: {} for label in self._targets}
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
        """Return every target's condition, at most `look_s` old; while Redis is unavailable, the last known, if any."""
        if time.monotonic() - self._seen_at >= self._look_s:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._refresh())
            await asyncio.shield(self._looking)
        return self._seen

    def latency(self, fit: Fit, target: Target) -> Latency | None:
        """Return the latency of calls of this quality and size, as of the last look; None if it found none."""
        condition = self._seen.get(target.label)
        return condition.latencies.get(kind_of(fit)) if condition else None

    def find_blocks(self) -> dict[str, Block]:
        """Return the blocks, by target, for whose end no request waits, as of the last look."""
        found = ((label, self._find_block(target)) for label, target in self._targets.items())
        return {label: block for label, block in found if block is not None and not block.is_passing}

    def _find_block(self, target: Target) -> Block | None:
        if self.pauses and (paused := find_pause(self.pauses, target.upstream)) is not None:
            return paused
        caps = caps_of(target)
        condition = self._seen.get(target.label, Condition())
        key = target.key_digest
        return condition.find_block(has_floor=caps.has_floor, spend_limit=caps.spend_limit, key=key)

    def medians(self) -> dict[tuple[str, str], float]:
        """Return the median seconds of good calls, by target and kind of call, as of the last look."""
        return {
            (label, kind): latency.median
            for label, condition in self._seen.items()
            for kind, latency in condition.latencies.items()
        }

    def load(self, target: Target) -> tuple[float, float]:
        """Return a sort key, least loaded first: running calls by weight, then this process's permits by weight."""
        weight = target.weight
        busy = len(self._held[target.label]) + self._others.get(target.label, 0)
        return busy / weight, self._passes.get(target.label, 0.0)

    async def take(self, target: Target) -> Permit | Block:
        """Take a permit for one call from the store, or return the block. While Redis is unavailable it is a permit."""
        permit = Permit(target, target.key_digest)
        try:
            return await self.store.run(self.make_take(permit))
        except StoreUnavailable:
            # Without Redis the call cannot be marked either, so nothing is sent.
            return self._hold(permit)

    def make_take(self, permit: Permit) -> Command[Permit | Block]:
        """The command that takes a new permit. Its result is the permit, or the block."""
        target = permit.target

        def read(answer: list[str]) -> Permit | Block:
            return read_block(answer) or self._hold(permit)

        facts = (target.label, permit.id, self._lease_s, caps_of(target), permit.key, target.upstream)
        return self.store.make_take(*facts, read)

    def _hold(self, permit: Permit) -> Permit:
        label = permit.target.label
        self._held[label][permit.id] = permit
        floor = min(self._passes.values(), default=0.0)
        self._passes[label] = max(self._passes.get(label, floor), floor) + 1 / permit.target.weight
        return permit

    def is_held(self, permit: Permit) -> bool:
        """True from the taking of a permit by this process to its return."""
        return permit.id in self._held[permit.target.label]

    def finish(self, permit: Permit, report: CallReport) -> None:
        """Give a permit back, and report the call's outcome to the store in the background. Has an effect once."""
        if self._held[permit.target.label].pop(permit.id, None) is None:
            return
        self.reports.put(f"{permit.target.label} {permit.id}", (permit, report))

    async def renew_permits(self) -> None:
        """Renew the permits of this process's running calls; due several times a lease. Raises nothing."""
        for label, permits in self._held.items():
            if permits:
                with suppress(StoreUnavailable):
                    await self.store.hold(label, list(permits), self._lease_s)

    async def read(self) -> None:
        """Read every target's condition from the store now. Raises StoreUnavailable."""
        self._seen, self.pauses = await self.store.look_with_pauses(list(self._targets))
        self._others = {label: max(0, seen.in_flight - len(self._held[label])) for label, seen in self._seen.items()}

    async def _refresh(self) -> None:
        with suppress(StoreUnavailable):
            await self.read()
        # Also while Redis is away, so that the next request does not ask again at once.
        self._seen_at = time.monotonic()

    async def _write_report(self, item: tuple[Permit, CallReport]) -> None:
        permit, report = item
        target = permit.target
        change = await self.store.finish(target.label, permit.id, report, target.config.health, permit.key)
        if change.breaker or change.cooled:
            self._seen_at = float("-inf")
        if change.breaker == "opened":
            _log.error("circuit opened: the upstream fails too often", upstream=target.label, last=report.result)
        elif change.breaker == "closed":
            _log.info("circuit closed: the upstream works again", upstream=target.label)
        if change.cooled == "credential":
            log_rejected_credential(target, report.cool, report.reason)


def log_rejected_credential(target: Target, seconds: float, reason: str) -> None:
    """Log that a vendor rejected a credential for `reason`, and the seconds for which no call goes to it."""
    event = "credential rejected: no call goes to it for a time; see `imagegate upstreams`"
    _log.error(event, upstream=target.label, reason=reason, seconds=round(seconds))


def report_call(
    fit: Fit, target: Target, verdicts: Sequence[Verdict], *, images: int, seconds: float, presumed: int
) -> CallReport:
    """Make the report of one call: good if it has images, else by the last verdict. `presumed` is in µ$."""
    if images:
        return CallReport("good", kind=kind_of(fit), seconds=seconds)
    return report_failure(verdicts[-1], target, presumed=presumed) if verdicts else CallReport("none")


def report_failure(verdict: Verdict, target: Target, *, presumed: int = 0) -> CallReport:
    """Make the report of a failed call. `presumed` is in µ$."""
    if verdict.credential_down:
        cool = target.config.health.cool_down
        return CallReport("none", cool=cool, why="credential", reason=verdict.kind, presumed=presumed)
    if verdict.kind in _UNCOUNTED:
        return CallReport("none", presumed=presumed)
    cool = min(verdict.cool, _LONGEST_COOL)
    if verdict.executed is Executed.NO:
        return CallReport("refusal", cool=cool, why="limit" if cool else "", presumed=presumed)
    return CallReport("unknown", presumed=presumed)


def caps_of(target: Target) -> Caps:
    """Return the catalogue's caps for a target."""
    return make_caps(target.credential_config, target.config.health)


Result = Literal["good", "unknown", "refusal", "none"]

# The scripts' words: `cooled_why` is stored, so they stay.
_REASONS: Mapping[str, Reason] = {
    "open": "circuit_open",
    "probing": "half_open",
    "limit": "rate_limited",
    "credential": "credential_rejected",
    "low": "low_balance",
    "braked": "paused_by_spend_limit",
    "full": "full",
    "busy": "busy",
    "paused": "paused",
}

SCRIPTS = join_scripts(read_sources("targets"), "health.health", "health.pauses")


@dataclass(frozen=True, slots=True)
class CallReport:
    """The outcome of one call. `cool` is the seconds of a cool-down, `why` its cause, and `reason` the failure's kind.

    `kind` is the quality and size of a good call, and `seconds` its duration; `presumed` is in µ$.
    """

    result: Result
    cool: float = 0.0
    why: Literal["limit", "credential", ""] = ""
    reason: str = ""
    kind: str = ""
    seconds: float = 0.0
    presumed: int = 0


@dataclass(frozen=True, slots=True)
class TargetChange:
    """The change by a report: of the breaker, and the cause of a new cool-down; "" is no change."""

    breaker: Literal["opened", "closed", ""] = ""
    cooled: Literal["limit", "credential", ""] = ""


class TargetStore:
    """The targets' health in one store. Every method raises StoreUnavailable. `now` (µs) is for tests."""

    def __init__(self, command_queue: CommandQueue, *, now: Callable[[], int] | None = None) -> None:
        self._command_queue = command_queue
        self._now = now

    async def take(
        self, label: str, permit: str, lease_s: float, caps: Caps, key: str = "", upstream: str = ""
    ) -> Block | None:
        """Take the permit `permit` for one call, for `lease_s` seconds from its last renewal; return None or the block.

        In all methods `key` is the digest of the present key; "" stands for any. An `upstream` of "" is never paused.
        """
        return await self.run(self.make_take(label, permit, lease_s, caps, key, upstream, read_block))

    def make_take(  # noqa: PLR0913 (one script's arguments)
        self,
        label: str,
        permit: str,
        lease_s: float,
        caps: Caps,
        key: str,
        upstream: str,
        read: Callable[[list[str]], T],
    ) -> Command[T]:
        """The command of `take`. `read` reads its answer. The next one of its chain runs if the permit is taken."""
        spend_limit = "" if caps.spend_limit is None else str(caps.spend_limit)
        words = (str(caps.at_once), str(caps.per_minute), spend_limit, str(int(caps.has_floor)))
        now = "" if self._now is None else str(self._now())
        return Command(SCRIPTS["take"], (now, label, permit, _us(lease_s), *words, key, upstream), read, "taken")

    async def run(self, command: Command[T]) -> T:
        """Run one command."""
        return cast(T, (await self._command_queue.run_chain(command))[0])

    async def finish(
        self, label: str, permit: str, report: CallReport, rules: HealthRules, key: str = ""
    ) -> TargetChange:
        """Give the permit back, store the call's outcome, and return the changes that it causes. Repeatable."""
        answer = await self._run(
            "finish",
            label,
            permit,
            report.result,
            _us(report.cool),
            report.why,
            report.kind,
            str(round(report.seconds * 1000)),
            str(report.presumed),
            *(str(rules.calls), _us(rules.window), str(rules.unknown), str(rules.refusals)),
            *(_us(rules.open), _us(rules.open_most), str(rules.good)),
            key,
        )
        return TargetChange(*cast(Any, answer[1:])) if answer[0] == "done" else TargetChange()

    async def hold(self, label: str, permits: Sequence[str], lease_s: float) -> None:
        """Renew the permits of running calls for `lease_s` seconds from now."""
        await self._run("hold", label, _us(lease_s), *permits)

    async def look(self, labels: Sequence[str]) -> dict[str, Condition]:
        """Return the conditions of some targets, by label."""
        return (await self.look_with_pauses(labels))[0]

    async def look_with_pauses(self, labels: Sequence[str]) -> tuple[dict[str, Condition], Pauses]:
        """Return the conditions of some targets, by label, and all pauses of operators."""
        *found, pauses = await self._run("look", *labels)
        conditions = {label: read_condition(orjson.loads(text)) for label, text in zip(labels, found, strict=True)}
        return conditions, {scope: int(left) / MICROSECONDS for scope, left in orjson.loads(pauses).items()}

    async def take_turn(self, label: str, every_s: float) -> bool:
        """Take the turn to check a target. Return False if a process took it within the last `every_s` seconds.

        A half-open breaker shortens this time to a tenth.
        """
        return (await self._run("check", label, _us(every_s)))[0] == "yours"

    async def note_check(
        self,
        label: str,
        *,
        trouble: str = "",
        balance: str = "",
        is_low: bool = False,
        cool: float = 0.0,
        key: str = "",
    ) -> str:
        """Store a free call's result; `trouble` is "" for success. Return `low` or `credential` if new, else ""."""
        return (await self._run("checked", label, trouble, balance, str(int(is_low)), _us(cool), key))[1]

    async def reset(self, label: str) -> None:
        """Close a target's breaker, and end its cool-down, its low balance and its pause by the spend limit."""
        await self._run("reset", label)

    async def _run(self, name: str, *arguments: str) -> list[str]:
        now = "" if self._now is None else str(self._now())
        return await self._command_queue.run(SCRIPTS[name], now, *arguments)


def read_block(answer: list[str]) -> Block | None:
    """Read the answer of `take`: the block, or None for a permit."""
    return None if answer[0] == "taken" else Block(_REASONS[answer[0]], int(answer[1]) / MICROSECONDS)


def _us(seconds: float) -> str:
    return str(round(seconds * MICROSECONDS))
