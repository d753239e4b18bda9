"""Work that outlives its HTTP request: a task is written down, runs to its end, and is told to whoever waits.

Handed its work as a function by `pipeline`. A caller that hangs up ends its wait, never the work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from gateway import errors
from gateway.callers.auth import Caller
from gateway.delivery.outcome import Outcome
from gateway.errors import PublicError
from gateway.ids import new_id
from gateway.jobs.fingerprint import Repeat
from gateway.jobs.job import ImageJob
from gateway.money.ledger_results import Joined, LedgerAnswer
from gateway.money.reservation import Reservation, ledger_unavailable, reserve
from gateway.pictures.spool import Spool
from gateway.process.shutdown import PAUSE_S
from gateway.routing.plan import Plan
from gateway.services import Services
from gateway.state.task_record import End, Hook, Promise, ResponseFormat, TaskImage, TaskRecord
from gateway.state.task_store import MOST_HOOKS
from gateway.store.client import StoreUnavailable
from gateway.tasks.wait import TaskWait

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivered:
    """Every image came."""

    record: TaskRecord


@dataclass(frozen=True, slots=True)
class PartlyDelivered:
    """Some images came."""

    record: TaskRecord


@dataclass(frozen=True, slots=True)
class Refused:
    """No image, and nothing that an upstream may have billed."""

    record: TaskRecord
    error: PublicError


@dataclass(frozen=True, slots=True)
class Failed:
    """No image, though an upstream may have billed one."""

    record: TaskRecord
    error: PublicError


@dataclass(frozen=True, slots=True)
class StillRunning:
    """The caller's time is up; the work goes on."""

    task_id: str


Ending = Delivered | PartlyDelivered | Refused | Failed | StillRunning


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a task is to make, as what it may be a repetition, and how its own address tells of it.

    `webhook` is told of its end, with links that begin by `base_url`.
    """

    job: ImageJob
    plan: Plan
    repeat: Repeat = field(default_factory=Repeat)
    model: str = ""
    response_format: ResponseFormat = "b64_json"
    webhook: str | None = None
    base_url: str = ""


@dataclass(slots=True)
class Task:
    """Our promise to a caller, while it runs here. `record` is what anybody may know of it."""

    id: str
    caller: Caller
    job: ImageJob
    plan: Plan
    spool: Spool
    services: Services
    reservation: Reservation
    record: TaskRecord
    writing: set[asyncio.Task[None]] = field(default_factory=set)

    def report(self, made: TaskImage) -> None:
        """An image is stored and paid for."""
        self.record = self.record.with_image(made)
        self.services.task_events.post(self.record)
        if len(self.record.images) == self.record.promise.n:
            # The end, which is written with all images, is next.
            return
        writing = asyncio.create_task(self._write(made))
        self.writing.add(writing)
        writing.add_done_callback(self.writing.discard)

    async def _write(self, made: TaskImage) -> None:
        # The end is written with all images once more.
        with suppress(StoreUnavailable):
            await self.services.task_store.add(self.id, [made])


Work = Callable[[Task], Awaitable[Outcome]]


async def open_task(services: Services, caller: Caller, wish: TaskSpec, spool: Spool, work: Work) -> TaskWait:
    """Join a task that makes the same, or admit one, write it down and start its work.

    Raises PublicError: nothing was started.
    """
    if services.shutdown.is_begun:
        raise errors.shutting_down()
    task_id, job = new_id("task"), wish.job
    found = await reserve(services.books, caller.identity, job, wish.plan, task_id, wish.repeat)
    hook = _make_hook(caller, wish)
    if isinstance(found, Joined):
        waiting = TaskWait(services, found.task, task_id, is_joined=True, is_replay=found.is_replay)
        await _add_hook(waiting, hook)
        return waiting
    reservation, plan = found
    promise = Promise(
        key=caller.key.id,
        key_name=caller.key.name,
        operation=job.operation,
        model=wish.model,
        n=job.n,
        size=str(job.size or "auto"),
        dropped=job.dropped,
        end_user=job.end_user,
        created=int(time.time()),
        response_format=wish.response_format,
    )
    record = TaskRecord(id=task_id, promise=promise)
    task = Task(task_id, caller, job, plan, spool, services, reservation, record)
    try:
        await services.task_store.open(record, hook)
    except StoreUnavailable as error:
        await reservation.close()
        raise ledger_unavailable() from error
    services.task_events.post(record)
    # The set holds the only reference: asyncio forgets tasks that nobody holds.
    spool.is_kept = True
    running = asyncio.create_task(_run(task, work), name=task.id)
    services.running.add(running)
    running.add_done_callback(services.running.discard)
    return TaskWait(services, task_id, task_id, rates=reservation.rates)


async def wait_for(waiting: TaskWait, seconds: float) -> Ending:
    """How the task ended, or StillRunning after `seconds`. Raises CallerLeft."""
    record = await waiting.end(seconds)
    return StillRunning(waiting.task) if record is None else name_ending(record)


def name_ending(record: TaskRecord) -> Ending:
    """The ending of a task that has one."""
    end = record.end
    if end is None:
        return StillRunning(record.id)
    if end.error is None:
        return Delivered(record)
    if record.images:
        return PartlyDelivered(record)
    error = errors.read_error(end.error)
    return Failed(record, error) if end.calls else Refused(record, error)


async def cancel(services: Services, record: TaskRecord) -> TaskRecord:
    """Cancel a task for which nothing was sent yet; others go on. Answers the task as it stands then.

    Raises StoreUnavailable.
    """
    hold = await services.ledger.show(record.id)
    if record.end is not None or hold is None or not hold.is_open:
        return record
    if await services.ledger.close(record.id, hold.fence, "cancel") is not LedgerAnswer.CLOSED:
        return record
    error = errors.TaskCanceled("The task was canceled before anything was sent for it.")
    ended = record.with_end(End(status="canceled", completed=int(time.time()), error=error.to_facts()))
    return await services.task_store.end(ended)


async def drain(services: Services) -> int:
    """Wait for the running work, its booking and its records, and leave what others can finish.

    Answers how much was cut off when the time was up.
    """
    shutdown, settings = services.shutdown, services.settings
    while services.running and shutdown.seconds < (settings.drain_s if shutdown.is_holding else settings.stop_s):
        for each in services.running:
            if shutdown.may_leave(each.get_name()):
                each.cancel()
        await asyncio.wait(set(services.running), timeout=PAUSE_S, return_when=asyncio.FIRST_COMPLETED)
    cut_off = set(services.running)
    for each in cut_off:
        each.cancel()
    await asyncio.gather(*cut_off, return_exceptions=True)
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, settings.drain_s - shutdown.seconds)):
            await services.pending_posts.wait()
            await services.recorder.flush(settings.drain_s)
    return len(cut_off) + services.pending_posts.is_behind


def _make_hook(caller: Caller, wish: TaskSpec) -> Hook | None:
    if wish.webhook is None:
        return None
    return Hook(id=new_id("msg"), key=caller.key.id, url=wish.webhook, base_url=wish.base_url)


async def _add_hook(waiting: TaskWait, hook: Hook | None) -> None:
    """Have one more address told of the task that was joined. Raises PublicError, and then it is not waited for."""
    if hook is None:
        return
    try:
        if await waiting.services.task_store.subscribe(waiting.task, hook):
            return
        refusal: PublicError = errors.InvalidValue(
            f"X-Gateway-Webhook: this task is told to {MOST_HOOKS} addresses already; name one of them, or none."
        )
    except StoreUnavailable as error:
        refusal = ledger_unavailable(error)
    await waiting.leave()
    raise refusal


async def _run(task: Task, work: Work) -> None:
    """The work from start to end, whatever becomes of the request that asked for it."""
    try:
        outcome = await work(task)
    except Exception:  # noqa: BLE001 (a fault of ours must end the wait as an error, not as a hang)
        _log.exception("task broke off", task=task.id)
        fault = errors.InternalError("The gateway failed; the request id finds it in its log.", should_retry=False)
        # What was delivered and booked before the fault stands.
        outcome = Outcome(error=fault, spent=task.reservation.spent, is_guess=task.reservation.is_doubtful)
    finally:
        await task.spool.close()
    # Before anybody hears of the end: the next request must find this one's place free.
    is_policy = isinstance(outcome.error, errors.ModerationBlocked)
    await task.reservation.close("policy" if is_policy else "")
    if task.writing:
        await asyncio.wait(set(task.writing))
    await _end(task, outcome)


async def _end(task: Task, outcome: Outcome) -> None:
    """Write the end down and tell it; who waits here hears of it though Redis is away."""
    for made in outcome.images:
        task.record = task.record.with_image(made)
    ended = task.record.with_end(outcome.to_end(int(time.time())))
    stands: list[TaskRecord] = []

    async def write() -> None:
        stands.append(await task.services.task_store.end(ended))

    await task.services.pending_posts.book(f"end {task.id}", write)
    # One who canceled the task was first, or one who took it over while this process slept. Its own words are more
    # than what is written down where they are the same: a prompt is not.
    is_own = not stands or (stands[0].end == ended.end and _artifacts_of(stands[0]) == _artifacts_of(ended))
    task.services.task_events.post(ended if is_own else stands[0])


def _artifacts_of(record: TaskRecord) -> list[str]:
    return [each.artifact for each in record.images]
