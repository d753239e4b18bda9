"""Whether who had a retry's first try may be dead, or has left: a retry is opened only once that is known.

Called by `pipeline` before it opens a task. A worker of this data folder is known to be dead at once. Any other has
until the end of its lease to prove that its loop turns, and so hears of its callers' ends: twice a second to its own
folder, with its lease to everybody else. A process that stood still finds both tries at once.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from gateway import errors
from gateway.callers.auth import Caller
from gateway.jobs.job import Repeat
from gateway.money.ledger import RetryQuery
from gateway.services import Services
from gateway.store.client import StoreUnavailable
from gateway.store.windows import MICROSECONDS
from gateway.tasks.wait import CallerDisconnected

LOOK_S = 0.5
"""Seconds between two looks whether a worker has renewed its lease; less where leases are short."""


async def wait_out(
    services: Services, caller: Caller, repeat: Repeat, gone: asyncio.Future[None], seconds: float
) -> None:
    """Return when a retry can be told from an equal request beside a living one. Raises CallerLeft.

    Raises TaskStillRunning when that takes longer than `seconds`: the caller's next try finds more. A lease is renewed
    three times in its length, so this seldom takes longer than a third of one, and never more than one.
    """
    if not repeat.retry:
        return
    until = asyncio.get_running_loop().time() + seconds
    # A task with an Idempotency-Key is joined whoever waits for it.
    may_have_twin = not repeat.idempotency and repeat.form == "answer"
    with suppress(StoreUnavailable):
        await _bury(services)
        if may_have_twin:
            await _outwait(services, caller, repeat, gone, until)
    if may_have_twin:
        await _see_off(services, gone, until)


async def _bury(services: Services) -> None:
    """A retry may be faster than the bookkeeping's next step."""
    if dead := services.worker_locks.find_dead():
        await services.ledger.retire(dead)


async def _see_off(services: Services, gone: asyncio.Future[None], until: float) -> None:
    """Wait for those whose end was heard here, and whose leaving may still be on its way to the ledger."""
    loop = asyncio.get_running_loop()
    for departure in tuple(services.departing):
        left = max(0.0, until - loop.time())
        await asyncio.wait({departure, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise CallerDisconnected
        if not departure.done():
            raise _come_back()


async def _outwait(
    services: Services, caller: Caller, repeat: Repeat, gone: asyncio.Future[None], until: float
) -> None:
    loop = asyncio.get_running_loop()
    lease_s, since = services.catalogue.document.accounting.lease, 0
    asked, longest = time.time_ns(), loop.time() + lease_s
    while not services.shutdown.is_begun and loop.time() < longest:
        living = tuple(services.worker_locks.find_living(asked))
        query = RetryQuery(caller.key.id, repeat.fingerprint, services.worker, round(lease_s * MICROSECONDS), living)
        doubted = await services.ledger.check_first_attempt(query, since)
        if doubted is None:
            return
        since = doubted
        if loop.time() >= until:
            raise _come_back()
        await asyncio.wait({gone}, timeout=min(LOOK_S, lease_s / 10, until - loop.time()))
        if gone.done():
            raise CallerDisconnected


def _come_back() -> errors.TaskStillRunning:
    return errors.TaskStillRunning(
        "Another instance of the gateway may be making this image; send the same request again to get it.",
        retry_after=1,
        should_retry=True,
    )
