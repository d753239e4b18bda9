"""The ledger's housekeeping in each worker process: its lease, what is old, and what a dead worker left behind.

Started and stopped by `app`. Never sends a paid POST: what a dead worker did not send is released, and what it may have
sent is settled by its policy once its answer can no longer come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from gateway.store.answers import HeldCall, Hold, LedgerLost, Retention, Verdict
from gateway.store.client import StoreUnavailable
from gateway.store.ledger import Ledger
from gateway.store.windows import MICROSECONDS

_MOST = 1000
"""Tasks that a step looks at. Those that are held for an operator come first, and must not hide the others."""

Hopes = Callable[[Sequence[str]], Awaitable[Mapping[str, float]]]
"""The calls among these that may still be told of, with the seconds from their mark until when."""

_log = structlog.get_logger(__name__)


async def no_hope(calls: Sequence[str]) -> Mapping[str, float]:
    """Where nobody calls back."""
    return {}


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things last, in seconds. `call_timeout_s` is the longest that the answer to a paid POST may take."""

    call_timeout_s: float
    lease_s: float = 15.0
    grace_s: float = 5.0
    """Above a lease, for which nobody adopts anything after the store was away: its owners could not renew either."""
    fold_every_s: float = 60.0
    retention: Retention = field(default_factory=Retention)
    hopes: Hopes = no_hope

    @property
    def lease_us(self) -> int:
        return round(self.lease_s * MICROSECONDS)

    @property
    def answer_us(self) -> int:
        """When a call's answer can no longer come, after it was marked."""
        return round((self.call_timeout_s + self.lease_s) * MICROSECONDS)


class Bookkeeping:
    """One worker's. `runs` tells whether this process still works on a task, so that it will settle it by itself,
    however long a vendor takes for it.

    `remember` and `conclude` are handed what becomes of tasks that nobody else will tell of.
    """

    def __init__(
        self,
        ledger: Ledger,
        worker: str,
        pace: Pace,
        runs: Callable[[str], bool] = lambda _: False,
        remember: Callable[[Hold], None] = lambda _: None,
        conclude: Callable[[Hold], Awaitable[None]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._conclude = conclude
        self._remember = remember
        self._worker = worker
        self._pace = pace
        self._runs = runs
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._is_away = False
        self._adopts_from: int | None = None
        self._folds_from = 0
        self._epoch = ""

    async def start(self) -> None:
        """Take the lease, without which nothing can be opened, and keep it. Redis may be away."""
        await self._renew()
        self._running = asyncio.create_task(self._run(), name="bookkeeping")

    async def stop(self) -> None:
        """Finish the step that is under way. The lease ends by itself."""
        self._stopping.set()
        if self._running is not None:
            await self._running

    async def step(self) -> None:
        """Renew the lease, fold what is old, take over what was left behind, and settle what nobody else will."""
        now = await self._renew()
        if now is None:
            return
        try:
            await self._fold(now)
            if self._adopts_from is not None and now >= self._adopts_from:
                await self._adopt()
            await self._settle(now)
        except StoreUnavailable as error:
            self._lose(error)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.step()
            except Exception:  # noqa: BLE001 (a fault in one step must not end the lease of a worker that works)
                _log.exception("the ledger's housekeeping failed; it goes on")
            try:
                async with asyncio.timeout(self._pace.lease_s / 3):
                    await self._stopping.wait()
            except TimeoutError:
                continue

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

    async def _adopt(self) -> None:
        """What an owner that is gone has not sent is released; what it has sent is ours to wait for."""
        for hold in await self._ledger.orphans():
            fence = await self._ledger.adopt(hold.task, self._worker, hold.fence)
            # Somebody else was faster, or the owner has come back.
            if isinstance(fence, Verdict):
                continue
            await self._ledger.close(hold.task, fence)
            sent = [call.call for call in hold.calls if call.state is Verdict.HELD]
            _log.warning("took over a task whose worker is gone", task=hold.task, worker=hold.worker, calls=sent)
            await self._tell(hold.task)

    async def _settle(self, now: int) -> None:
        for hold in await self._ledger.overdue(self._worker, now - self._pace.answer_us, _MOST):
            if self._runs(hold.task):
                continue
            if hold.is_open:
                # Its end could not be written down, for Redis was away.
                await self._ledger.close(hold.task, hold.fence)
            await self._settle_calls(hold, now)

    async def _settle_calls(self, hold: Hold, now: int) -> None:
        due = [one for one in hold.calls if one.state is Verdict.HELD and one.marked + self._pace.answer_us <= now]
        hopes = await self._pace.hopes([call.call for call in due]) if due else {}
        for call in due:
            if call.marked + round(hopes.get(call.call, 0) * MICROSECONDS) <= now:
                await self._decide(hold, call)

    async def _decide(self, hold: Hold, call: HeldCall) -> None:
        if call.policy == "hold":
            return
        if call.policy == "release":
            await self._ledger.nack(hold.task, call.call)
        else:
            await self._ledger.presume(hold.task, call.call, hold.fence)
        _log.warning("settled a call whose outcome nobody knows", task=hold.task, call=call.call, policy=call.policy)
        await self._tell(hold.task)

    async def _tell(self, task: str) -> None:
        if found := await self._ledger.show(task):
            self._remember(found)
            if self._conclude is not None:
                await self._conclude(found)
