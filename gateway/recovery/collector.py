"""Brings what dead workers paid for: a ticket is polled on, links are downloaded, stored pictures are posted.

Made by `app` for its process's bookkeeping, which adopts the tasks. Never sends a paid POST. It may die as well:
whoever adopts next begins again where the evidence ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress

import structlog
from typing_extensions import override

from gateway.delivery.bridge import Bridge, Collected, PollSchedule
from gateway.delivery.callbacks import listen
from gateway.delivery.intake import Intake, find_stored
from gateway.errors import PublicError
from gateway.money.ledger_results import HeldCall, Hold, LedgerAnswer
from gateway.money.unknown_outcome import settle_unknown
from gateway.pictures.spool import StorageFullError
from gateway.recovery.conclusion import end_task, is_awaited, make_unknown_error
from gateway.recovery.housekeeping import Adopter
from gateway.services import Services
from gateway.state.call_record import CallNote, CallRecord, Receipt
from gateway.store.client import StoreUnavailable
from gateway.store.windows import MICROSECONDS
from gateway.upstreams.verdict import CallFailed, Executed, Failure, classify

MOST = 500
"""Calls that one process brings at a time: nearly all of that is waiting."""

TRIES = 3
"""Faults of ours after which a call is left to the resolver."""

_log = structlog.get_logger(__name__)


class Collector(Adopter):
    """One process's."""

    def __init__(self, services: Services, most: int = MOST) -> None:
        self._services = services
        self._places = asyncio.Semaphore(most)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._faults: Counter[str] = Counter()

    @override
    async def collect(self, hold: Hold) -> Collection[str]:
        held = [call for call in hold.calls if call.state is LedgerAnswer.HELD]
        calls = await self._services.calls.read([call.call for call in held])
        in_hand: list[str] = []
        for call in held:
            known = calls.get(call.call)
            if known is None or not (self._may_bring(call, known) or self._may_be_named(call, known)):
                continue
            in_hand.append(call.call)
            if known.is_collectable and call.call not in self._running:
                bringing = asyncio.create_task(self._bring(hold, call, known), name=f"collect {call.call}")
                self._running[call.call] = bringing
                bringing.add_done_callback(lambda _, name=call.call: self._running.pop(name, None))
        return in_hand

    @override
    async def give_up(self, hold: Hold, call: HeldCall) -> None:
        await self._services.calls.keep_error(hold.task, call.call, make_unknown_error().to_facts())

    @override
    async def tell(self, hold: Hold) -> None:
        await end_task(self._services, hold)

    @override
    async def tell_ended(self, holds: Sequence[Hold]) -> None:
        unended = await self._services.task_store.find_unended([hold.task for hold in holds])
        for hold in holds:
            if hold.task in unended:
                await self.tell(hold)

    async def stop(self) -> None:
        """Leave what is under way to the next heir."""
        running = list(self._running.values())
        for bringing in running:
            bringing.cancel()
        if running:
            await asyncio.wait(running)

    def _may_bring(self, call: HeldCall, known: CallRecord) -> bool:
        if not is_awaited(call, known) or not known.is_collectable or self._faults[call.call] >= TRIES:
            return False
        # An upstream that the catalogue has no more cannot be asked; what is stored already can be posted.
        return known.receipt is not None or self._target(known) in self._services.health.targets

    def _may_be_named(self, call: HeldCall, known: CallRecord) -> bool:
        """Whether a callback may still say which ticket the call got."""
        target = self._services.health.targets.get(self._target(known))
        if target is None or known.is_collectable or not is_awaited(call, known):
            return False
        return time.time() < call.marked / MICROSECONDS + target.config.timeouts.callback

    async def _bring(self, hold: Hold, call: HeldCall, known: CallRecord) -> None:
        try:
            async with self._places:
                await self._settle(hold, call, known)
            if found := await self._services.ledger.show(hold.task):
                await self.tell(found)
        except (StoreUnavailable, StorageFullError) as error:
            _log.warning("a dead worker's call waits for a store", call=call.call, reason=str(error))
        except Exception:  # noqa: BLE001 (the next step tries again, and after some tries the resolver has it)
            self._faults[call.call] += 1
            _log.exception("a dead worker's call could not be brought", call=call.call)

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
        _log.warning("brought what a dead worker paid for", task=hold.task, call=call.call, images=len(receipt.images))
        with suppress(StoreUnavailable):
            # The end has them too.
            await services.task_store.add(hold.task, receipt.images)

    async def _find_receipt(self, hold: Hold, call: HeldCall, known: CallRecord) -> Receipt | None:
        """The call's receipt: of stored pictures, or of those collected now; None where neither is possible.

        Raises CallFailed.
        """
        can_ask = bool(known.ticket or known.links) and self._target(known) in self._services.health.targets
        stored = await find_stored(self._services, known.receipt) if known.receipt else None
        if stored and (stored == known.receipt or not can_ask):
            return stored
        if not can_ask or known.note is None:
            return None
        spool = self._services.new_spool()
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
        with listen(services, target, call.call, is_called_back=note.is_called_back) as listener:
            bridge = Bridge(target, services.upstreams[note.target], services.fetcher, listener=listener)
            if known.ticket is None:
                assert known.links is not None
                return await bridge.collect(known.links.to_answer(), intake.spool)
            # It is asked once in any case: it may have ended long ago.
            left = target.config.timeouts.task - (time.time() - call.marked / MICROSECONDS)
            return await bridge.resume(known.ticket, intake.spool, PollSchedule(first=0), max(0, left))

    async def _fail(self, hold: Hold, call: HeldCall, known: CallRecord, failure: Failure) -> None:
        """Settle a call that brought nothing, by what that proves."""
        services = self._services
        target = services.health.targets.get(self._target(known))
        verdict = classify(
            failure,
            error_is_unbilled=target is not None and target.config.error_is_unbilled,
            refusal_is_unbilled=target is not None and target.config.refusal_is_unbilled,
        )
        _log.warning("a dead worker's call failed", task=hold.task, call=call.call, verdict=verdict.kind)
        error: PublicError = verdict.error
        await services.calls.keep_error(hold.task, call.call, error.to_facts())
        if verdict.executed is Executed.NO:
            await services.ledger.nack(hold.task, call.call)
        else:
            await settle_unknown(services.ledger, hold.task, call.call, hold.fence, call.policy)

    def _target(self, known: CallRecord) -> str:
        return known.note.target if known.note else ""
