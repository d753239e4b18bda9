"""A task, the work that outlives its HTTP request: opened or joined, stored, run to its end, and announced.

A caller that disconnects ends its wait, never a paid call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from gateway import errors
from gateway.callers.auth import Caller
from gateway.delivery.call import FirstCall, prepare_first
from gateway.delivery.outcome import Outcome
from gateway.errors import PublicError
from gateway.health.health import SCRIPTS as TARGET_SCRIPTS
from gateway.health.health import CallReport
from gateway.ids import new_id
from gateway.jobs.job import ImageJob, Repeat
from gateway.money.ledger_results import Joined, LedgerAnswer
from gateway.money.reservation import Reservation, Steps, ledger_unavailable, reserve
from gateway.pictures.spool import Spool
from gateway.process.shutdown import PAUSE_S
from gateway.routing.plan import Plan
from gateway.services import Services
from gateway.state.task_store import MOST_HOOKS, SCRIPTS, End, Hook, Promise, ResponseFormat, TaskImage, TaskRecord
from gateway.store.client import StoreUnavailable
from gateway.store.lua import chain_scripts
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

    @property
    def is_unstarted(self) -> bool:
        """True when the task's worker died before an upstream accepted a call."""
        return self.record.end is not None and self.record.end.is_unstarted


@dataclass(frozen=True, slots=True)
class Failed:
    """No image, though an upstream may have billed one."""

    record: TaskRecord
    error: PublicError


@dataclass(frozen=True, slots=True)
class StillRunning:
    """The task has no end yet."""

    task_id: str


Ending = Delivered | PartlyDelivered | Refused | Failed | StillRunning


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """The specification of a task: its job and plan, the request that it may repeat, and the form of its answers.

    `webhook` is the address that gets a message at its end; links in it begin with `base_url`.
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
    """A task that this process runs. `record` has its images so far; `writing` are the background writes of them.

    `first` is its first call, if the step that opened the task took the call's permit.
    """

    id: str
    caller: Caller
    job: ImageJob
    plan: Plan
    spool: Spool
    services: Services
    reservation: Reservation
    record: TaskRecord
    first: FirstCall | None = None
    writing: set[asyncio.Task[None]] = field(default_factory=set)

    def add_image(self, image: TaskImage) -> None:
        """Add an image to the record, announce it in this process, and write it to the store in the background.

        The artifact must be stored, and its call charged, before. The last image is written with the task's end.
        """
        self.record = self.record.with_image(image)
        if len(self.record.images) == self.record.promise.n:
            # The end is next. It writes and announces all images, and its step has the last post.
            return
        self.services.task_events.post(self.record)
        writing = asyncio.create_task(self._write(image))
        self.writing.add(writing)
        writing.add_done_callback(self.writing.discard)

    async def _write(self, image: TaskImage) -> None:
        # The end writes all images once more.
        with suppress(StoreUnavailable):
            await self.services.task_store.add(self.id, [image])


Work = Callable[[Task], Awaitable[Outcome]]


async def open_task(
    services: Services, caller: Caller, spec: TaskSpec, spool: Spool, work: Work, *, begins_call: bool = False
) -> TaskWait:
    """Join an equal task, or open one: reserve its price, store it and start its work.

    With `begins_call` the same step takes the permit of the task's first call, and may mark the call as sent: the work
    must send or end it. Raises PublicError; then no work was started.
    """
    if services.shutdown.is_begun:
        raise errors.shutting_down()
    task_id, job = new_id("task"), spec.job
    promise = Promise(
        key=caller.key.id,
        key_name=caller.key.name,
        operation=job.operation,
        model=spec.model,
        n=job.n,
        size=str(job.size_asked or "auto"),
        dropped=job.dropped,
        end_user=job.end_user,
        created=int(time.time()),
        response_format=spec.response_format,
    )
    record, hook = TaskRecord(id=task_id, promise=promise), _make_hook(caller, spec)
    storing = services.task_store.make_open(record, hook)
    first: FirstCall | None = None

    async def make_steps(plan: Plan) -> Steps:
        nonlocal first
        first = await prepare_first(services, job, plan, task_id, spool) if begins_call else None
        if first is None:
            return (storing,), ()
        return (storing, *first.make_steps(services, task_id)), first.make_undo(services, task_id)

    try:
        found = await reserve(services.books, caller.identity, job, spec.plan, task_id, spec.repeat, make_steps)
    except BaseException:
        if first:
            services.concurrency_queue.finish(first.permit, CallReport("none"))
        raise
    if isinstance(found, Joined):
        waiting = TaskWait(services, found.task, task_id, is_joined=True, is_replay=found.is_replay)
        await _add_hook(waiting, hook)
        return waiting
    reservation, plan = found
    task = Task(task_id, caller, job, plan, spool, services, reservation, record, first)
    services.task_events.post(record)
    # `running` holds the only reference: asyncio forgets tasks that nobody holds.
    spool.is_kept = True
    running = services.running[task_id] = asyncio.create_task(_run(task, work), name=task_id)
    running.add_done_callback(partial(_forget_run, services, task_id))
    return TaskWait(services, task_id, task_id, rates=reservation.rates)


def join_steps(services: Services) -> None:
    """Join the scripts of the steps that a task takes together, so that no request waits for it."""
    ledger = services.ledger.scripts
    for steps in (
        (ledger["open"], SCRIPTS["open"], TARGET_SCRIPTS["take"]),
        (ledger["open"], SCRIPTS["open"], TARGET_SCRIPTS["take"], ledger["mark_sent"]),
        (ledger["post"], ledger["close"], SCRIPTS["finish"]),
        (ledger["close"], SCRIPTS["finish"]),
    ):
        chain_scripts(steps)


async def wait_for(waiting: TaskWait, seconds: float) -> Ending:
    """Wait for the end of the task, and return its ending; StillRunning after `seconds`, or when this process ends.

    Raises CallerDisconnected, and InternalError for a task that has no record.
    """
    record = await waiting.wait_for_end(seconds)
    return StillRunning(waiting.task) if record is None else name_ending(record)


def name_ending(record: TaskRecord) -> Ending:
    """Return the ending of a task by its record. A record without an end returns StillRunning."""
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
    """Cancel a task without a call, or with void calls only; leave any other as it is. Returns the task's record.

    Raises StoreUnavailable.
    """
    hold = await services.ledger.show(record.id)
    if record.end is not None or hold is None or not hold.is_open:
        return record
    error = errors.TaskCanceled("The task was canceled before anything was sent for it.")
    ended = record.with_end(End(status="canceled", completed=int(time.time()), error=error.to_facts()))
    closing = services.ledger.make_close(record.id, hold.fence, "cancel", wanted=LedgerAnswer.CLOSED)
    _, *stands = await services.ledger.run_chain(closing, services.task_store.make_end(ended))
    return stands[0] if stands else record


async def drain(services: Services) -> tuple[int, int]:
    """Wait for the running work, its ledger steps and its records; leave the tasks that other processes can finish.

    The work has `stop_s` seconds from the start of the shutdown, or `drain_s` while a call needs this process. Then it
    is canceled. The ledger steps and records have `drain_s`. Returns the number of tasks that were canceled at the end
    of their time, and the number of ledger steps that still wait.
    """
    shutdown, settings = services.shutdown, services.settings
    while services.running and shutdown.seconds < (settings.drain_s if shutdown.is_holding else settings.stop_s):
        for task_id, running in services.running.items():
            if shutdown.may_leave(task_id):
                running.cancel()
        await asyncio.wait(services.running.values(), timeout=PAUSE_S, return_when=asyncio.FIRST_COMPLETED)
    cut_off = list(services.running.values())
    for each in cut_off:
        each.cancel()
    await asyncio.gather(*cut_off, return_exceptions=True)
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, settings.drain_s - shutdown.seconds)):
            await services.pending_posts.wait()
            await services.recorder.outbox.wait()
    return len(cut_off), services.pending_posts.outbox.waiting


def _make_hook(caller: Caller, spec: TaskSpec) -> Hook | None:
    if spec.webhook is None:
        return None
    return Hook(id=new_id("msg"), key=caller.key.id, url=spec.webhook, base_url=spec.base_url)


async def _add_hook(waiting: TaskWait, hook: Hook | None) -> None:
    """Add an address for the end of a joined task. Raises PublicError, after it ended the request's wait."""
    if hook is None:
        return
    try:
        if await waiting.services.task_store.subscribe(waiting.task, hook):
            return
        refusal: PublicError = errors.InvalidValue(
            f"X-Gateway-Webhook: this task has {MOST_HOOKS} webhook addresses already; name one of them, or none."
        )
    except StoreUnavailable as error:
        refusal = ledger_unavailable(error)
    await waiting.leave()
    raise refusal


def _forget_run(services: Services, task_id: str, _running: asyncio.Future[None]) -> None:
    del services.running[task_id]
    # A task that was canceled has posted no end.
    services.task_events.wake(task_id)


async def _run(task: Task, work: Work) -> None:
    """Run the work from start to end, whatever becomes of the request that opened the task."""
    try:
        record = await _end(task, await _work(task, work))
    finally:
        await task.spool.close()
    task.services.task_events.post(record)


async def _work(task: Task, work: Work) -> Outcome:
    """Run the work; a fault of it becomes an outcome, so that the wait ends with an error and does not hang."""
    try:
        return await work(task)
    except Exception:  # noqa: BLE001 (any fault)
        _log.exception("a task broke off", task=task.id)
        fault = errors.InternalError("The gateway failed; the request id finds it in its log.", should_retry=False)
        # Images and charges from before the fault stand.
        return Outcome(error=fault, spent=task.reservation.spent, is_guess=task.reservation.is_doubtful)


async def _end(task: Task, outcome: Outcome) -> TaskRecord:
    """Close the reservation and store the end, in one step; return the task as it stands.

    Waits in this process end even while Redis is unavailable.
    """
    for image in outcome.images:
        task.record = task.record.with_image(image)
    ended = task.record.with_end(outcome.to_end(int(time.time())))
    stands: list[TaskRecord] = []
    command = task.services.task_store.make_end(ended, stands.append)
    is_policy = isinstance(outcome.error, errors.ModerationBlocked)
    # Nothing is awaited between the last call and this step, which no cancellation can keep from Redis.
    await task.reservation.close("policy" if is_policy else "", command)
    if task.writing:
        await asyncio.wait(set(task.writing))
    # A cancellation may have ended the task first, or an adopter while this process was suspended. Where the ends are
    # the same, this process's own has more: revised prompts are not stored.
    is_own = not stands or (stands[0].end == ended.end and _artifacts_of(stands[0]) == _artifacts_of(ended))
    return ended if is_own else stands[0]


def _artifacts_of(record: TaskRecord) -> list[str]:
    return [each.artifact for each in record.images]
