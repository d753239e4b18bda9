"""How a target is at a moment, and why a call cannot go there now: plain facts, made by `store.targets`.

Read by `narrowing`, `dispatch` and whoever shows them. Knows no store.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway import errors
from gateway.catalogue.capabilities import Fit
from gateway.catalogue.pricing import tier_of
from gateway.errors import PublicError
from gateway.jobs.sizes import SQUARE

Breaker = Literal["closed", "open", "half"]
Reason = Literal["open", "probing", "limit", "credential", "low", "braked", "full", "busy"]

LONGEST_WAIT = 30.0
"""Seconds that a request waits for a target which asked to be left alone, before its answer passes the time on."""

_PASSING: frozenset[Reason] = frozenset({"limit", "full", "busy"})

_STATES: Mapping[Reason, str] = {
    "open": "left alone",
    "limit": "rate limit",
    "credential": "refused",
    "low": "low balance",
    "braked": "braked",
}

_WORDS: Mapping[Reason, str] = {
    "open": "it failed too often and is left alone",
    "probing": "it failed too often, and one call is trying it",
    "limit": "its rate limit is reached",
    "credential": "it refused the gateway's credential",
    "low": "its balance is below the floor",
    "braked": "too many of its calls may have been billed for nothing",
    "full": "all its places are taken",
    "busy": "its calls a minute are used up",
}


@dataclass(frozen=True, slots=True)
class Block:
    """Why a call cannot go to a target now, and the seconds after which it is worth asking again; 0 is not known."""

    reason: Reason
    wait: float = 0.0

    @property
    def words(self) -> str:
        return _WORDS[self.reason]

    @property
    def is_passing(self) -> bool:
        """Whether a request waits for it rather than for an answer from elsewhere."""
        return self.reason in _PASSING and self.wait <= LONGEST_WAIT


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of the last good calls of one quality and size."""

    samples: int
    median: float


@dataclass(frozen=True, slots=True)
class Condition:
    """One target as all processes know it. Durations in seconds, `presumed` in µ$ of the last hour."""

    breaker: Breaker = "closed"
    opens_in: float = 0.0
    cooled_for: float = 0.0
    cooled_why: str = ""
    in_flight: int = 0
    presumed: int = 0
    braked_for: float = 0.0
    is_low: bool = False
    balance: str | None = None
    checked: int | None = None
    trouble: str = ""
    latencies: Mapping[str, Latency] = field(default_factory=dict)

    def bar(self, *, has_floor: bool, brake: int | None) -> Block | None:
        """What keeps calls away, if anything. Not its caps: whether those are reached is known when a call begins."""
        if self.breaker == "open":
            return Block("open", self.opens_in)
        if self.cooled_for > 0:
            return Block("credential" if self.cooled_why == "credential" else "limit", self.cooled_for)
        if has_floor and self.is_low:
            return Block("low")
        if brake is not None and self.presumed > brake:
            return Block("braked", self.braked_for)
        return None

    def describe(self, *, has_floor: bool, brake: int | None) -> tuple[str, float]:
        """Its state in a word or two, and for how many seconds it stays so; 0 is not known."""
        if found := self.bar(has_floor=has_floor, brake=brake):
            return _STATES[found.reason], found.wait
        return ("tried again" if self.breaker == "half" else "ok"), 0.0


def read_latency(text: str) -> Latency:
    """Samples as the store keeps them: milliseconds with commas between."""
    samples = [int(one) for one in text.split(",") if one]
    return Latency(len(samples), statistics.median(samples) / 1000 if samples else 0.0)


def refuse(bars: list[Block]) -> PublicError:
    """The answer where every target that could serve is kept away from; it tells the least time."""
    waits = [bar.wait for bar in bars if bar.wait > 0]
    reasons = "; ".join(dict.fromkeys(bar.words for bar in bars))
    if all(bar.reason in _PASSING for bar in bars):
        return errors.RateLimited(
            f"No upstream takes this request now ({reasons}); nothing was sent.", retry_after=_seconds(waits, 60)
        )
    return errors.UpstreamUnavailable(
        f"No upstream can take this request now ({reasons}); nothing was sent.", retry_after=_seconds(waits, 120)
    )


def _seconds(waits: list[float], most: int) -> int:
    return min(max(math.ceil(min(waits, default=5)), 1), most)


def kind_of(fit: Fit) -> str:
    """The kind of call whose seconds are comparable, as `high/2K`; a size that nobody knows counts as a square."""
    return f"{fit.quality or 'medium'}/{tier_of(fit.made or SQUARE)}"
