"""The collector of dead workers' calls: it polls tickets, downloads links, and charges stored pictures in the ledger.

It never sends a paid POST. If its process dies too, the next adopter continues from the same evidence.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress

import structlog

from gateway.delivery.bridge import Bridge, Collected, PollSchedule
from gateway.delivery.callbacks import listen
from gateway.delivery.intake import Intake, find_stored
from gateway.errors import PublicError
from gateway.money.ledger_results import HeldCall, Hold, LedgerAnswer
from gateway.money.unknown_outcome import settle_unknown
from gateway.pictures.spool import StorageFullError
from gateway.recovery.conclusion import end_task, is_awaited, make_unknown_error
from gateway.services import Services
from gateway.state.call_store import CallNote, CallRecord, Receipt
from gateway.store.client import StoreUnavailable
from gateway.store.windows import MICROSECONDS
from gateway.upstreams.verdict import CallFailed, Executed, Failure, classify

MOST = 500
"""Most calls that one process collects at a time: nearly all of that time is waiting."""

TRIES = 3
"""After this number of faults of the gateway, a call is collected no more, and its policy settles it."""

_log = structlog.get_logger(__name__)


class Collector:
    """The collector of one process. Every method but `stop` may raise StoreUnavailable."""

    def __init__(self, services: Services, most: int = MOST) -> None:
        self._services = services
        self._places = asyncio.Semaphore(most)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._faults: Counter[str] = Counter()

    async def collect(self, hold: Hold) -> Collection[str]:
        """Collect the pictures of a task's held calls in the background. Returns the ids of the calls to wait for.

        Among them are calls for which nothing is collected yet, because only a callback can still name their ticket.
        """
        held = [call for call in hold.calls if call.state is LedgerAnswer.HELD]
        calls = await self._services.calls.read([call.call for call in held])
        collecting: list[str] = []
        for call in held:
            known = calls.get(call.call)
            if known is None or not (self._may_collect(call, known) or self._may_be_called_back(call, known)):
                continue
            collecting.append(call.call)
            if known.is_collectable and call.call not in self._running:
                running = asyncio.create_task(self._collect_call(hold, call, known), name=f"collect {call.call}")
                self._running[call.call] = running
                running.add_done_callback(lambda _, name=call.call: self._running.pop(name, None))
        return collecting

    async def give_up(self, hold: Hold, call: HeldCall) -> None:
        """Store in the call's record the error that its outcome stays unknown."""
        await self._services.calls.keep_error(hold.task, call.call, make_unknown_error().to_facts())

    async def find_timeouts(self, calls: Sequence[str]) -> Mapping[str, float]:
        """Return the seconds that the answers of some calls may take, by call.

        A call whose upstream is not in the catalogue is left out.
        """
        targets, found = self._services.health.targets, await self._services.calls.read(calls)
        known = {call: targets.get(self._target(record)) for call, record in found.items()}
        return {call: target.config.timeouts.answer for call, target in known.items() if target is not None}

    async def end(self, hold: Hold) -> None:
        """Store the task's end, and queue its request's record, if nothing more can come of the task."""
        await end_task(self._services, hold)

    async def end_closed(self, holds: Sequence[Hold]) -> None:
        """Store the ends of those of the tasks that have none, and queue their requests' records."""
        unended = await self._services.task_store.find_unended([hold.task for hold in holds])
        for hold in holds:
            if hold.task in unended:
                await self.end(hold)

    async def stop(self) -> None:
        """Cancel the running collections, and wait for their end. The next adopter continues them."""
        running = list(self._running.values())
        for one in running:
            one.cancel()
        if running:
            await asyncio.wait(running)

    def _may_collect(self, call: HeldCall, known: CallRecord) -> bool:
        if not is_awaited(call, known) or not known.is_collectable or self._faults[call.call] >= TRIES:
            return False
        # An upstream that left the catalogue cannot be polled; stored pictures can still be posted.
        return known.receipt is not None or self._target(known) in self._services.health.targets

    def _may_be_called_back(self, call: HeldCall, known: CallRecord) -> bool:
        """True when a callback may still name the call's ticket."""
        target = self._services.health.targets.get(self._target(known))
        if target is None or known.is_collectable or not is_awaited(call, known):
            return False
        return time.time() < call.marked / MICROSECONDS + target.config.timeouts.callback

    async def _collect_call(self, hold: Hold, call: HeldCall, known: CallRecord) -> None:
        try:
            async with self._places:
                await self._settle(hold, call, known)
            if found := await self._services.ledger.show(hold.task):
                await self.end(found)
        except (StoreUnavailable, StorageFullError) as error:
            _log.warning("a dead worker's call waits for Redis or the storage", call=call.call, reason=str(error))
        except Exception:  # noqa: BLE001 (the next step tries again; after some tries the call's policy settles it)
            self._faults[call.call] += 1
            _log.exception("the gateway could not collect a dead worker's call", call=call.call)

    async def _settle(self, hold: Hold, call: HeldCall, known: CallRecord) -> None:
        services = self._services
        try:
            receipt = await self._find_receipt(hold, call, known)
        except CallFailed as failed:
            await self._fail(hold, call, known, failed.failure)
            return
        if receipt is None:
            _log.warning("the pictures of a call were lost with its worker", task=hold.task, call=call.call)
            await self.give_up(hold, call)
            await settle_unknown(services.ledger, hold.task, call.call, hold.fence, call.policy)
            return
        await services.pending_posts.book(
            f"post {hold.task}",
            lambda: services.ledger.post(hold.task, call.call, receipt.usd or 0, len(receipt.images)),
        )
        images = len(receipt.images)
        _log.warning("collected what a dead worker paid for", task=hold.task, call=call.call, images=images)
        with suppress(StoreUnavailable):
            # The task's end holds them too.
            await services.task_store.add(hold.task, receipt.images)

    async def _find_receipt(self, hold: Hold, call: HeldCall, known: CallRecord) -> Receipt | None:
        """Return the receipt of the call's stored pictures.

        If some are missing, collect the pictures again; if the upstream cannot be asked, return the receipt of the
        others, or None without any. Raises CallFailed, StorageFullError, StoreUnavailable.
        """
        can_ask = bool(known.ticket or known.links) and self._target(known) in self._services.health.targets
        stored = await find_stored(self._services, known.receipt) if known.receipt else None
        if stored and (stored == known.receipt or not can_ask):
            return stored
        if not can_ask or known.note is None:
            return None
        spool = self._services.new_spool()
        spool.expect_paid()
        try:
            intake = Intake(self._services, hold.task, call.call, known.note, spool)
            taken = await intake.take(await self._fetch(call, known, known.note, intake))
        finally:
            await spool.close()
        if taken.receipt is None:
            raise CallFailed(taken.failures[0][1])
        return taken.receipt

    async def _fetch(self, call: HeldCall, known: CallRecord, note: CallNote, intake: Intake) -> Collected:
        services = self._services
        target = services.health.targets[note.target]
        callbacks = services.callbacks if note.is_called_back else None
        with listen(services, callbacks, target, call.call) if callbacks else nullcontext() as listener:
            bridge = Bridge(target, services.upstreams[note.target], services.fetcher, listener=listener)
            if known.ticket is None:
                assert known.links is not None
                return await bridge.collect(known.links.to_answer(), intake.spool, len(note.slots))
            # The ticket is polled once in any case: it may have ended long ago.
            left = target.config.timeouts.task - (time.time() - call.marked / MICROSECONDS)
            return await bridge.resume(
                known.ticket, intake.spool, len(note.slots), PollSchedule(first=0), within=max(0, left)
            )

    async def _fail(self, hold: Hold, call: HeldCall, known: CallRecord, failure: Failure) -> None:
        """Store the error of a call without pictures, and settle it: as void if that is proven, else by its policy."""
        services = self._services
        target = services.health.targets.get(self._target(known))
        verdict = classify(
            failure,
            error_is_unbilled=target is not None and target.config.error_is_unbilled,
            refusal_is_unbilled=target is not None and target.config.refusal_is_unbilled,
            failed_task_is_unbilled=target is not None and target.config.failed_task_is_unbilled,
        )
        await services.unread_answers.keep(self._target(known), call.call, failure)
        _log.warning("a dead worker's call failed", task=hold.task, call=call.call, verdict=verdict.kind)
        error: PublicError = verdict.error
        await services.calls.keep_error(hold.task, call.call, error.to_facts())
        if verdict.executed is Executed.NO:
            await services.ledger.nack(hold.task, call.call)
        else:
            await settle_unknown(services.ledger, hold.task, call.call, hold.fence, call.policy)

    def _target(self, known: CallRecord) -> str:
        return known.note.target if known.note else ""
