"""What the ledger is asked and what it answers: openings, verdicts, standings, holds.

Made and read by `store.ledger`; used by all who ask it. Amounts are whole micro-dollars (µ$), times are µs of the
server's clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, cast

from gateway.store.client import StoreUnavailable

Policy = Literal["presume", "release", "hold"]
"""What becomes of a call whose outcome nobody knows: charged and flagged, given back, or held for an operator."""

OpeningForm = Literal["answer", "task", "join"]

CloseReason = Literal["", "policy", "cancel", "collect"]
"""How a task is closed: as it is, after a refusal, only if nothing was sent, by an heir that brings what was made."""

AMOUNTS = ("usd_held", "usd_presumed", "usd_posted", "images_held", "images_presumed", "images_posted")


class InvalidArgument(ValueError):
    """A script was handed something that it does not take. Nothing was written."""

    def __init__(self, script: str, argument: str) -> None:
        super().__init__(f"{script}: {argument}")
        self.argument = argument


class LedgerLost(StoreUnavailable):
    """The store was emptied, or is an older copy: what it says was spent cannot be trusted."""

    def __init__(self) -> None:
        super().__init__(
            "the store was emptied or is an older copy of itself, so what was spent is not known. Look at it with "
            "`imagegate audit`; `imagegate audit --accept` takes it as it is"
        )


class LedgerConfused(Exception):
    """A script answered what it never answers, or the windows move faster than they can be named."""


class LedgerAnswer(StrEnum):
    """How a step ended. The first four are the states of a call."""

    HELD = "held"
    VOID = "void"
    PRESUMED = "presumed"
    POSTED = "posted"
    RAISED = "raised"
    ADOPTED = "adopted"
    DONE = "done"
    """An operator's change is made."""
    TAKEN = "taken"
    """A slot is another call's."""
    UNDERHELD = "underheld"
    """A slot holds less than this target costs: `raise_price` first."""
    CONFLICT = "conflict"
    """The same id was used for something else."""
    MISMATCH = "mismatch"
    """The Idempotency-Key was used for another request."""
    SENT = "sent"
    """Something was sent: it cannot be canceled any more."""
    GONE = "gone"
    """Another request waits in this one's place."""
    LIVING = "living"
    """The owner's lease has not ended."""
    FENCED = "fenced"
    """Another worker owns the task now."""
    CLOSED = "closed"
    NOTHING = "nothing"
    UNKNOWN = "unknown"
    """There is no such task or call; or, NOTHING, none to join."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A task that asks to be admitted. `fingerprint` and `idempotency` are SHA-256 digests in hex.

    `form` task: its caller is answered with the task; join: nothing new is admitted. In µs: `patience` until the
    caller's own time-out, 0 where it is not known; `orphans`, for which a request that is no retry finds a task that
    was left; `keep`, for which an end is answered again. A price of None is unknown: it holds nothing, and is admitted
    only where nobody limits dollars.
    """

    task: str
    key: str
    fingerprint: str
    price: int | None
    images: int
    worker: str
    team: str = ""
    idempotency: str = ""
    retry: int = 0
    form: OpeningForm = "answer"
    patience: int = 0
    orphans: int = 0
    keep: int = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """One limit a minute, after the task that was asked about, if it passed. `full_in` is µs."""

    limit: str
    scope: str
    ceiling: int
    left: int
    full_in: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """The price is held. `rates` has every limit a minute of the task's scopes."""

    fence: int
    rates: tuple[Rate, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """Nothing is held: `task` makes the same, or has made it. `is_replay`: it ended, under an Idempotency-Key."""

    task: str
    is_replay: bool


@dataclass(frozen=True, slots=True)
class OverLimit:
    """Nothing is held. `left` is µ$ or a number; `resets` is when it allows more, in µs, if a clock can tell."""

    limit: str
    scope: str
    ceiling: int
    left: int
    resets: int | None
    now: int = field(default=0, compare=False)
    """The server's clock, µs."""
    rates: tuple[Rate, ...] = field(default=(), compare=False)
    """Every limit a minute of the task's scopes; none when a raise was refused."""


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Nothing is held: this limit on dollars cannot be kept for a target whose price is unknown."""

    limit: str
    scope: str


@dataclass(frozen=True, slots=True)
class TooMany:
    """A task wants more images than a minute ever allows: waiting would not help."""

    limit: str
    scope: str
    ceiling: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What a call counts for. After VOID nothing."""

    state: LedgerAnswer
    usd: int
    images: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a limit or a correction is about; without a name: everyone."""

    key: str = ""
    team: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's lease, in µs of the server's clock: it was prolonged `now`, and ends at `stop`."""

    now: int
    stop: int
    epoch: str = ""
    """The store's, as it is kept; another one means that an operator has accepted a store that forgot."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one limit stands. `resets` is when it allows everything again, if a clock can tell."""

    limit: str
    scope: str
    ceiling: int
    used: int
    left: int
    resets: int | None


@dataclass(frozen=True, slots=True)
class Spent:
    """What one scope (`key`, `team`, `everyone`) has spent in one window: `total`, `month`, `week` or `day`."""

    scope: str
    window: str
    usd_held: int
    usd_presumed: int
    usd_posted: int
    images_held: int
    images_presumed: int
    images_posted: int


@dataclass(frozen=True, slots=True)
class Standings:
    """Every limit that is set, and every sum, of up to three scopes at one instant `now`."""

    now: int
    limits: tuple[Standing, ...]
    spent: tuple[Spent, ...]


@dataclass(frozen=True, slots=True)
class HeldCall:
    """One paid POST. `price` is what it would be presumed to cost, `marked` when it was about to be sent."""

    call: str
    state: LedgerAnswer
    price: int
    usd: int
    images: int
    slots: int
    marked: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class Hold:
    """The money side of one task. `free` slots were never sent; `state` is `open` or `closed`."""

    task: str
    key: str
    team: str
    worker: str
    fence: int
    state: str
    opened: int
    windows: tuple[str, str, str]
    """The names of the day, the week and the month in which it counts; of a task that never opened: none."""
    images: int
    free: int
    amounts: Mapping[str, int]
    """What it counts for, by amount."""
    calls: tuple[HeldCall, ...]

    @property
    def usd_held(self) -> int:
        return self.amounts["usd_held"]

    @property
    def images_held(self) -> int:
        return self.amounts["images_held"]

    @property
    def is_open(self) -> bool:
        return self.state == "open"

    @property
    def is_over(self) -> bool:
        """Whether nothing can change any more but by evidence."""
        return not self.is_open and all(call.state != LedgerAnswer.HELD for call in self.calls)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is over is kept by itself before it is folded into base amounts, in seconds."""

    ended_s: int = 86_400
    doubtful_s: int = 30 * 86_400
    """A presumed amount can be replaced by what was really billed only until then."""
    journal_s: int = 90 * 86_400


def say_price(price: int | None) -> str:
    return "" if price is None else str(price)


def say_opening(opening: Opening) -> tuple[str, ...]:
    return (
        opening.task,
        opening.key,
        opening.team,
        opening.idempotency,
        opening.fingerprint,
        str(opening.retry),
        say_price(opening.price),
        str(opening.images),
        opening.worker,
        opening.form,
        str(opening.patience),
        str(opening.orphans),
        str(opening.keep),
    )


def read_opening(answer: list[str]) -> Admitted | Joined | OverLimit | TooMany | Unpriced | LedgerAnswer:
    match answer:
        case ["joined" | "replay" as how, task]:
            return Joined(task, how == "replay")
        case ["new", fence, *rates]:
            return Admitted(int(fence), _read_rates(rates))
        case ["refused" | "unpriced", *_]:
            return read_refusal(answer)
        case ["too_many", limit, scope, ceiling]:
            return TooMany(limit, scope, int(ceiling))
        case _:
            return LedgerAnswer(answer[0])


def read_refusal(answer: list[str]) -> OverLimit | Unpriced:
    match answer:
        case ["unpriced", limit, scope]:
            return Unpriced(limit, scope)
        case _:
            _, limit, scope, ceiling, left, resets, now, *rates = answer
            when = int(resets) if resets else None
            return OverLimit(limit, scope, int(ceiling), int(left), when, int(now), _read_rates(rates))


def read_settled(answer: list[str]) -> Settled | None:
    return Settled(LedgerAnswer(answer[0]), int(answer[1]), int(answer[2])) if len(answer) == 3 else None


def read_change(answer: list[str]) -> LedgerAnswer:
    return LedgerAnswer.CONFLICT if answer[0] == LedgerAnswer.CONFLICT else LedgerAnswer.DONE


def read_standings(answer: list[str]) -> Standings:
    _, now, count, *words = answer
    after = 6 * int(count)
    limits = tuple(
        Standing(row[0], row[1], int(row[2]), int(row[3]), int(row[4]), int(row[5]) if row[5] else None)
        for row in _rows(words[:after], 6)
    )
    spent = tuple(
        Spent(row[0], row[1], *(int(word) for word in row[2:])) for row in _rows(words[after:], 2 + len(AMOUNTS))
    )
    return Standings(int(now), limits, spent)


def read_limits(answer: list[str]) -> dict[str, int]:
    return {name: int(value) for name, value in _rows(answer[1:], 2)}


def read_holds(answer: list[str]) -> list[Hold]:
    return [_read_hold(json.loads(text)) for text in answer[1:]]


def _read_hold(row: dict[str, Any]) -> Hold:
    return Hold(
        task=row["id"],
        key=row["key"],
        team=row["team"],
        worker=row["worker"],
        fence=int(row["fence"]),
        state=row["state"],
        opened=int(row["opened"]),
        windows=(row["day"], row["week"], row["month"]),
        images=int(row["images"]),
        free=int(row["free"]),
        amounts={amount: int(row[amount]) for amount in AMOUNTS},
        calls=tuple(_read_call(call, facts) for call, facts in sorted(row["calls"].items())),
    )


def _read_call(call: str, facts: dict[str, str]) -> HeldCall:
    return HeldCall(
        call=call,
        state=LedgerAnswer(facts["state"]),
        price=int(facts["price"]),
        usd=int(facts["usd"]),
        images=int(facts["images"]),
        slots=int(facts["slots"]),
        marked=int(facts["marked"]),
        policy=cast(Policy, facts["policy"]),
    )


def _read_rates(words: list[str]) -> tuple[Rate, ...]:
    return tuple(Rate(row[0], row[1], *(int(word) for word in row[2:])) for row in _rows(words, 5))


def _rows(words: list[str], width: int) -> Iterator[tuple[str, ...]]:
    return zip(*[iter(words)] * width, strict=True)
