"""The ledger's housekeeping in each worker: its lease, old tasks, and the tasks of dead workers.

It never sends a paid POST. It releases slots that a dead worker did not send. By their policy
it settles calls that may have been sent, once their answer can no longer come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from gateway.money.ledger import Ledger
from gateway.money.ledger_results import HeldCall, Hold, LedgerAnswer, LedgerLost, Retention
from gateway.money.unknown_outcome import settle_unknown, state_after
from gateway.process.periodic import PeriodicStep
from gateway.process.worker_locks import WorkerLocks
from gateway.store.client import StoreUnavailable
from gateway.store.windows import MICROSECONDS

_MOST = 1000
"""Most tasks that a step looks at. Those held for an operator come first, and must not hide the others."""

_AT_ONCE = 100
"""Most tasks that are adopted at a time, unless only this instance's dead workers count: then it is _MOST."""

_ENDS_KNOWN_US = 86_400 * MICROSECONDS
"""µs for which the ledger knows of a worker's end."""

_LOOK_S = 0.5
"""Seconds between two looks for dead workers of this instance."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Durations in seconds. An answer to a paid POST takes at most `quickest_s` at the quickest upstream, and at most
    `call_timeout_s` at the slowest one. A `quickest_s` of None stands for `call_timeout_s`.
    """

    call_timeout_s: float
    quickest_s: float | None = None
    lease_s: float = 15.0
    grace_s: float = 5.0
    """Seconds beyond a lease, after an outage, without adoptions from other instances: they renew first."""
    fold_every_s: float = 60.0
    retention: Retention = field(default_factory=Retention)

    @property
    def lease_us(self) -> int:
        return round(self.lease_s * MICROSECONDS)

    def answer_us(self, call_timeout_s: float | None = None) -> int:
        """Return the µs after a call's mark from which on its answer can no longer come.

        `call_timeout_s` is its upstream's; None is the quickest upstream's.
        """
        quickest = self.call_timeout_s if self.quickest_s is None else self.quickest_s
        seconds = quickest if call_timeout_s is None else call_timeout_s
        return round((seconds + self.lease_s) * MICROSECONDS)


class Adopter(Protocol):
    """The work on the tasks of dead workers. Every method may raise StoreUnavailable."""

    async def collect(self, hold: Hold) -> Collection[str]:
        """Collect the pictures of an adopted task's calls in the background. Return the calls to wait for."""
        ...

    async def find_timeouts(self, calls: Sequence[str]) -> Mapping[str, float]:
        """Return the seconds that the answers of some calls may take, by call; without calls of unknown upstreams."""
        ...

    async def give_up(self, hold: Hold, call: HeldCall) -> None:
        """Store in the call's record that its outcome stays unknown."""
        ...

    async def end(self, hold: Hold) -> None:
        """Store the task's end if nothing more can come of the task. A repetition does no harm."""
        ...

    async def end_closed(self, holds: Sequence[Hold]) -> None:
        """Store the ends of those tasks that their workers closed and did not end."""
        ...


async def _have_no_callers(_: float) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class OwnWork:
    """The work and the callers of this process.

    `runs` returns True for a task on which this process still works: that work settles the task's calls itself.
    `record_departures` waits until the ledger knows of every caller that has disconnected; it returns False when that
    takes longer than the given seconds.
    """

    runs: Callable[[str], bool] = lambda _: False
    record_departures: Callable[[float], Awaitable[bool]] = _have_no_callers


class Housekeeping:
    """The housekeeping of one worker.

    A retry relies on a renewed lease or a touched lock file: the ledger knows of the callers that disconnected before.
    Before a renewal this waits for that knowledge, up to a tenth of a lease. Without it the file is not touched.
    """

    def __init__(
        self,
        ledger: Ledger,
        worker: str,
        pace: Pace,
        adopter: Adopter,
        *,
        own: OwnWork | None = None,
        worker_locks: WorkerLocks | None = None,
    ) -> None:
        self._ledger = ledger
        self._worker = worker
        self._pace = pace
        self._adopter = adopter
        self._own = own or OwnWork()
        self._worker_locks = worker_locks
        self._dead: set[str] = set()
        self._adopted: set[str] = set()
        self._steps = PeriodicStep("the ledger's housekeeping", pace.lease_s / 3, self.step)
        self._watch = PeriodicStep("watch over other workers", _LOOK_S, self.watch_workers)
        self._is_away = False
        self._adopts_from: int | None = None
        self._folds_from = 0
        self._ended_to = 0
        self._epoch = ""
        self._recorded_at = time.monotonic()

    async def start(self) -> None:
        """Take the lease, end the leases of this instance's dead workers, and begin the steps.

        While Redis is unavailable, the steps try again.
        """
        if await self._renew() is not None:
            # Before the first request, which may be the retry of one that a dead worker has paid for.
            with suppress(StoreUnavailable):
                await self._retire_dead()
        self._steps.start()
        self._watch.start()

    async def stop(self) -> None:
        """Finish the current step and end the lease, so that other workers need not wait for it. Raises nothing."""
        await self._watch.stop()
        await self._steps.finish()
        with suppress(StoreUnavailable):
            await self._ledger.retire([self._worker])

    async def watch_workers(self) -> None:
        """Touch this worker's lock file, and begin the next step at once if a worker of this instance has died.

        The file is touched only if the ledger learns in time of the callers that have disconnected.
        """
        if self._worker_locks:
            began = time.time_ns()
            if await self._own.record_departures(_LOOK_S):
                self._worker_locks.touch(began)
            if self._worker_locks.find_dead():
                self._steps.wake.set()

    async def step(self) -> None:
        """Renew the lease, fold old tasks, adopt the tasks of dead workers, and settle overdue calls.

        If Redis does not take a part of it, the rest waits for the next step. The first such failure is logged.
        """
        now = await self._renew()
        if now is None:
            return
        try:
            await self._fold(now)
            await self._retire_dead()
            may_adopt = self._adopts_from is not None and now >= self._adopts_from
            if may_adopt or self._dead:
                await self._adopt(None if may_adopt else self._dead)
                await self._end_closed(now)
            await self._continue_adopted(now)
            await self._settle_overdue(now)
        except StoreUnavailable as error:
            self._note_outage(error)

    async def _renew(self) -> int | None:
        """Renew the lease. Returns the server's time in µs, or None while the ledger is unavailable or lost."""
        began = time.monotonic()
        if await self._own.record_departures(self._pace.lease_s / 10):
            self._recorded_at = began
        # The lease lasts from the last time at which the ledger knew of all callers that had disconnected.
        passed_us = round((time.monotonic() - self._recorded_at) * MICROSECONDS)
        try:
            lease = await self._ledger.renew(self._worker, max(1, self._pace.lease_us - passed_us))
        except StoreUnavailable as error:
            self._note_outage(error)
            return None
        if lease.epoch != self._epoch:
            # The store has lost every worker's lease; each needs time to renew it.
            self._epoch, self._adopts_from = lease.epoch, None
        if self._is_away:
            _log.info("the ledger is available again")
        if self._adopts_from is None:
            # Right after a start, too, a dead worker looks like one that has just come back.
            grace = self._pace.grace_s if self._is_away else 0
            self._adopts_from = lease.now + self._pace.lease_us + round(grace * MICROSECONDS)
        self._is_away = False
        return lease.now

    def _note_outage(self, error: StoreUnavailable) -> None:
        if not self._is_away:
            is_lost = isinstance(error, LedgerLost)
            event = "the ledger is lost; nothing is spent" if is_lost else "the ledger is unavailable"
            _log.error(event, reason=str(error))
        self._is_away = True
        self._adopts_from = None

    async def _fold(self, now: int) -> None:
        if now < self._folds_from:
            return
        await self._ledger.fold(self._pace.retention)
        self._folds_from = now + round(self._pace.fold_every_s * MICROSECONDS)

    async def _retire_dead(self) -> None:
        """End the leases of this instance's dead workers, and remove their lock files: free locks prove their death."""
        dead = self._worker_locks.find_dead() if self._worker_locks else []
        if self._worker_locks is None or not dead:
            return
        await self._ledger.retire(dead)
        killed = self._worker_locks.find_killed(dead)
        self._worker_locks.forget(dead)
        self._dead.update(dead)
        if killed:
            _log.warning("workers of this instance have died", workers=killed)

    async def _adopt(self, only: Collection[str] | None = None) -> None:
        """Adopt the tasks of all dead workers, or of those in `only`: release unsent slots, collect or await calls."""
        is_more = True
        while is_more:
            orphans = await self._ledger.orphans(_AT_ONCE if only is None else _MOST)
            mine = [hold for hold in orphans if only is None or hold.worker in only]
            is_more = any(await asyncio.gather(*(self._adopt_one(hold) for hold in mine)))
            if is_more:
                # There may be thousands, and this worker's own lease must not end meanwhile.
                await self._renew()

    async def _adopt_one(self, hold: Hold) -> bool:
        """Adopt one task. Returns False if another worker was faster, or the owner's lease has not ended."""
        fence = await self._ledger.adopt(hold.task, self._worker, hold.fence)
        if isinstance(fence, LedgerAnswer):
            return False
        self._adopted.add(hold.task)
        collecting = await self._adopter.collect(replace(hold, worker=self._worker, fence=fence))
        await self._ledger.close(hold.task, fence, "collect" if collecting else "")
        sent = [call.call for call in hold.calls if call.state is LedgerAnswer.HELD]
        _log.warning("adopted a task of a dead worker", task=hold.task, worker=hold.worker, calls=sent)
        await self._end(hold.task)
        return True

    async def _end_closed(self, now: int) -> None:
        """Store the missing ends of tasks that dead workers closed, once for each worker."""
        left = await self._ledger.left(self._ended_to or max(1, now - _ENDS_KNOWN_US), _MOST)
        if left:
            await self._adopter.end_closed(left)
        self._ended_to = now

    async def _continue_adopted(self, now: int) -> None:
        """Collect the calls of adopted tasks, settle overdue ones, and forget those that are over or taken over."""
        for hold in await self._ledger.show_all(sorted(self._adopted)):
            if hold.worker != self._worker or hold.is_over:
                # The settlement of its last call may not have been followed by its end.
                await self._adopter.end(hold)
                self._adopted.discard(hold.task)
                continue
            collecting = await self._adopter.collect(hold)
            await self._settle_calls(hold, now, collecting)

    async def _settle_overdue(self, now: int) -> None:
        for hold in await self._ledger.overdue(self._worker, now - self._pace.answer_us(), _MOST):
            if self._own.runs(hold.task) or hold.task in self._adopted:
                continue
            if hold.is_open:
                # Its end could not be written while Redis was away.
                await self._ledger.close(hold.task, hold.fence)
            await self._settle_calls(hold, now)

    async def _settle_calls(self, hold: Hold, now: int, collecting: Collection[str] = ()) -> None:
        held = [
            call
            for call in hold.calls
            if call.state is LedgerAnswer.HELD
            and call.call not in collecting
            and call.marked + self._pace.answer_us() <= now
        ]
        timeouts = await self._adopter.find_timeouts([call.call for call in held]) if held else {}
        for call in held:
            seconds = timeouts.get(call.call, self._pace.call_timeout_s)
            if call.marked + self._pace.answer_us(seconds) <= now:
                await self._settle_call(hold, call)

    async def _settle_call(self, hold: Hold, call: HeldCall) -> None:
        if state_after(call.policy) is LedgerAnswer.HELD:
            return
        await self._adopter.give_up(hold, call)
        await settle_unknown(self._ledger, hold.task, call.call, hold.fence, call.policy)
        _log.warning("settled a call whose outcome nobody knows", task=hold.task, call=call.call, policy=call.policy)
        await self._end(hold.task)

    async def _end(self, task: str) -> None:
        if found := await self._ledger.show(task):
            await self._adopter.end(found)
