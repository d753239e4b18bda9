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
from typing import Literal

from redis.exceptions import ResponseError

from gateway.ids import new_id
from gateway.money.ledger_results import (
    Admitted,
    CloseReason,
    Hold,
    InvalidArgument,
    Joined,
    Lease,
    LedgerAnswer,
    LedgerConfused,
    LedgerLost,
    Opening,
    OverLimit,
    Policy,
    Retention,
    Scope,
    Settled,
    Standings,
    TooMany,
    Unpriced,
    read_change,
    read_holds,
    read_limits,
    read_opening,
    read_refusal,
    read_settled,
    read_standings,
    say_opening,
    say_price,
)
from gateway.money.store_epoch import NO_MEMORY, StoreEpoch
from gateway.store.command_queue import CommandQueue
from gateway.store.lua import Script, join_scripts, read_sources
from gateway.store.windows import MICROSECONDS, Calendar, Windows

Leaving = Literal["left", "handed", "unread"]
"""How a wait ends: without the answer; with all of it; or, after that, with the news that nobody read it."""

_INVALID = re.compile(r"INVALID (\w+)")
_NAMINGS = 3


@dataclass(frozen=True, slots=True)
class Twin:
    """A retry that looks for the task of its first try. `living` are workers that are known not to be dead; those of
    others have proved it when they have renewed their lease of `lease_us`.
    """

    key: str
    fingerprint: str
    worker: str
    lease_us: int
    living: tuple[str, ...] = ()


class Ledger:
    """The ledger in one store. `now` replaces the server's clock in tests.

    With a `store_epoch` nothing is spent on a store that lost data: `open`, `raise_price`, `mark_sent` and `renew`
    raise LedgerLost, until an operator has accepted it.
    """

    def __init__(
        self,
        command_queue: CommandQueue,
        calendar: Calendar,
        *,
        scripts: Mapping[str, Script] | None = None,
        now: Callable[[], int] | None = None,
        store_epoch: StoreEpoch | None = None,
    ) -> None:
        self._command_queue = command_queue
        self._calendar = calendar
        self._scripts = scripts or join_scripts(read_sources("ledger"))
        self._now = now
        self._store_epoch = store_epoch
        self._windows: Windows | None = None

    async def open(self, opening: Opening) -> Admitted | Joined | OverLimit | TooMany | Unpriced | LedgerAnswer:
        """Join a task that makes the same, or admit a new one and hold its price in every limit, or in none.

        The Verdict is MISMATCH, CLOSED, CONFLICT or, of a form `join`, NOTHING. Whoever joined or was admitted waits
        under the opening's task id.
        """
        return read_opening(await self._run_now("open", *say_opening(opening), spends=True))

    async def doubt(self, twin: Twin, since: int = 0) -> int | None:
        """Whether a retry is to wait before it is opened, because an equal task's waiter may have died with its worker.

        Answers since when, µs, for the next time it is asked; None once nobody's life is in doubt.
        """
        words = (twin.key, twin.fingerprint, twin.worker, str(twin.lease_us), str(since), ",".join(twin.living))
        answer = await self._run("doubt", *words)
        return int(answer[1]) if answer[0] == "doubted" else None

    async def raise_price(self, task: str, price: int | None, fence: int) -> OverLimit | Unpriced | LedgerAnswer:
        """Lift what the unsent slots hold to a dearer target's price: RAISED, OverLimit, FENCED, CLOSED, UNKNOWN.

        None asks whether a target without a known price may be sent to: RAISED or Unpriced.
        """
        answer = await self._spend("raise", task, say_price(price), str(fence))
        return read_refusal(answer) if answer[0] in {"refused", "unpriced"} else LedgerAnswer(answer[0])

    async def mark_sent(  # noqa: PLR0913 (one script's arguments)
        self,
        task: str,
        call: str,
        slots: Sequence[int],
        price: int | None,
        fence: int,
        policy: Policy = "presume",
        note: str = "",
    ) -> LedgerAnswer:
        """Give free slots to a call, before its first byte. Only HELD allows it to be sent.

        `policy` is what becomes of it if its worker dies before anybody knows how it ended; `note` is what another
        process needs to finish it, for `store.calls` to read.
        """
        words = (task, call, ",".join(str(slot) for slot in slots), say_price(price), str(fence), policy, note)
        return LedgerAnswer((await self._spend("mark_sent", *words))[0])

    async def nack(self, task: str, call: str) -> LedgerAnswer:
        """Evidence that a call was not accepted: its slots are free again. VOID, or the state that stands."""
        return LedgerAnswer((await self._run("nack", task, call))[0])

    async def post(self, task: str, call: str, usd: int, images: int) -> Settled | None:
        """Evidence of what a call cost and brought. What was posted first stands. None: no such call."""
        return read_settled(await self._run("post", task, call, str(usd), str(images)))

    async def presume(self, task: str, call: str, fence: int) -> Settled | LedgerAnswer:
        """Settle a call whose outcome is unknown at its target's price. FENCED or UNKNOWN otherwise."""
        answer = await self._run("presume", task, call, str(fence))
        return read_settled(answer) or LedgerAnswer(answer[0])

    async def close(self, task: str, fence: int, how: CloseReason = "") -> LedgerAnswer:
        """Release what will never be sent; also of a task whose opening may still be on its way. CLOSED or FENCED.

        `cancel` closes only what was never sent, and answers SENT otherwise.
        """
        return LedgerAnswer((await self._run("close", task, str(fence), how))[0])

    async def leave(self, task: str, waiter: str, how: Leaving) -> LedgerAnswer:
        """End a request's wait for a task: DONE, GONE or UNKNOWN."""
        return LedgerAnswer((await self._run("leave", task, waiter, how))[0])

    async def adopt(self, task: str, worker: str, fence: int) -> int | LedgerAnswer:
        """The new fence, when the owner's lease has ended and nobody was faster; else LIVING, FENCED, UNKNOWN."""
        answer = await self._run("adopt", task, worker, str(fence))
        return int(answer[1]) if answer[0] == LedgerAnswer.ADOPTED else LedgerAnswer(answer[0])

    async def renew(self, worker: str, lease_us: int) -> Lease:
        """Prolong a worker's lease, and meet the store if this process has not."""
        store_epoch = self._store_epoch
        for _ in range(_NAMINGS):
            words = (
                (*store_epoch.words(), "" if store_epoch.epoch else new_id("epoch"))
                if store_epoch
                else (*NO_MEMORY, "")
            )
            answer = await self._run("renew", worker, str(lease_us), *words)
            if answer[0] == "renewed":
                _, stop, now, epoch = answer
                if store_epoch:
                    store_epoch.meet(epoch, int(now), int(stop))
                return Lease(int(now), int(stop), epoch)
            if not store_epoch or not store_epoch.forgive(answer[1]):
                break
        raise LedgerLost

    async def retire(self, workers: Sequence[str]) -> None:
        """End the leases of workers that are certainly gone: their tasks are orphans now."""
        await self._run("retire", ",".join(workers))

    async def accept(self, epoch: str) -> str:
        """Take the store as it is, for every process that had lost it; answers what a data folder keeps of it."""
        return (await self._run("accept", epoch))[1]

    async def adjust(self, change: str, scope: Scope, usd: int, reason: str, at: int | None = None) -> LedgerAnswer:
        """Correct what was spent, in the windows of the instant `at`; negative is a credit. DONE or CONFLICT."""
        windows = self._calendar.name_windows(self._guess() if at is None else at)
        answer = await self._run("adjust", change, scope.key, scope.team, *windows.arguments(), str(usd), reason)
        return read_change(answer)

    async def set_limit(self, change: str, scope: Scope, limit: str, value: int | None) -> LedgerAnswer:
        """Set a limit, or take it away by None. DONE or CONFLICT. Raises InvalidArgument for a name that is none."""
        written = "" if value is None else str(value)
        return read_change(await self._run("set_limit", change, scope.key, scope.team, limit, written))

    async def look(self, key: str = "", team: str = "") -> Standings:
        """How the limits of a key, a team and everyone stand, and what they have spent."""
        return read_standings(await self._run_now("look", key, team))

    async def limits_of(self, scope: Scope) -> dict[str, int]:
        """The limits of one scope, by name."""
        return read_limits(await self._run("limits", scope.key, scope.team))

    async def holds(self, most: int = 1000) -> list[Hold]:
        """The tasks that may still hold money, oldest first."""
        return read_holds(await self._run("holds", "all", "", "", str(most)))

    async def orphans(self, most: int = 100) -> list[Hold]:
        """Those of them whose owner's lease has ended."""
        return read_holds(await self._run("holds", "orphaned", "", "", str(most)))

    async def left(self, since: int, most: int = 1000) -> list[Hold]:
        """What workers whose lease ended after `since` had closed shortly before: they may not have told of it."""
        return read_holds(await self._run("holds", "left", "", str(since), str(most)))

    async def overdue(self, worker: str, before: int, most: int = 100) -> list[Hold]:
        """Those of them that this worker owns and that were opened no later than `before`."""
        return read_holds(await self._run("holds", "overdue", worker, str(before), str(most)))

    async def show(self, task: str) -> Hold | None:
        """The money side of one task, over or not, until it is folded."""
        found = await self.show_all([task])
        return found[0] if found else None

    async def show_all(self, tasks: Sequence[str]) -> list[Hold]:
        """The same of some tasks at once; those that are not known are left out."""
        return read_holds(await self._run("show", ",".join(tasks))) if tasks else []

    async def fold(self, retention: Retention, most: int = 500) -> tuple[int, int]:
        """Add what is old to the base amounts, at most so many at once; answers how many tasks and journal entries."""
        ages = (retention.ended_s, retention.doubtful_s, retention.journal_s)
        answer = await self._run("fold", *(str(age * MICROSECONDS) for age in ages), str(most))
        return int(answer[1]), int(answer[2])

    def _guess(self) -> int:
        return time.time_ns() // 1000 if self._now is None else self._now()

    async def _run_now(self, name: str, *arguments: str, spends: bool = False) -> list[str]:
        """Run a script whose last arguments are the windows of this instant, named anew until they are right."""
        run = self._spend if spends else self._run
        windows = self._windows or self._calendar.name_windows(self._guess())
        for _ in range(_NAMINGS):
            answer = await run(name, *arguments, after=windows.arguments())
            if answer[0] != "window_moved":
                self._windows = windows
                return answer
            windows = self._calendar.name_windows(int(answer[1]))
        raise LedgerConfused("the clock runs faster than its windows can be named")

    async def _spend(self, name: str, *arguments: str, after: Sequence[str] = ()) -> list[str]:
        """Run a script that asks whether the store has forgotten what this process knows."""
        store_epoch = self._store_epoch
        if store_epoch is None:
            return await self._run(name, *arguments, *NO_MEMORY, after=after)
        if not store_epoch.epoch:
            await self.renew(store_epoch.worker, store_epoch.lease_us)
        for _ in range(_NAMINGS):
            answer = await self._run(name, *arguments, *store_epoch.words(), after=after)
            if answer[0] != "lost":
                return answer
            if not store_epoch.forgive(answer[1]):
                break
            # A store that forgot has forgotten the lease too, and a task without one would be an orphan at once.
            await self.renew(store_epoch.worker, store_epoch.lease_us)
        raise LedgerLost

    async def _run(self, name: str, *arguments: str, after: Sequence[str] = ()) -> list[str]:
        now = "" if self._now is None else str(self._now())
        try:
            return await self._command_queue.run(self._scripts[name], now, *arguments, *after)
        except ResponseError as error:
            if found := _INVALID.search(str(error)):
                raise InvalidArgument(name, found[1]) from error
            raise
