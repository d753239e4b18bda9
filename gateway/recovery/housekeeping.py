"""The ledger's housekeeping in each worker process: its lease, what is old, and what a dead worker left behind.

Started and stopped by `app`. Never sends a paid POST: what a dead worker did not send is released, and what it may have
sent is settled by its policy once its answer can no longer come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from gateway.money.ledger import Ledger
from gateway.money.ledger_results import HeldCall, Hold, LedgerAnswer, LedgerLost, Retention
from gateway.money.unknown_outcome import settle_unknown, state_after
from gateway.process.worker_locks import WorkerLocks
from gateway.store.client import StoreUnavailable
from gateway.store.windows import MICROSECONDS

_MOST = 1000
"""Tasks that a step looks at. Those that are held for an operator come first, and must not hide the others."""

_AT_ONCE = 100
"""Tasks that are taken over in one breath."""

_REMEMBERED_US = 86_400 * MICROSECONDS
"""For how long a worker's end is known after it."""

_LOOK_S = 0.5
"""Seconds between two looks whether a worker of this instance has died."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things last, in seconds. `call_timeout_s` is the longest that the answer to a paid POST may take."""

    call_timeout_s: float
    lease_s: float = 15.0
    grace_s: float = 5.0
    """Above a lease, for which nobody adopts anything after the store was away: its owners could not renew either."""
    fold_every_s: float = 60.0
    retention: Retention = field(default_factory=Retention)

    @property
    def lease_us(self) -> int:
        return round(self.lease_s * MICROSECONDS)

    @property
    def answer_us(self) -> int:
        """When a call's answer can no longer come, after it was marked."""
        return round((self.call_timeout_s + self.lease_s) * MICROSECONDS)


class Adopter:
    """What becomes of tasks whose worker is gone. These leave all to time; those of `collecting` do not."""

    async def collect(self, hold: Hold) -> Collection[str]:
        """Begin to bring what its calls made, where that is not under way; the calls that will settle by that."""
        return ()

    async def give_up(self, hold: Hold, call: HeldCall) -> None:
        """Nobody will know what became of a call."""

    async def tell(self, hold: Hold) -> None:
        """It was taken over, or one of its calls was settled."""

    async def tell_ended(self, holds: Sequence[Hold]) -> None:
        """Their workers settled them, and may have died before they could say how."""


class Housekeeping:
    """One worker's. `runs` tells whether this process still works on a task, so that it will settle it by itself,
    however long a vendor takes for it.
    """

    def __init__(
        self,
        ledger: Ledger,
        worker: str,
        pace: Pace,
        runs: Callable[[str], bool] = lambda _: False,
        adopter: Adopter | None = None,
        worker_locks: WorkerLocks | None = None,
    ) -> None:
        self._worker_locks = worker_locks
        self._dead: set[str] = set()
        self._ledger = ledger
        self._adopter = adopter or Adopter()
        self._inherited: set[str] = set()
        self._worker = worker
        self._pace = pace
        self._runs = runs
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._is_away = False
        self._adopts_from: int | None = None
        self._folds_from = 0
        self._told_to = 0
        self._epoch = ""

    async def start(self) -> None:
        """Take the lease, without which nothing can be opened, and keep it. Redis may be away."""
        if await self._renew() is not None:
            # Before the first request, which may be for a picture that one of them has paid for.
            with suppress(StoreUnavailable):
                await self._bury()
        self._running = asyncio.create_task(self._run(), name="housekeeping")

    async def stop(self) -> None:
        """Finish the step that is under way, and give the lease up: others need not wait for its end."""
        self._stopping.set()
        if self._running is not None:
            await self._running
        with suppress(StoreUnavailable):
            await self._ledger.retire([self._worker])

    async def step(self) -> None:
        """Renew the lease, fold what is old, take over what was left behind, and settle what nobody else will."""
        now = await self._renew()
        if now is None:
            return
        try:
            await self._fold(now)
            await self._bury()
            may_adopt = self._adopts_from is not None and now >= self._adopts_from
            if may_adopt or self._dead:
                await self._adopt(None if may_adopt else self._dead)
                await self._tell_ended(now)
            await self._tend(now)
            await self._settle(now)
        except StoreUnavailable as error:
            self._lose(error)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.step()
            except Exception:  # noqa: BLE001 (a fault in one step must not end the lease of a worker that works)
                _log.exception("the ledger's housekeeping failed; it goes on")
            await self._rest()

    async def _rest(self) -> None:
        """Until the next step is due, or a worker of this instance has died."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._pace.lease_s / 3
        while (left := until - loop.time()) > 0 and not (self._worker_locks and self._worker_locks.find_dead()):
            if self._worker_locks:
                self._worker_locks.beat()
            try:
                async with asyncio.timeout(min(left, _LOOK_S)):
                    await self._stopping.wait()
            except TimeoutError:
                continue
            return

    async def _renew(self) -> int | None:
        """The server's time, or None while the store is away or lost."""
        try:
            lease = await self._ledger.renew(self._worker, self._pace.lease_us)
        except StoreUnavailable as error:
            self._lose(error)
            return None
        if lease.epoch != self._epoch:
            # Every worker's lease was forgotten with the rest; each needs time to come back.
            self._epoch, self._adopts_from = lease.epoch, None
        if self._is_away:
            _log.info("the ledger is back")
        if self._adopts_from is None:
            # Right after a start nobody can be told from a worker that has just come back, either.
            grace = self._pace.grace_s if self._is_away else 0
            self._adopts_from = lease.now + self._pace.lease_us + round(grace * MICROSECONDS)
        self._is_away = False
        return lease.now

    def _lose(self, error: StoreUnavailable) -> None:
        if not self._is_away:
            event = "the ledger is lost; nothing is spent" if isinstance(error, LedgerLost) else "the ledger is away"
            _log.error(event, reason=str(error))
        self._is_away = True
        self._adopts_from = None

    async def _fold(self, now: int) -> None:
        if now < self._folds_from:
            return
        await self._ledger.fold(self._pace.retention)
        self._folds_from = now + round(self._pace.fold_every_s * MICROSECONDS)

    async def _bury(self) -> None:
        """End the leases of this instance's own dead: there is proof, so nobody waits for a lease to end."""
        dead = self._worker_locks.find_dead() if self._worker_locks else []
        if self._worker_locks is None or not dead:
            return
        await self._ledger.retire(dead)
        self._worker_locks.forget(dead)
        self._dead.update(dead)
        _log.warning("workers of this instance are gone", workers=dead)

    async def _adopt(self, only: Collection[str] | None = None) -> None:
        """What an owner that is gone has not sent is released; what it has sent is ours to bring, or to wait for."""
        is_more = True
        while is_more:
            orphans = await self._ledger.orphans(_AT_ONCE if only is None else _MOST)
            mine = [hold for hold in orphans if only is None or hold.worker in only]
            is_more = any(await asyncio.gather(*(self._inherit(hold) for hold in mine)))
            if is_more:
                # There may be thousands, and our own lease must not end over them.
                await self._renew()

    async def _inherit(self, hold: Hold) -> bool:
        """Whether the task is ours now: somebody else may be faster, or the owner come back."""
        fence = await self._ledger.adopt(hold.task, self._worker, hold.fence)
        if isinstance(fence, LedgerAnswer):
            return False
        self._inherited.add(hold.task)
        in_hand = await self._adopter.collect(replace(hold, worker=self._worker, fence=fence))
        await self._ledger.close(hold.task, fence, "collect" if in_hand else "")
        sent = [call.call for call in hold.calls if call.state is LedgerAnswer.HELD]
        _log.warning("took over a task whose worker is gone", task=hold.task, worker=hold.worker, calls=sent)
        await self._tell(hold.task)
        return True

    async def _tell_ended(self, now: int) -> None:
        """Once for each worker that died: what it had closed, and perhaps not told of."""
        left = await self._ledger.left(self._told_to or max(1, now - _REMEMBERED_US), _MOST)
        if left:
            await self._adopter.tell_ended(left)
        self._told_to = now

    async def _tend(self, now: int) -> None:
        """See that what was taken over goes on, and settle what it waits for in vain."""
        for hold in await self._ledger.show_all(sorted(self._inherited)):
            if hold.worker != self._worker or hold.is_over:
                # Whoever settled its last call may have been kept from telling it.
                await self._adopter.tell(hold)
                self._inherited.discard(hold.task)
                continue
            in_hand = await self._adopter.collect(hold)
            await self._settle_calls(hold, now, in_hand)

    async def _settle(self, now: int) -> None:
        for hold in await self._ledger.overdue(self._worker, now - self._pace.answer_us, _MOST):
            if self._runs(hold.task) or hold.task in self._inherited:
                continue
            if hold.is_open:
                # Its end could not be written down, for Redis was away.
                await self._ledger.close(hold.task, hold.fence)
            await self._settle_calls(hold, now)

    async def _settle_calls(self, hold: Hold, now: int, in_hand: Collection[str] = ()) -> None:
        for call in hold.calls:
            is_overdue = call.marked + self._pace.answer_us <= now and call.call not in in_hand
            if call.state is LedgerAnswer.HELD and is_overdue:
                await self._decide(hold, call)

    async def _decide(self, hold: Hold, call: HeldCall) -> None:
        if state_after(call.policy) is LedgerAnswer.HELD:
            return
        await self._adopter.give_up(hold, call)
        await settle_unknown(self._ledger, hold.task, call.call, hold.fence, call.policy)
        _log.warning("settled a call whose outcome nobody knows", task=hold.task, call=call.call, policy=call.policy)
        await self._tell(hold.task)

    async def _tell(self, task: str) -> None:
        if found := await self._ledger.show(task):
            await self._adopter.tell(found)
