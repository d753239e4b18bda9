"""The quota ledger in Redis: limits, held amounts and spent amounts. Every step is one Lua script.

Amounts are whole micro-dollars (µ$), prices are µ$ an image, times are µs. This module repeats a script only with
new windows or a newly accepted epoch. A refusal by a limit is final.

A task has a slot for each of its images; a call takes slots. *Decisions* come from the task's owner, with its fence:
the number of its ownership. *Evidence* comes from any process at any time. A call's states only rise: held < void <
presumed < posted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from redis.exceptions import ResponseError
from typing_extensions import override

from gateway.ids import new_id
from gateway.money.ledger_reader import LedgerReader
from gateway.money.ledger_results import (
    Admitted,
    CloseReason,
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
    format_opening,
    format_price,
    read_change,
    read_opening,
    read_refusal,
    read_settled,
    read_standings,
)
from gateway.process.data_folder import replace
from gateway.store.client import Command, CommandQueue, StoreUnavailable
from gateway.store.lua import Script, join_scripts, read_sources
from gateway.store.windows import MICROSECONDS, Calendar, Windows

Leaving = Literal["left", "handed", "unread", "closed"]
"""The end of a wait: without the answer, with the whole answer, with an answer that nobody read, or with one that
perhaps nobody read, since the connection was closed right after it."""

_INVALID = re.compile(r"INVALID (\w+)")
_NAMINGS = 3
T = TypeVar("T")


class Ledger(LedgerReader):
    """The ledger in one store. In tests, `now` returns the µs that replace the server's clock.

    Every method raises StoreUnavailable, and InvalidArgument for an argument that a script refuses. With a
    `store_epoch`, `open`, `raise_price`, `mark_sent`, `check_store` and `renew` raise LedgerLost on a store that lost
    data, until an operator has accepted it. The answer UNKNOWN means that the ledger does not know the task or call.
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
        self.scripts = scripts or join_scripts(read_sources("ledger"))
        self._now = now
        self._store_epoch = store_epoch
        self._windows: Windows | None = None

    async def open(
        self, opening: Opening, *then: Command[Any]
    ) -> Admitted | Joined | OverLimit | TooMany | Unpriced | LedgerAnswer:
        """Join an equal task, or admit a new one. An admission holds the price in all of its limits, or in none.

        The commands of `then` run after an admission, in the same step. A returned LedgerAnswer is MISMATCH, CLOSED,
        CONFLICT or, for the form `join`, NOTHING. The request's wait has the opening's task id as its name. A request
        that joins by its Idempotency-Key has no wait in the ledger.
        """
        words = format_opening(opening)
        return read_opening(await self._run_now(lambda now: self._spend("open", *words, after=now, then=then)))

    async def raise_price(self, task: str, price: int | None, fence: int) -> OverLimit | Unpriced | LedgerAnswer:
        """Raise the price of unsent slots to `price`, the µ$ of an image at a dearer target.

        Returns RAISED, OverLimit, FENCED, CLOSED or UNKNOWN. None is an unknown price: it changes no held
        amount, and returns Unpriced if a limit in dollars forbids it, else RAISED.
        """
        answer = await self._spend("raise", task, format_price(price), str(fence))
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
        """Give free slots to a call, before its first byte. The call may be sent only after the answer HELD.

        `price` is the µ$ of an image at its target, None if unknown. `policy` applies if its worker dies and its
        outcome is unknown. `note` (JSON) has the facts by which another process can finish the call.
        """
        words = (task, call, ",".join(map(str, slots)), format_price(price), str(fence), policy, note)
        return LedgerAnswer((await self._spend("mark_sent", *words))[0])

    def make_mark(  # noqa: PLR0913 (one script's arguments)
        self,
        task: str,
        call: str,
        slots: Sequence[int],
        price: int | None,
        policy: Policy,
        note: str,
        tell: Callable[[LedgerAnswer], None],
    ) -> Command[None]:
        """The command of `mark_sent` for a task that the same chain opens, after a check of the epoch.

        `tell` gets the answer.
        """
        words = (task, call, ",".join(map(str, slots)), format_price(price), "1", policy, note, *NO_MEMORY)
        return self._make_command("mark_sent", lambda answer: tell(LedgerAnswer(answer[0])), *words)

    async def nack(self, task: str, call: str) -> LedgerAnswer:
        """Make a held or unknown call void, and free its slots. Returns the call's state: VOID, PRESUMED or POSTED."""
        return (await self.run_chain(self.make_nack(task, call)))[0]

    def make_nack(self, task: str, call: str) -> Command[LedgerAnswer]:
        """The command of `nack`."""
        return self._make_command("nack", _read_word, task, call)

    async def post(self, task: str, call: str, usd: int, images: int) -> Settled | None:
        """Charge a call on evidence: `usd` is its real cost in µ$, `images` the number of its images.

        This replaces a presumed amount and a `nack`. Later charges change nothing. Returns the settled amounts; None
        if the call is unknown or was never marked as sent.
        """
        return (await self.run_chain(self.make_post(task, call, usd, images)))[0]

    def make_post(self, task: str, call: str, usd: int, images: int) -> Command[Settled | None]:
        """The command of `post`."""
        return self._make_command("post", read_settled, task, call, str(usd), str(images))

    async def presume(self, task: str, call: str, fence: int) -> Settled | LedgerAnswer:
        """Settle a call of unknown outcome at its target's price (0 if unknown). Returns the amounts, or FENCED."""
        answer = await self._run("presume", task, call, str(fence))
        return read_settled(answer) or LedgerAnswer(answer[0])

    async def close(self, task: str, fence: int, how: CloseReason = "") -> LedgerAnswer:
        """Close a task, and release the slots that will never be sent. Returns CLOSED or FENCED.

        An unknown task is stored as closed, since its opening may still arrive. `cancel` closes a task only if none of
        its calls was sent or all of them are void; else it returns SENT.
        """
        return (await self.run_chain(self.make_close(task, fence, how)))[0]

    def make_close(self, task: str, fence: int, how: CloseReason = "", wanted: str = "") -> Command[LedgerAnswer]:
        """The command of `close`. The next one of its chain runs after `wanted`, by default after any answer."""
        return self._make_command("close", _read_word, task, str(fence), how, wanted=wanted)

    async def leave(self, task: str, waiter: str, how: Leaving) -> LedgerAnswer:
        """End a request's wait, or let a retry claim the task (`unread`, `closed`). Returns DONE, GONE or UNKNOWN."""
        # No retry can claim the task before or after the end of a wait whose answer was handed over.
        command = self._make_command("end_wait", _read_word, task, waiter, how, may_linger=how == "handed")
        return (await self.run_chain(command))[0]

    async def adopt(self, task: str, worker: str, fence: int) -> int | LedgerAnswer:
        """Make `worker` the owner if the last one's lease has ended. Returns the new fence, or LIVING or FENCED."""
        answer = await self._run("adopt", task, worker, str(fence))
        return int(answer[1]) if answer[0] == LedgerAnswer.ADOPTED else LedgerAnswer(answer[0])

    async def renew(self, worker: str, lease_us: int) -> Lease:
        """Prolong a worker's lease to `lease_us` µs from now, and record the epoch. Marks a store that lost data."""
        store_epoch = self._store_epoch
        for _ in range(_NAMINGS):
            known = store_epoch.words() if store_epoch else NO_MEMORY
            words = (*known, new_id("epoch") if store_epoch and not store_epoch.epoch else "")
            answer = await self._run("renew", worker, str(lease_us), *words)
            if answer[0] == "renewed":
                _, stop, now, epoch = answer
                if store_epoch:
                    store_epoch.record_renewal(epoch, int(now), int(stop))
                return Lease(int(now), int(stop), epoch)
            if not store_epoch or not store_epoch.accept_reset(answer[1]):
                with suppress(StoreUnavailable):
                    await self._run("mark_lost", _parse(answer[1])[0])
                break
        raise LedgerLost

    async def check_store(self) -> None:
        """Raise LedgerLost if the store lost data and would refuse a task, StoreUnavailable if it takes no writes."""
        await self._spend("check")

    async def retire(self, workers: Sequence[str]) -> None:
        """End the leases of dead workers: their tasks become orphans."""
        await self._run("retire", ",".join(workers))

    async def accept(self, epoch: str) -> str:
        """Accept the store as it is, with the new epoch id `epoch`. Returns the text for the file LEDGER_ID."""
        return (await self._run("accept", epoch))[1]

    async def adjust(self, change: str, scope: Scope, usd: int, reason: str, at: int | None = None) -> LedgerAnswer:
        """Add `usd` µ$ (negative too) to the posted total and to the windows of the instant `at` (µs; None is now).

        Returns DONE, or CONFLICT if another correction has the id `change`. Raises InvalidArgument for 0 µ$ and for
        windows that the ledger no longer keeps.
        """
        windows = self._calendar.name_windows(self._guess() if at is None else at)
        answer = await self._run("adjust", change, scope.key, scope.team, *windows.arguments(), str(usd), reason)
        return read_change(answer)

    async def set_limit(self, change: str, scope: Scope, limit: str, value: int | None) -> LedgerAnswer:
        """Set a limit (µ$ or a number); None removes it. Returns DONE, or CONFLICT if another change has the id."""
        written = "" if value is None else str(value)
        return read_change(await self._run("set_limit", change, scope.key, scope.team, limit, written))

    async def look(self, key: str = "", team: str = "") -> Standings:
        """Return the limits of a key, a team and everyone with their use, and the spent amounts."""
        return read_standings(await self._run_now(lambda now: self._run("look", key, team, *now)))

    async def fold(self, retention: Retention, most: int = 500) -> tuple[int, int]:
        """Add old tasks and journal entries to the base amounts, and remove them from the store.

        Takes at most `most` tasks without presumed calls, `most` with some, and `most` entries. Returns the number of
        tasks and the number of entries.
        """
        ages = (retention.ended_s, retention.doubtful_s, retention.journal_s)
        answer = await self._run("fold", *(str(age * MICROSECONDS) for age in ages), str(most))
        return int(answer[1]), int(answer[2])

    async def run_chain(self, *commands: Command[Any]) -> list[Any]:
        """Run commands in turn, in one step; return the results of those that ran. Raises InvalidArgument."""
        try:
            return await self._command_queue.run_chain(*commands)
        except ResponseError as error:
            if found := _INVALID.search(str(error)):
                raise InvalidArgument(" ".join(one.script.name for one in commands), found[1]) from error
            raise

    def _guess(self) -> int:
        return time.time_ns() // 1000 if self._now is None else self._now()

    async def _run_now(self, run: Callable[[Sequence[str]], Awaitable[list[str]]]) -> list[str]:
        """Run a script with the windows of this instant; name them again if they have changed."""
        windows = self._windows or self._calendar.name_windows(self._guess())
        for _ in range(_NAMINGS):
            answer = await run(windows.arguments())
            if answer[0] != "window_moved":
                self._windows = windows
                return answer
            windows = self._calendar.name_windows(int(answer[1]))
        raise LedgerConfused("the clock runs faster than its windows can be named")

    async def _spend(
        self, name: str, *arguments: str, after: Sequence[str] = (), then: Sequence[Command[Any]] = ()
    ) -> list[str]:
        """Run a script that checks the store's epoch. Raises LedgerLost."""
        store_epoch = self._store_epoch
        if store_epoch is None:
            return await self._run(name, *arguments, *NO_MEMORY, *after, then=then)
        if not store_epoch.epoch:
            await self.renew(store_epoch.worker, store_epoch.lease_us)
        for _ in range(_NAMINGS):
            answer = await self._run(name, *arguments, *store_epoch.words(), *after, then=then)
            if answer[0] != "lost":
                return answer
            if not store_epoch.accept_reset(answer[1]):
                break
            # The store lost the lease too, and a task without a lease is an orphan at once.
            await self.renew(store_epoch.worker, store_epoch.lease_us)
        raise LedgerLost

    def _make_command(
        self, name: str, read: Callable[[list[str]], T], *arguments: str, wanted: str = "", may_linger: bool = False
    ) -> Command[T]:
        now = "" if self._now is None else str(self._now())
        return Command(self.scripts[name], (now, *arguments), read, wanted, may_linger)

    @override
    async def _run(self, name: str, *arguments: str, then: Sequence[Command[Any]] = ()) -> list[str]:
        # Only an opening has commands behind it, for an admitted task.
        command = self._make_command(name, list, *arguments, wanted="new" if then else "")
        return cast(list[str], (await self.run_chain(command, *then))[0])


def _read_word(answer: list[str]) -> LedgerAnswer:
    return LedgerAnswer(answer[0])


LEDGER_ID = "ledger.id"
"""The file in a data folder that holds the epoch of its embedded store."""

NO_MEMORY = ("", "", "")
"""The words of a process that knows no epoch: the scripts check nothing for it."""


class StoreEpoch:
    """The epoch of the store that one process, `worker`, knows: the id by which it notices that the store lost data.

    `path` is the file in the data folder that keeps the epoch of an embedded store; None for another store.
    """

    def __init__(self, worker: str, path: Path | None = None, lease_s: float = 15.0) -> None:
        self.worker = worker
        self.lease_us = round(lease_s * MICROSECONDS)
        self._path = path
        self._kept = "" if path is None else read_kept(path)
        self._epoch, self._since = _parse(self._kept)
        self._ends: tuple[int, ...] = ()

    @property
    def epoch(self) -> str:
        """The epoch's id. Unless the file has one, it is empty until the first renewal of the lease."""
        return self._epoch

    def words(self) -> tuple[str, str, str]:
        """Return the epoch, the worker, and the end (µs) of its lease before the last renewal.

        The end is "" before the second renewal, and all three are "" while the epoch is unknown."""
        if not self._epoch:
            return NO_MEMORY
        # A fail-over may lose the last renewal, so that one does not count.
        return self._epoch, self.worker, str(self._ends[0]) if len(self._ends) == 2 else ""

    def record_renewal(self, epoch: str, now: int, stop: int) -> None:
        """Keep the epoch, the store's time `now` and the end `stop` of this worker's lease, both in µs.

        Writes a changed epoch to the file. Raises StoreUnavailable if the file cannot be written.
        """
        self._keep(epoch)
        self._epoch, _ = _parse(epoch)
        self._since = now
        self._ends = (*self._ends, stop)[-2:]

    def accept_reset(self, epoch: str) -> bool:
        """Take a new epoch if an operator has accepted the store since the last renewal; True if so.

        Writes it to the file. Raises StoreUnavailable if the file cannot be written.
        """
        found, since = _parse(epoch)
        if found == self._epoch or " accepted " not in epoch or since <= self._since:
            return False
        self._keep(epoch)
        self._epoch, self._since, self._ends = found, since, ()
        return True

    def _keep(self, epoch: str) -> None:
        if self._path is None or epoch == self._kept:
            return
        try:
            keep(self._path, epoch)
        except OSError as error:
            raise StoreUnavailable(f"{self._path} cannot be written: {error.strerror}") from error
        self._kept = epoch


def read_kept(path: Path) -> str:
    """Return the epoch in a data folder's file; "" if there is no file. Raises OSError."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def keep(path: Path, epoch: str) -> None:
    """Write the epoch to a data folder's file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace(path, epoch)


def _parse(epoch: str) -> tuple[str, int]:
    """Return the id of an epoch and its begin (µs); "" for no text, an id that no store has for other text."""
    match epoch.split():
        case []:
            return "", 0
        case [found, _, since] if since.isascii() and since.isdigit():
            return found, int(since)
        case _:
            return "epoch_" + "0" * 26, 0
