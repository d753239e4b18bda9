"""What all processes know of the targets' health, each step one script: breaker, cool-down, places, latencies, balance.

Called by `health`. Times are µs, amounts µ$. Never keeps a paid answer waiting: whoever reports does so aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

_SCRIPTS = join_scripts(read_sources("targets"), "health.target_store")


@dataclass(frozen=True, slots=True)
class CallReport:
    """What one call taught. `cool` is for how many seconds the target wants to be left alone, and `why`.

    `kind` names quality and size of a good call, whose `seconds` then count; `presumed` is in µ$.
    """

    result: Result
    cool: float = 0.0
    why: Literal["limit", "credential", ""] = ""
    kind: str = ""
    seconds: float = 0.0
    presumed: int = 0


@dataclass(frozen=True, slots=True)
class Caps:
    """What bounds the calls to one target; 0 and None bound nothing. `brake` is in µ$ an hour."""

    at_once: int = 0
    per_minute: int = 0
    brake: int | None = None
    has_floor: bool = False


@dataclass(frozen=True, slots=True)
class TargetChange:
    """What a report changed: the breaker, and why the target is left alone from now on; "" is nothing."""

    breaker: Literal["opened", "closed", ""] = ""
    cooled: Literal["limit", "credential", ""] = ""


def make_caps(credential: Credential, rules: HealthRules) -> Caps:
    """What the catalogue bounds of a credential."""
    return Caps(
        at_once=credential.max_concurrent or 0,
        per_minute=credential.requests_per_minute or 0,
        brake=None if rules.presumed_per_hour is None else round(rules.presumed_per_hour * MICRO),
        has_floor=credential.min_balance is not None,
    )


class TargetStore:
    """The targets' health in one store. `now` replaces the server's clock in tests."""

    def __init__(self, command_queue: CommandQueue, *, now: Callable[[], int] | None = None) -> None:
        self._command_queue = command_queue
        self._now = now

    async def take(self, label: str, permit: str, lease_s: float, caps: Caps) -> Block | None:
        """A place for one call, until `lease_s` after it was last held; or why there is none."""
        brake = "" if caps.brake is None else str(caps.brake)
        words = (str(caps.at_once), str(caps.per_minute), brake, str(int(caps.has_floor)))
        answer = await self._run("take", label, permit, _us(lease_s), *words)
        return None if answer[0] == "taken" else Block(cast(Reason, answer[0]), int(answer[1]) / MICROSECONDS)

    async def finish(self, label: str, permit: str, report: CallReport, rules: HealthRules) -> TargetChange:
        """Give the place back, and let everybody know how the call went."""
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

    async def hold(self, label: str, rights: Sequence[str], lease_s: float) -> None:
        """Keep the places of calls that are under way."""
        await self._run("hold", label, _us(lease_s), *rights)

    async def look(self, labels: Sequence[str]) -> dict[str, Condition]:
        """How some targets are."""
        found = await self._run("look", *labels)
        return {label: _read(orjson.loads(text)) for label, text in zip(labels, found, strict=True)}

    async def take_turn(self, label: str, every_s: float) -> bool:
        """Whether it is this process's turn to look after a target."""
        return (await self._run("check", label, _us(every_s)))[0] == "yours"

    async def note_check(
        self, label: str, *, trouble: str = "", balance: str = "", is_low: bool = False, cool: float = 0.0
    ) -> str:
        """Tell everybody what a free call told; answers `low` or `credential` when that is news."""
        return (await self._run("checked", label, trouble, balance, str(int(is_low)), _us(cool)))[1]

    async def reset(self, label: str) -> None:
        """Use a target again, whatever was known of it."""
        await self._run("reset", label)

    async def _run(self, name: str, *arguments: str) -> list[str]:
        now = "" if self._now is None else str(self._now())
        return await self._command_queue.run(_SCRIPTS[name], now, *arguments)


def _us(seconds: float) -> str:
    return str(round(seconds * MICROSECONDS))


def _read(found: dict[str, Any]) -> Condition:
    return Condition(
        breaker=cast(Breaker, found["breaker"]),
        opens_in=int(found["open_us"]) / MICROSECONDS,
        cooled_for=int(found["cooled_us"]) / MICROSECONDS,
        cooled_why=found["cooled_why"],
        in_flight=int(found["in_flight"]),
        presumed=int(found["presumed"]),
        braked_for=int(found["brake_us"]) / MICROSECONDS,
        is_low=found["is_low"],
        balance=found["balance"] or None,
        checked=int(found["checked"]) if found["checked"] else None,
        trouble=found["trouble"],
        latencies={kind: read_latency(text) for kind, text in found["latency"].items() if kind},
    )
