"""The arguments and results of the ledger: openings, answers, standings, holds.

Amounts of money are whole micro-dollars (µ$). Times are µs of the server's clock, except in Retention.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, cast

from gateway.store.client import StoreUnavailable

Policy = Literal["presume", "release", "hold"]
"""The policy for a call of unknown outcome: charge and flag it, release it, or hold it for an operator."""

OpeningForm = Literal["answer", "task", "join"]

CloseReason = Literal["", "policy", "cancel", "collect"]
"""The occasion of a closing: any other, a safety system's refusal, a cancellation, or collection by an adopter."""

AMOUNTS = ("usd_held", "usd_presumed", "usd_posted", "images_held", "images_presumed", "images_posted")


class InvalidArgument(ValueError):
    """A script got a wrong argument. The script wrote nothing."""

    def __init__(self, script: str, argument: str) -> None:
        super().__init__(f"{script}: {argument}")
        self.argument = argument


class LedgerLost(StoreUnavailable):
    """The store was emptied or is an older copy, so its spent amounts may be wrong."""

    def __init__(self) -> None:
        super().__init__(
            "the store was emptied or is an older copy of itself, so the spent amounts are unknown. Check it with "
            "`imagegate audit`; accept it as it is with `imagegate audit --accept`"
        )


class LedgerConfused(Exception):
    """The windows change faster than they can be named, or the journal is trimmed faster than it can be read."""


class LedgerAnswer(StrEnum):
    """The answer to a step. The first four are the states of a call."""

    HELD = "held"
    VOID = "void"
    PRESUMED = "presumed"
    POSTED = "posted"
    RAISED = "raised"
    ADOPTED = "adopted"
    DONE = "done"
    """The change was made."""
    TAKEN = "taken"
    """A slot belongs to another call."""
    UNDERHELD = "underheld"
    """A slot holds less than the target's price, or `raise_price` has not allowed an unknown one."""
    CONFLICT = "conflict"
    """The id was used for something else."""
    MISMATCH = "mismatch"
    """The Idempotency-Key was used for another request."""
    SENT = "sent"
    """A call was sent and is not void, so the task cannot be canceled."""
    GONE = "gone"
    """The request's wait is over already, or another request waits in its place."""
    LIVING = "living"
    """The owner's lease has not ended."""
    FENCED = "fenced"
    """Another worker owns the task now."""
    CLOSED = "closed"
    NOTHING = "nothing"
    UNKNOWN = "unknown"
    """UNKNOWN: no such task or call. NOTHING: no task to join."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The arguments of the ledger's `open`. `fingerprint` and `idempotency` are SHA-256 digests in hex; times are µs.

    `form`: `answer` waits for the images, `task` returns at once, `join` can only join an earlier task. `price` is the
    µ$ of one image. None is an unknown price: it holds 0 µ$, and the ledger refuses it if a limit in dollars is set.
    `patience` is the time until the caller's own time-out, 0 if unknown. A request that is not a retry can join a task
    for `orphans` after its last waiter left. No request joins a task that ended longer ago than `keep`.
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
    """One limit a minute. `left` is the rest after an admitted task; in `full_in` µs nothing of the limit is used."""

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
    """The request joined `task`, and holds nothing. A replay joined by its Idempotency-Key, after the task's end."""

    task: str
    is_replay: bool


@dataclass(frozen=True, slots=True)
class OverLimit:
    """A limit is reached: nothing more is held. `left` is µ$ or a number; `resets` is the next reset in µs, or None."""

    limit: str
    scope: str
    ceiling: int
    left: int
    resets: int | None
    now: int = field(default=0, compare=False)
    """The server's clock, µs."""
    rates: tuple[Rate, ...] = field(default=(), compare=False)
    """Every limit a minute of the task's scopes; none if a raise was refused."""


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Nothing more is held: a limit in dollars is set, and the price of the target is unknown."""

    limit: str
    scope: str


@dataclass(frozen=True, slots=True)
class TooMany:
    """The task has more images than a limit allows in a minute: a retry would not help."""

    limit: str
    scope: str
    ceiling: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The settled amounts of a call: µ$ and a number of images. Both are 0 if the state is VOID."""

    state: LedgerAnswer
    usd: int
    images: int


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of a limit or a correction: a key, a team or, without both, everyone. Only a correction has both."""

    key: str = ""
    team: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's lease in µs of the server's clock: prolonged at `now`, it ends at `stop`."""

    now: int
    stop: int
    epoch: str = ""
    """The text of the store's epoch. It changes when an operator accepts a store that lost data."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit and its use, in µ$ or as a number. `resets` is the µs of its next full reset; None if it has none."""

    limit: str
    scope: str
    ceiling: int
    used: int
    left: int
    resets: int | None


@dataclass(frozen=True, slots=True)
class Spent:
    """Amounts (µ$, images) of a scope (`key`, `team`, `everyone`) in a window (`total`, `month`, `week`, `day`)."""

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
    """All limits and spent amounts of up to three scopes at the instant `now`."""

    now: int
    limits: tuple[Standing, ...]
    spent: tuple[Spent, ...]


@dataclass(frozen=True, slots=True)
class HeldCall:
    """One paid call. `price` is the µ$ that it costs if presumed, `usd` the charged µ$, `marked` the µs of its mark."""

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
    """The amounts of one task. `free` is the number of slots without a call; `state` is `open` or `closed`."""

    task: str
    key: str
    team: str
    worker: str
    fence: int
    state: str
    opened: int
    windows: tuple[str, str, str]
    """The names of its day, week and month; each is "" for a task that was closed before it opened."""
    images: int
    free: int
    amounts: Mapping[str, int]
    """Its amounts, by name."""
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
        """True when the task is closed and none of its calls is held: only evidence can change it."""
        return not self.is_open and all(call.state != LedgerAnswer.HELD for call in self.calls)


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds for which ended tasks and journal entries are kept before they are folded into base amounts."""

    ended_s: int = 86_400
    doubtful_s: int = 30 * 86_400
    """Within this time the real bill can replace a presumed amount."""
    journal_s: int = 90 * 86_400


def format_price(price: int | None) -> str:
    return "" if price is None else str(price)


def format_opening(opening: Opening) -> tuple[str, ...]:
    return (
        opening.task,
        opening.key,
        opening.team,
        opening.idempotency,
        opening.fingerprint,
        str(opening.retry),
        format_price(opening.price),
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
    spent = tuple(Spent(row[0], row[1], *map(int, row[2:])) for row in _rows(words[after:], 2 + len(AMOUNTS)))
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
    return tuple([Rate(limit, scope, int(a), int(b), int(c)) for limit, scope, a, b, c in _rows(words, 5)])


def _rows(words: list[str], width: int) -> Iterator[tuple[str, ...]]:
    return zip(*[iter(words)] * width, strict=True)
