"""The wait of a retry before it opens a task, until it is known whether its first request still waits.

The locks show the dead workers of this data folder at once. Any other worker must first show that its event loop runs:
in this folder by its lock file, which it touches twice a second, elsewhere by a renewal of its lease. It touches the
file once the ledger knows of every caller that has disconnected. After a suspension, this process may read a disconnect
and the retry in one turn, so the retry also waits for this process's disconnected callers.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from gateway import errors
from gateway.callers.auth import Caller
from gateway.jobs.job import Repeat
from gateway.money.ledger_reader import RetryQuery
from gateway.services import Services
from gateway.store.client import StoreUnavailable
from gateway.store.windows import MICROSECONDS
from gateway.tasks.wait import CallerDisconnected

LOOK_S = 0.5
"""Most seconds between two looks whether a worker has renewed its lease."""


async def wait_to_open(
    services: Services, caller: Caller, repeat: Repeat, gone: asyncio.Future[None], seconds: float
) -> None:
    """End the leases of this folder's dead workers, and return once it is known if the retry's first request waits.

    The wait for other workers seldom takes longer than a third of a lease, in which they renew theirs; after a whole
    lease or at a shutdown it ends without an answer. While Redis is unavailable, only the wait for the ledger steps of
    this process's disconnected callers is left. Nothing waits for a task or for a request with an Idempotency-Key.
    Raises CallerDisconnected, and TaskStillRunning when it takes longer than `seconds`.
    """
    until = asyncio.get_running_loop().time() + seconds
    # A task with an Idempotency-Key is joined even while its first request waits.
    may_repeat_another = not repeat.idempotency and repeat.form == "answer"
    with suppress(StoreUnavailable):
        await _retire_dead_workers(services)
        if may_repeat_another:
            await _wait_for_leases(services, caller, repeat, gone, until)
    if may_repeat_another:
        await _wait_for_departures(services, gone, until)


async def _retire_dead_workers(services: Services) -> None:
    """End the leases of this folder's dead workers: a retry may come before the housekeeping's next step."""
    if dead := services.worker_locks.find_dead():
        await services.ledger.retire(dead)


async def _wait_for_departures(services: Services, gone: asyncio.Future[None], until: float) -> None:
    """Wait until the ledger has the step of every disconnected caller of this process, or the step is queued."""
    loop = asyncio.get_running_loop()
    for departure in tuple(services.departing):
        left = max(0.0, until - loop.time())
        await asyncio.wait({departure, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise CallerDisconnected
        if not departure.done():
            raise _make_still_running()


async def _wait_for_leases(
    services: Services, caller: Caller, repeat: Repeat, gone: asyncio.Future[None], until: float
) -> None:
    """Wait until each other worker whose request waits for an equal task has shown that it runs, or its lease ended.

    Returns after a lease's length, and at a shutdown, in any case.
    """
    loop = asyncio.get_running_loop()
    lease_s, since = services.catalogue.document.accounting.lease, 0
    asked, longest = time.time_ns(), loop.time() + lease_s
    while not services.shutdown.is_begun and loop.time() < longest:
        living = tuple(services.worker_locks.find_living(asked))
        query = RetryQuery(caller.key.id, repeat.fingerprint, services.worker, round(lease_s * MICROSECONDS), living)
        doubtful_since = await services.ledger.check_first_request(query, since)
        if doubtful_since is None:
            return
        since = doubtful_since
        if loop.time() >= until:
            raise _make_still_running()
        await asyncio.wait({gone}, timeout=min(LOOK_S, lease_s / 10, until - loop.time()))
        if gone.done():
            raise CallerDisconnected


def _make_still_running() -> errors.TaskStillRunning:
    return errors.TaskStillRunning(
        "Another instance of the gateway may be making this image; send the same request again to get it.",
        retry_after=1,
        should_retry=True,
    )
