"""The targets' health in Redis, shared by all processes: breaker, cool-down, permits, latencies, balance.

Each step is one script. Times are in µs, amounts in µ$.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import orjson

from gateway.catalogue.upstream import Credential, HealthRules
from gateway.dollars import MICRO
from gateway.health.condition import Block, Breaker, Condition, Reason, read_latency
from gateway.store.command_queue import CommandQueue
from gateway.store.lua import join_scripts, read_sources
from gateway.store.windows import MICROSECONDS

Result = Literal["good", "unknown", "refusal", "none"]

# The scripts' words: `cooled_why` is stored, so they stay.
_BREAKERS: Mapping[str, Breaker] = {"closed": "closed", "open": "open", "half": "half_open"}
_REASONS: Mapping[str, Reason] = {
    "open": "circuit_open",
    "probing": "half_open",
    "limit": "rate_limited",
    "credential": "credential_rejected",
    "low": "low_balance",
    "braked": "paused_by_spend_limit",
    "full": "full",
    "busy": "busy",
}

_SCRIPTS = join_scripts(read_sources("targets"), "health.target_store")


@dataclass(frozen=True, slots=True)
class CallReport:
    """The outcome of one call. `cool` is the seconds of a cool-down, and `why` its cause.

    `kind` is the quality and size of a good call, and `seconds` its duration; `presumed` is in µ$.
    """

    result: Result
    cool: float = 0.0
    why: Literal["limit", "credential", ""] = ""
    kind: str = ""
    seconds: float = 0.0
    presumed: int = 0


@dataclass(frozen=True, slots=True)
class Caps:
    """The bounds on calls to one target; 0 and None are no bound. `spend_limit` is in µ$ an hour."""

    at_once: int = 0
    per_minute: int = 0
    spend_limit: int | None = None
    has_floor: bool = False


@dataclass(frozen=True, slots=True)
class TargetChange:
    """The change by a report: of the breaker, and the cause of a new cool-down; "" is no change."""

    breaker: Literal["opened", "closed", ""] = ""
    cooled: Literal["limit", "credential", ""] = ""


def make_caps(credential: Credential, rules: HealthRules) -> Caps:
    """Return the catalogue's caps for a credential."""
    return Caps(
        at_once=credential.max_concurrent or 0,
        per_minute=credential.requests_per_minute or 0,
        spend_limit=None if rules.presumed_per_hour is None else round(rules.presumed_per_hour * MICRO),
        has_floor=credential.min_balance is not None,
    )


class TargetStore:
    """The targets' health in one store. `now` replaces the server's clock in tests."""

    def __init__(self, command_queue: CommandQueue, *, now: Callable[[], int] | None = None) -> None:
        self._command_queue = command_queue
        self._now = now

    async def take(self, label: str, permit: str, lease_s: float, caps: Caps) -> Block | None:
        """Take a permit for one call, valid for `lease_s` after its last renewal, or return the block."""
        spend_limit = "" if caps.spend_limit is None else str(caps.spend_limit)
        words = (str(caps.at_once), str(caps.per_minute), spend_limit, str(int(caps.has_floor)))
        answer = await self._run("take", label, permit, _us(lease_s), *words)
        return None if answer[0] == "taken" else Block(_REASONS[answer[0]], int(answer[1]) / MICROSECONDS)

    async def finish(self, label: str, permit: str, report: CallReport, rules: HealthRules) -> TargetChange:
        """Return the permit, and store the call's outcome."""
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
        )
        return TargetChange(*cast(Any, answer[1:])) if answer[0] == "done" else TargetChange()

    async def hold(self, label: str, permits: Sequence[str], lease_s: float) -> None:
        """Renew the permits of calls that are under way."""
        await self._run("hold", label, _us(lease_s), *permits)

    async def look(self, labels: Sequence[str]) -> dict[str, Condition]:
        """Return the conditions of some targets."""
        found = await self._run("look", *labels)
        return {label: _read(orjson.loads(text)) for label, text in zip(labels, found, strict=True)}

    async def take_turn(self, label: str, every_s: float) -> bool:
        """Return True when it is this process's turn to check a target."""
        return (await self._run("check", label, _us(every_s)))[0] == "yours"

    async def note_check(
        self, label: str, *, trouble: str = "", balance: str = "", is_low: bool = False, cool: float = 0.0
    ) -> str:
        """Store the result of a free call; return `low` or `credential` when that is new, else ""."""
        return (await self._run("checked", label, trouble, balance, str(int(is_low)), _us(cool)))[1]

    async def reset(self, label: str) -> None:
        """Clear every block of a target."""
        await self._run("reset", label)

    async def _run(self, name: str, *arguments: str) -> list[str]:
        now = "" if self._now is None else str(self._now())
        return await self._command_queue.run(_SCRIPTS[name], now, *arguments)


def _us(seconds: float) -> str:
    return str(round(seconds * MICROSECONDS))


def _read(found: dict[str, Any]) -> Condition:
    return Condition(
        breaker=_BREAKERS[found["breaker"]],
        opens_in=int(found["open_us"]) / MICROSECONDS,
        cooled_for=int(found["cooled_us"]) / MICROSECONDS,
        cooled_why=found["cooled_why"],
        in_flight=int(found["in_flight"]),
        presumed=int(found["presumed"]),
        paused_for=int(found["brake_us"]) / MICROSECONDS,
        is_low=found["is_low"],
        balance=found["balance"] or None,
        checked=int(found["checked"]) if found["checked"] else None,
        trouble=found["trouble"],
        latencies={kind: read_latency(text) for kind, text in found["latency"].items() if kind},
    )
