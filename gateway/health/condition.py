"""The condition of a target at one moment, and the reason why no call goes to it now. No store, no network."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway import errors
from gateway.catalogue.capabilities import Fit
from gateway.catalogue.pricing import tier_of
from gateway.catalogue.upstream import Credential, HealthRules
from gateway.dollars import MICRO
from gateway.errors import PublicError
from gateway.jobs.job import SQUARE
from gateway.store.windows import MICROSECONDS

Breaker = Literal["closed", "open", "half_open"]
Reason = Literal[
    "circuit_open",
    "half_open",
    "rate_limited",
    "credential_rejected",
    "low_balance",
    "paused_by_spend_limit",
    "full",
    "busy",
    "paused",
]
State = Reason | Literal["ok"]
"""The states of a credential that operators see: `ok`, or the reason why no call goes to it, or only one at a time."""

LONGEST_WAIT = 30.0
"""The longest block in seconds whose end a request waits for; a longer one goes to the caller as `Retry-After`."""

_LONGEST_SDK_WAIT = 60
"""The longest Retry-After in seconds that OpenAI's SDKs wait for."""

_PASSING: frozenset[Reason] = frozenset({"rate_limited", "full", "busy"})

_BREAKERS: Mapping[str, Breaker] = {"closed": "closed", "open": "open", "half": "half_open"}

_WORDS: Mapping[Reason, str] = {
    "circuit_open": "its circuit is open, since it failed too often",
    "half_open": "its circuit is half-open, and one call is testing it",
    "rate_limited": "its rate limit is reached",
    "credential_rejected": "it rejected the gateway's credential",
    "low_balance": "its balance is below the minimum",
    "paused_by_spend_limit": "it is paused by the spend limit: too many of its calls may have been billed for nothing",
    "full": "it has as many calls under way as it may",
    "busy": "its calls a minute are used up",
    "paused": "an operator paused it",
}


@dataclass(frozen=True, slots=True)
class Caps:
    """The bounds on calls to one target. A 0 in `at_once` and `per_minute` is no bound, nor is a `spend_limit` of None.

    `spend_limit` is in µ$ an hour. `has_floor` means that the credential has a minimum balance.
    """

    at_once: int = 0
    per_minute: int = 0
    spend_limit: int | None = None
    has_floor: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """The reason why a call cannot go to a target now, and the seconds until the next try; 0 is unknown."""

    reason: Reason
    wait: float = 0.0

    @property
    def words(self) -> str:
        return _WORDS[self.reason]

    @property
    def is_passing(self) -> bool:
        """True when a request may wait for the end of the block: it is a rate or concurrency limit, and short."""
        return self.reason in _PASSING and self.wait <= LONGEST_WAIT


@dataclass(frozen=True, slots=True)
class Latency:
    """The number of the last good calls of one quality and size, and the median of their seconds."""

    samples: int
    median: float


@dataclass(frozen=True, slots=True)
class Condition:
    """One target as all processes know it. Durations are in seconds, `presumed` in µ$ of the last hour.

    `paused_for` is the time until `presumed` falls, `cooled_key` the digest of the key that was rejected.
    `checked` is the time of the last check in µs, None before the first; `balance` is in credits, None if unknown.
    """

    breaker: Breaker = "closed"
    opens_in: float = 0.0
    cooled_for: float = 0.0
    cooled_why: str = ""
    cooled_key: str = ""
    in_flight: int = 0
    presumed: int = 0
    paused_for: float = 0.0
    is_low: bool = False
    balance: str | None = None
    checked: int | None = None
    trouble: str = ""
    latencies: Mapping[str, Latency] = field(default_factory=dict)

    def find_block(self, *, has_floor: bool, spend_limit: int | None, key: str = "") -> Block | None:
        """Return the block that keeps calls away; None if there is none.

        The target's caps are left out: only the start of a call shows whether one is reached. `spend_limit` is in µ$ an
        hour. `key` is the digest of the present key, which another key's cool-down does not block.
        """
        if self.breaker == "open":
            return Block("circuit_open", self.opens_in)
        is_others = self.cooled_why == "credential" and key and self.cooled_key not in ("", key)
        if self.cooled_for > 0 and not is_others:
            reason: Reason = "credential_rejected" if self.cooled_why == "credential" else "rate_limited"
            return Block(reason, self.cooled_for)
        if has_floor and self.is_low:
            return Block("low_balance")
        if spend_limit is not None and self.presumed > spend_limit:
            return Block("paused_by_spend_limit", self.paused_for)
        return None

    def describe(self, *, has_floor: bool, spend_limit: int | None) -> tuple[State, float]:
        """Return the state, and the seconds until its end, 0 if unknown. `spend_limit` is in µ$ an hour."""
        if found := self.find_block(has_floor=has_floor, spend_limit=spend_limit):
            return found.reason, found.wait
        return ("half_open" if self.breaker == "half_open" else "ok"), 0.0


def make_caps(credential: Credential, rules: HealthRules) -> Caps:
    """Return the catalogue's caps for a credential."""
    return Caps(
        at_once=credential.max_concurrent or 0,
        per_minute=credential.requests_per_minute or 0,
        spend_limit=None if rules.presumed_per_hour is None else round(rules.presumed_per_hour * MICRO),
        has_floor=credential.min_balance is not None,
    )


def show_state(state: State) -> str:
    """Return a state as people write it: `circuit open`, `half-open`."""
    return "half-open" if state == "half_open" else state.replace("_", " ")


def read_condition(found: Mapping[str, Any]) -> Condition:
    """Parse a target's facts in the store's form: times are texts of µs."""
    return Condition(
        breaker=_BREAKERS[found["breaker"]],
        opens_in=int(found["open_us"]) / MICROSECONDS,
        cooled_for=int(found["cooled_us"]) / MICROSECONDS,
        cooled_why=found["cooled_why"],
        cooled_key=found["cooled_key"],
        in_flight=int(found["in_flight"]),
        presumed=int(found["presumed"]),
        paused_for=int(found["brake_us"]) / MICROSECONDS,
        is_low=found["is_low"],
        balance=found["balance"] or None,
        checked=int(found["checked"]) if found["checked"] else None,
        trouble=found["trouble"],
        latencies={kind: read_latency(text) for kind, text in found["latency"].items() if kind},
    )


def read_latency(text: str) -> Latency:
    """Parse the samples of the store: milliseconds with commas between them."""
    samples = [int(one) for one in text.split(",") if one]
    return Latency(len(samples), statistics.median(samples) / 1000 if samples else 0.0)


def refuse(blocks: list[Block]) -> PublicError:
    """Make the error for a request that every target blocks. Its `Retry-After` is the shortest known wait, or 5 s.

    The `Retry-After` is at most 60 s if every block is `rate_limited`, `full` or `busy`, else at most 120 s. If every
    block is a pause, the error is Paused.
    """
    if {block.reason for block in blocks} == {"paused"}:
        return _make_paused("every upstream that could serve this request", min(blocks, key=_end_of).wait)
    waits = [block.wait for block in blocks if block.wait > 0]
    reasons = "; ".join(dict.fromkeys(block.words for block in blocks))
    if all(block.reason in _PASSING for block in blocks):
        return errors.RateLimited(
            f"No upstream takes this request now ({reasons}); nothing was sent.", retry_after=_seconds(waits, 60)
        )
    return errors.UpstreamUnavailable(
        f"No upstream can take this request now ({reasons}); nothing was sent.", retry_after=_seconds(waits, 120)
    )


Pauses = Mapping[str, float]
"""The seconds until the end of each pause, 0 for one without an end: of `everything`, `team:NAME`, `upstream:NAME`."""

EVERYTHING = "everything"


def find_pause(pauses: Pauses, upstream: str) -> Block | None:
    """Return the block of an upstream's pause; None if no operator paused it."""
    left = pauses.get(f"upstream:{upstream}")
    return None if left is None else Block("paused", left)


def refuse_paused(pauses: Pauses, team: str | None) -> PublicError | None:
    """Make the error for a new request of this team while everything or the team is paused; None if neither is."""
    if not pauses:
        return None
    blocks = [Block("paused", pauses[scope]) for scope in (EVERYTHING, f"team:{team}") if scope in pauses]
    if not blocks:
        return None
    what = "this gateway" if EVERYTHING in pauses else "this key's team"
    return _make_paused(what, max(blocks, key=_end_of).wait)


def _end_of(block: Block) -> float:
    return block.wait or math.inf


def _make_paused(what: str, left: float) -> PublicError:
    """Make the error for a pause of `what`, which ends after `left` seconds; 0 is no known end.

    SDKs wait at most a minute for a retry, so the error forbids one that comes too early.
    """
    seconds = math.ceil(left) or None
    end = f"; the pause ends in {seconds} s" if seconds else ""
    return errors.Paused(
        f"An operator paused {what}{end}. Nothing was sent.",
        retry_after=seconds,
        should_retry=None if seconds and seconds <= _LONGEST_SDK_WAIT else False,
    )


def _seconds(waits: list[float], most: int) -> int:
    return min(max(math.ceil(min(waits, default=5)), 1), most)


def kind_of(fit: Fit) -> str:
    """Return the kind of call whose seconds are comparable, as `high/2K`.

    No quality counts as `medium`, and an unknown size as a square.
    """
    return f"{fit.sent.quality or 'medium'}/{tier_of(fit.made or SQUARE)}"
