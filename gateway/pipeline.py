"""The walk of a request on one page: plan, open, wait, shape; and the work that outlives it: deliver, settle.

Called by `api/images.py` with a caller and a checked request. Every step is somebody else's; only the order is here.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from gateway import errors
from gateway.callers.auth import Caller
from gateway.callers.key_record import KeyRecord
from gateway.catalogue.document import Strategy
from gateway.delivery.dispatch import Delivery
from gateway.delivery.outcome import Outcome
from gateway.health.concurrency_queue import WaitLimit
from gateway.jobs.fingerprint import Repeat
from gateway.jobs.job import ImageJob
from gateway.money import reservation
from gateway.pictures.spool import Spool
from gateway.routing import availability, description
from gateway.routing import plan as routing
from gateway.routing.plan import Circumstances, Plan
from gateway.services import Services
from gateway.tasks import record, retry
from gateway.tasks.answer import AnswerForm, Shaped, shape, shape_promise, shape_stream
from gateway.tasks.record import RequestNote
from gateway.tasks.task import Ending, Refused, StillRunning, Task, TaskSpec, Work, open_task, wait_for
from gateway.tasks.wait import CallerConnection, CallerDisconnected, TaskWait


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """One checked request: the job, the model's public name, and the form its answer should have.

    `upstream` and `strategy` are those that the caller chose, if it did; `note` becomes the request's record.
    `may_promise`: when the answer takes too long it is the task itself. `webhook` is the address that it named.
    """

    job: ImageJob
    model: str
    form: AnswerForm
    spool: Spool
    note: RequestNote
    presence: CallerConnection
    upstream: str | None = None
    strategy: Strategy | None = None
    repeat: Repeat = field(default_factory=Repeat)
    may_promise: bool = False
    webhook: str | None = None

    def whom_to_tell(self, key: KeyRecord) -> str | None:
        """The address that is told of the task's end: its own, or the key's where the answer may be a task."""
        is_promise = self.repeat.form == "task" or self.may_promise
        return self.webhook or (key.webhook if is_promise else None)


async def serve(services: Services, caller: Caller, asked: CheckedRequest) -> Shaped:
    """From a checked request to its answer. Raises PublicError, CallerLeft.

    Owns `asked.spool` from the moment a task is open.
    """
    until = asyncio.get_running_loop().time() + asked.form.answer_within
    await retry.wait_out(services, caller, asked.repeat, asked.presence.gone, asked.form.answer_within)
    while True:
        # Of thousands that arrive at one instant the first are under way before the last are looked at.
        async with services.openings:
            waiting = await _open(services, caller, asked)
        waiting.gone = asked.presence.gone
        asked.presence.waiting = waiting
        if asked.repeat.form == "task":
            return await shape_promise(waiting, asked.form)
        if asked.form.stream:
            return await shape_stream(waiting, asked.form)
        ending = await wait_for(waiting, until - asyncio.get_running_loop().time())
        if not _is_unstarted(waiting, ending):
            return await answer(waiting, ending, asked)


async def _open(services: Services, caller: Caller, asked: CheckedRequest) -> TaskWait:
    """Plan, and join a task or begin one. Raises PublicError; CallerLeft, since its retry may have begun it by now."""
    plan = await make_plan(services, caller, asked)
    if asked.presence.gone.done() and asked.repeat.form == "answer":
        raise CallerDisconnected
    wish = TaskSpec(
        asked.job,
        plan,
        asked.repeat,
        asked.model,
        asked.form.response_format,
        webhook=asked.whom_to_tell(caller.key),
        base_url=asked.form.base_url,
    )
    work = recorded(asked.note, _patience(services, caller, asked))
    return await open_task(services, caller, wish, asked.spool, work)


async def answer(waiting: TaskWait, ending: Ending, asked: CheckedRequest) -> Shaped:
    """What a caller that waited gets. Raises PublicError."""
    if isinstance(ending, StillRunning):
        if asked.may_promise:
            return await shape_promise(waiting, asked.form)
        # Before the caller hears of it: its retry, which may come at once, must find the task free.
        await waiting.leave()
    return shape(waiting, ending, asked.form)


async def quote(services: Services, caller: Caller, asked: CheckedRequest) -> dict[str, Any]:
    """What `serve` would do with this request, and whether the caller's limits have room for it. Raises PublicError."""
    plan, refusal = await reservation.look_ahead(
        services.books, caller.identity, asked.job, await make_plan(services, caller, asked)
    )
    return description.describe_plan(plan, asked.job, asked.model, refusal)


async def make_plan(services: Services, caller: Caller, asked: CheckedRequest) -> Plan:
    """Who may serve this request of this caller, in which order; nobody for the moment, where the plan has a refusal.

    Raises PublicError.
    """
    found = services.catalogue.find_model(asked.model)
    if found is None:
        names = ", ".join(services.catalogue.model_names())
        raise errors.ModelNotFound(f"The model `{asked.model}` does not exist; there are {names}.", param="model")
    caller.check_model(asked.model, found[1])
    rights = caller.check_job(asked.job, asked.upstream)
    await services.health.look()
    around = Circumstances(
        identity=caller.identity,
        strategy=asked.strategy,
        medians=services.health.medians(),
        draw=random.random(),  # noqa: S311 (it shares load out, and keeps no secret)
    )
    plan = routing.plan(asked.job, asked.model, found[0], services.catalogue, rights, around)
    return availability.narrow(plan, services.health.down(), services.health.load)


async def work(task: Task, patience: WaitLimit | None = None) -> Outcome:
    """What a task does, whoever still waits for it. `patience` is of the one who waits now."""
    delivery = Delivery(task.services, task.job, task.spool, task.reservation, task.report, patience or WaitLimit())
    return await delivery.deliver(task.plan)


def recorded(note: RequestNote, patience: WaitLimit | None = None) -> Work:
    """The work that leaves its request's record, however it ends."""

    async def work_and_record(task: Task) -> Outcome:
        try:
            outcome = await work(task, patience)
        except Exception:
            note.answer = note.answer or errors.InternalError("The gateway failed.")
            record.record_work(task.services, note, task.reservation, task.plan, Outcome())
            raise
        record.record_work(task.services, note, task.reservation, task.plan, outcome)
        return outcome

    return work_and_record


def _is_unstarted(waiting: TaskWait, ending: Ending) -> bool:
    """Whether the task that was joined ended without a start, so that this request is to begin one itself."""
    if not waiting.is_joined or not isinstance(ending, Refused):
        return False
    return ending.record.end is not None and ending.record.end.is_unstarted


def _patience(services: Services, caller: Caller, asked: CheckedRequest) -> WaitLimit:
    """How long the request may wait for a place, so that its refusal comes before its caller's time is up."""
    seconds, presence = asked.form.answer_within, asked.presence

    async def has_left() -> bool:
        # Who asked for a task asks again by its id, and a retry may wait in its first request's place.
        waiting = presence.waiting
        is_promised = asked.repeat.form == "task" or waiting is None
        return not is_promised and presence.gone.done() and not services.task_events.is_watched(waiting.task)

    return WaitLimit(caller.key.id, asyncio.get_running_loop().time() + seconds - min(1.0, seconds / 10), has_left)
