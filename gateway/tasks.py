"""Work that outlives its HTTP request: a task is written down, runs to its end, and is waited for.

Handed its work as a function by `pipeline`. A caller that hangs up ends the wait, never the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from gateway import errors, quota
from gateway.auth import Caller, store_away
from gateway.dispatch import Outcome
from gateway.errors import PublicError
from gateway.ids import new_id
from gateway.job import ImageJob
from gateway.quota import Reservation
from gateway.receiving import Image
from gateway.routing import Plan
from gateway.services import Services
from gateway.spool import Spool
from gateway.store.client import StoreUnavailable

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivered:
    """Every image came."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class PartlyDelivered:
    """Some images came; `outcome.error` says why not all."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Refused:
    """No image, and nothing that an upstream may have billed."""

    error: PublicError


@dataclass(frozen=True, slots=True)
class Failed:
    """No image, though an upstream may have billed one."""

    error: PublicError


@dataclass(frozen=True, slots=True)
class StillRunning:
    """The caller's time is up; the work goes on."""

    task_id: str


Ending = Delivered | PartlyDelivered | Refused | Failed | StillRunning


@dataclass(slots=True)
class Task:
    """Our promise to a caller. `arrived` fills as images are stored; `done` ends with the Outcome."""

    id: str
    caller: Caller
    job: ImageJob
    plan: Plan
    spool: Spool
    services: Services
    reservation: Reservation
    arrived: asyncio.Queue[Image] = field(default_factory=asyncio.Queue)
    done: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def report(self, image: Image) -> None:
        self.arrived.put_nowait(image)


Work = Callable[[Task], Awaitable[Outcome]]


async def open_task(services: Services, caller: Caller, job: ImageJob, plan: Plan, spool: Spool, work: Work) -> Task:
    """Admit a task, hold its price, write it down and start its work. Raises PublicError: nothing was started."""
    task_id = new_id("task")
    reservation, plan = await quota.reserve(services, caller, job, plan, task_id)
    task = Task(task_id, caller, job, plan, spool, services, reservation)
    facts = {"operation": job.operation, "n": job.n, "end_user": job.end_user or ""}
    try:
        await services.task_store.open(task.id, caller.key.id, facts)
    except StoreUnavailable as error:
        await reservation.close()
        raise store_away() from error
    # The set holds the only reference: asyncio forgets tasks that nobody holds.
    spool.is_kept = True
    running = asyncio.create_task(_run(task, work), name=task.id)
    services.running.add(running)
    running.add_done_callback(services.running.discard)
    return task


async def wait_for(task: Task, seconds: float) -> Ending:
    """How the task ended, or StillRunning after `seconds`."""
    try:
        outcome = await asyncio.wait_for(asyncio.shield(task.done), seconds)
    except TimeoutError:
        return StillRunning(task.id)
    return name_ending(outcome)


def name_ending(outcome: Outcome) -> Ending:
    if outcome.error is None:
        return Delivered(outcome)
    if outcome.images:
        return PartlyDelivered(outcome)
    return Failed(outcome.error) if outcome.calls else Refused(outcome.error)


async def drain(services: Services, seconds: float) -> int:
    """Wait for the running work, its booking and its records; answers how much work was left when the time was up."""
    deadline = asyncio.get_running_loop().time() + seconds
    if services.running:
        await asyncio.wait(set(services.running), timeout=seconds)
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            await services.backlog.wait()
            await services.recorder.flush(seconds)
    return len(services.running) + services.backlog.is_behind


async def _run(task: Task, work: Work) -> None:
    """The work from start to end, whatever becomes of the request that asked for it."""
    try:
        outcome = await work(task)
    except Exception:  # noqa: BLE001 (a fault of ours must end the wait as an error, not as a hang)
        _log.exception("task broke off", task=task.id)
        fault = errors.InternalError("The gateway failed; the request id finds it in its log.", should_retry=False)
        outcome = Outcome(error=fault)
    finally:
        await task.spool.close()
    # Before anybody hears of the end: the next request must find this one's place free.
    await task.reservation.close()
    await _write_end(task, outcome)
    if not task.done.done():
        task.done.set_result(outcome)


async def _write_end(task: Task, outcome: Outcome) -> None:
    status = "succeeded" if outcome.images else "failed"
    facts = {
        "images": [image.artifact.id for image in outcome.images],
        "upstreams": outcome.upstreams,
        "error": outcome.error.body()["error"] if outcome.error else "",
    }
    try:
        await task.services.task_store.end(task.id, status, facts)
    except StoreUnavailable as error:
        # The images are stored and the caller gets them; only the record's last line is missing.
        _log.error("a task's end could not be written down", task=task.id, reason=str(error))
