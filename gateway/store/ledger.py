"""The quota ledger: who may spend, what is held for what is under way, and what was spent; every step is one script.

Called by `quota` and `tasks` through `Ledger`. Amounts are whole micro-dollars (µ$), prices are µ$ an image, times µs.
Never asks twice by itself what a script refused.

A task has a slot for each image it wants; a call takes slots. *Decisions* are the owner's and carry its fence;
*evidence* comes from anybody at any time. A call's states only rise: held < void < presumed < posted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from redis.exceptions import ResponseError

from gateway.store.batcher import Batcher
from gateway.store.scripts import Script, join_scripts, read_sources
from gateway.store.windows import MICROSECONDS, Calendar, Windows

_INVALID = re.compile(r"INVALID (\w+)")
_NAMINGS = 3


class InvalidArgument(ValueError):
    """A script was handed something that it does not take. Nothing was written."""

    def __init__(self, script: str, argument: str) -> None:
        super().__init__(f"{script}: {argument}")
        self.argument = argument


class LedgerConfused(Exception):
    """A script answered what it never answers, or the windows move faster than they can be named."""


class Verdict(StrEnum):
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
    LIVING = "living"
    """The owner's lease has not ended."""
    FENCED = "fenced"
    """Another worker owns the task now."""
    CLOSED = "closed"
    UNKNOWN = "unknown"
    """There is no such task or call."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A task that asks to be admitted. `fingerprint` and `idempotency` are SHA-256 digests in hex."""

    task: str
    key: str
    fingerprint: str
    price: int
    images: int
    worker: str
    team: str = ""
    idempotency: str = ""
    retry: int = 0


@dataclass(frozen=True, slots=True)
class Rate:
    """One limit a minute after it let a task pass. `full_in` is µs."""

    limit: str
    scope: str
    ceiling: int
    left: int
    full_in: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """The price is held. `rates` is empty when the task had been admitted before."""

    fence: int
    rates: tuple[Rate, ...]


@dataclass(frozen=True, slots=True)
class OverLimit:
    """Nothing is held. `left` is µ$ or a number; `resets` is when it allows more, in µs, if a clock can tell."""

    limit: str
    scope: str
    ceiling: int
    left: int
    resets: int | None


@dataclass(frozen=True, slots=True)
class TooMany:
    """A task wants more images than a minute ever allows: waiting would not help."""

    limit: str
    scope: str
    ceiling: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What a call counts for. After VOID nothing."""

    state: Verdict
    usd: int
    images: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a limit or a correction is about; without a name: everyone."""

    key: str = ""
    team: str = ""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is over is kept by itself before it is folded into base amounts, in seconds."""

    ended_s: int = 86_400
    doubtful_s: int = 30 * 86_400
    """A presumed amount can be replaced by what was really billed only until then."""
    journal_s: int = 90 * 86_400


class Ledger:
    """The ledger in one store. `now` replaces the server's clock in tests."""

    def __init__(
        self,
        batcher: Batcher,
        calendar: Calendar,
        *,
        scripts: Mapping[str, Script] | None = None,
        now: Callable[[], int] | None = None,
    ) -> None:
        self._batcher = batcher
        self._calendar = calendar
        self._scripts = scripts or join_scripts(read_sources())
        self._now = now
        self._windows: Windows | None = None

    async def open(self, opening: Opening) -> Admitted | OverLimit | TooMany | Verdict:
        """Admit a task and hold its price in every limit, or in none; the Verdict is CLOSED or CONFLICT."""
        windows = self._windows or self._calendar.name_windows(self._guess())
        for _ in range(_NAMINGS):
            answer = await self._run("open", *_open_words(opening), *windows.arguments())
            if answer[0] != "window_moved":
                self._windows = windows
                return _read_opening(answer)
            windows = self._calendar.name_windows(int(answer[1]))
        raise LedgerConfused("the clock runs faster than its windows can be named")

    async def raise_price(self, task: str, price: int, fence: int) -> OverLimit | Verdict:
        """Lift what the unsent slots hold to a dearer target's price: RAISED, OverLimit, FENCED, CLOSED, UNKNOWN."""
        answer = await self._run("raise", task, str(price), str(fence))
        return _read_refusal(answer) if answer[0] == "refused" else Verdict(answer[0])

    async def mark_sent(self, task: str, call: str, slots: Sequence[int], price: int, fence: int) -> Verdict:
        """Give free slots to a call, before its first byte. Only HELD allows it to be sent."""
        written = ",".join(str(slot) for slot in slots)
        return Verdict((await self._run("mark_sent", task, call, written, str(price), str(fence)))[0])

    async def nack(self, task: str, call: str) -> Verdict:
        """Evidence that a call was not accepted: its slots are free again. VOID, or the state that stands."""
        return Verdict((await self._run("nack", task, call))[0])

    async def post(self, task: str, call: str, usd: int, images: int) -> Settled | None:
        """Evidence of what a call cost and brought. What was posted first stands. None: no such call."""
        return _read_settled(await self._run("post", task, call, str(usd), str(images)))

    async def presume(self, task: str, call: str, fence: int) -> Settled | Verdict:
        """Settle a call whose outcome is unknown at its target's price. FENCED or UNKNOWN otherwise."""
        answer = await self._run("presume", task, call, str(fence))
        return _read_settled(answer) or Verdict(answer[0])

    async def close(self, task: str, fence: int) -> Verdict:
        """Release what will never be sent; also of a task whose opening may still be on its way. CLOSED or FENCED."""
        return Verdict((await self._run("close", task, str(fence)))[0])

    async def adopt(self, task: str, worker: str, fence: int) -> int | Verdict:
        """The new fence, when the owner's lease has ended and nobody was faster; else LIVING, FENCED, UNKNOWN."""
        answer = await self._run("adopt", task, worker, str(fence))
        return int(answer[1]) if answer[0] == Verdict.ADOPTED else Verdict(answer[0])

    async def renew(self, worker: str, lease_us: int) -> int:
        """Prolong a worker's lease; answers its end."""
        return int((await self._run("renew", worker, str(lease_us)))[1])

    async def adjust(self, change: str, scope: Scope, usd: int, reason: str, at: int | None = None) -> Verdict:
        """Correct what was spent, in the windows of the instant `at`; negative is a credit. DONE or CONFLICT."""
        windows = self._calendar.name_windows(self._guess() if at is None else at)
        answer = await self._run("adjust", change, scope.key, scope.team, *windows.arguments(), str(usd), reason)
        return _read_change(answer)

    async def set_limit(self, change: str, scope: Scope, limit: str, value: int | None) -> Verdict:
        """Set a limit, or take it away by None. DONE or CONFLICT. Raises InvalidArgument for a name that is none."""
        written = "" if value is None else str(value)
        return _read_change(await self._run("set_limit", change, scope.key, scope.team, limit, written))

    async def fold(self, retention: Retention, most: int = 500) -> tuple[int, int]:
        """Add what is old to the base amounts, at most so many at once; answers how many tasks and journal entries."""
        ages = (retention.ended_s, retention.doubtful_s, retention.journal_s)
        answer = await self._run("fold", *(str(age * MICROSECONDS) for age in ages), str(most))
        return int(answer[1]), int(answer[2])

    def _guess(self) -> int:
        return time.time_ns() // 1000 if self._now is None else self._now()

    async def _run(self, name: str, *arguments: str) -> list[str]:
        now = "" if self._now is None else str(self._now())
        try:
            return await self._batcher.run(self._scripts[name], now, *arguments)
        except ResponseError as error:
            if found := _INVALID.search(str(error)):
                raise InvalidArgument(name, found[1]) from error
            raise


def _open_words(opening: Opening) -> tuple[str, ...]:
    return (
        opening.task,
        opening.key,
        opening.team,
        opening.idempotency,
        opening.fingerprint,
        str(opening.retry),
        str(opening.price),
        str(opening.images),
        opening.worker,
    )


def _read_opening(answer: list[str]) -> Admitted | OverLimit | TooMany | Verdict:
    match answer:
        case ["new", fence, *rates]:
            rows = zip(*[iter(rates)] * 5, strict=True)
            return Admitted(int(fence), tuple(Rate(row[0], row[1], *(int(word) for word in row[2:])) for row in rows))
        case ["refused", *_]:
            return _read_refusal(answer)
        case ["too_many", limit, scope, ceiling]:
            return TooMany(limit, scope, int(ceiling))
        case _:
            return Verdict(answer[0])


def _read_refusal(answer: list[str]) -> OverLimit:
    _, limit, scope, ceiling, left, resets = answer
    return OverLimit(limit, scope, int(ceiling), int(left), int(resets) if resets else None)


def _read_settled(answer: list[str]) -> Settled | None:
    if len(answer) != 3:
        return None
    return Settled(Verdict(answer[0]), int(answer[1]), int(answer[2]))


def _read_change(answer: list[str]) -> Verdict:
    return Verdict.CONFLICT if answer[0] == Verdict.CONFLICT else Verdict.DONE
