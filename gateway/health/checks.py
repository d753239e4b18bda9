"""Health checks in each worker: renewal of the permits of its calls, and checks of credentials by free calls.

This module never sends a call that makes an image or costs money.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal

import structlog

from gateway.catalogue.catalogue import Target
from gateway.health.health import Health, log_rejected_credential
from gateway.pictures.spool import Spool
from gateway.process.periodic import PeriodicStep
from gateway.store.client import StoreUnavailable
from gateway.upstreams import Adapter
from gateway.upstreams.verdict import CallFailed, classify

_log = structlog.get_logger(__name__)


class HealthChecks:
    """One worker's checks. `upstreams` are adapters by target label; `pace_s` is the seconds between two steps."""

    def __init__(
        self, health: Health, upstreams: Mapping[str, Adapter], new_spool: Callable[[], Spool], pace_s: float
    ) -> None:
        self._health = health
        self._upstreams = upstreams
        self._new_spool = new_spool
        # Two steps, for a vendor may take longer to answer a check than a lease lasts.
        self.steps = (
            PeriodicStep("renewal of permits", pace_s, health.renew_permits),
            PeriodicStep("checks of credentials", pace_s, self._check_all, pauses_first=True, jitter=0.5),
        )

    async def check(self, target: Target) -> None:
        """Send a free call to a target, and store the balance or the failure for all processes.

        A rejected credential begins a cool-down. A failed call raises nothing. Raises StoreUnavailable.
        """
        store, spool = self._health.store, self._new_spool()
        floor = target.credential_config.min_balance
        trouble, left, cool, key = "", None, 0.0, target.key_digest
        try:
            left = await self._upstreams[target.label].check(spool)
        except CallFailed as failed:
            verdict = classify(failed.failure, error_is_unbilled=True)
            cool = target.config.health.cool_down if verdict.credential_down else 0.0
            trouble = verdict.kind if failed.failure.status is None else f"{verdict.kind} ({failed.failure.status})"
        finally:
            await spool.close()
        is_low = floor is not None and left is not None and left < floor
        balance = "" if left is None else _show_amount(left)
        change = await store.note_check(
            target.label, trouble=trouble, balance=balance, is_low=is_low, cool=cool, key=key
        )
        if change == "credential":
            log_rejected_credential(target, cool, trouble)
        elif change == "low":
            _log.error("low balance: no call goes to the upstream", upstream=target.label, credits=balance)

    async def _check_all(self) -> None:
        await asyncio.gather(*(self._check_if_due(target) for target in self._health.targets.values()))

    async def _check_if_due(self, target: Target) -> None:
        every = target.config.health.check_every
        try:
            if every is not None and await self._health.store.take_turn(target.label, every):
                await self.check(target)
        except StoreUnavailable:
            # The result could not be stored; the next turn checks again.
            return


def _show_amount(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
