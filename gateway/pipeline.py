"""The walk of a request on one page: plan, open, wait, shape; and the work that outlives it: deliver, settle.

Called by `api/images.py` with a caller and a checked request. Every step is somebody else's; only the order is here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gateway import errors, narrowing, quota, quoting, recording, routing, shaping, tasks
from gateway.auth import Caller
from gateway.dispatch import Delivery, Outcome
from gateway.document import Strategy
from gateway.job import ImageJob
from gateway.recording import Note
from gateway.routing import Circumstances, Plan
from gateway.rules import Asker
from gateway.services import Services
from gateway.shaping import AnswerForm, Shaped
from gateway.spool import Spool
from gateway.tasks import Task, Work
from gateway.waiting import Patience


@dataclass(frozen=True, slots=True)
class Asked:
    """One checked request: the job, the model's public name, and the form its answer should have.

    `upstream` and `strategy` are those that the caller chose, if it did; `note` becomes the request's record;
    `has_left` tells that nobody waits for the answer any more.
    """

    job: ImageJob
    model: str
    form: AnswerForm
    spool: Spool
    note: Note
    has_left: Callable[[], Awaitable[bool]]
    upstream: str | None = None
    strategy: Strategy | None = None


async def serve(services: Services, caller: Caller, asked: Asked) -> Shaped:
    """From a checked request to its answer. Raises PublicError. Owns `asked.spool` from the moment the task is open."""
    plan = await make_plan(services, caller, asked)
    work_to_do = recorded(asked.note, _patience(caller, asked))
    task = await tasks.open_task(services, caller, asked.job, plan, asked.spool, work_to_do)
    if asked.form.stream:
        return await shaping.shape_stream(services, task, asked.form)
    ending = await tasks.wait_for(task, asked.form.answer_within)
    return shaping.shape(services, task, ending, asked.form)


async def quote(services: Services, caller: Caller, asked: Asked) -> dict[str, Any]:
    """What `serve` would do with this request, and whether the caller's limits have room for it. Raises PublicError."""
    plan, refusal = await quota.look_ahead(services, caller, asked.job, await make_plan(services, caller, asked))
    return quoting.describe_plan(plan, asked.job, asked.model, refusal)


async def make_plan(services: Services, caller: Caller, asked: Asked) -> Plan:
    """Who may serve this request of this caller, in which order. Raises PublicError."""
    found = services.catalogue.find_model(asked.model)
    if found is None:
        names = ", ".join(services.catalogue.model_names())
        raise errors.ModelNotFound(f"The model `{asked.model}` does not exist; there are {names}.", param="model")
    caller.check_model(asked.model, found[1])
    permits = caller.check_job(asked.job, asked.upstream)
    await services.health.look()
    key = caller.key
    around = Circumstances(
        asker=Asker(key.id, key.name, key.team or ""),
        strategy=asked.strategy,
        medians=services.health.medians(),
        draw=random.random(),  # noqa: S311 (it shares load out, and keeps no secret)
    )
    plan = routing.plan(asked.job, asked.model, found[0], services.catalogue, permits, around)
    return narrowing.narrow(plan, services.health.down(), services.health.load)


async def work(task: Task, patience: Patience | None = None) -> Outcome:
    """What a task does, whoever still waits for it. `patience` is of the one who waits now."""
    delivery = Delivery(task.services, task.job, task.spool, task.reservation, task.report, patience or Patience())
    return await delivery.deliver(task.plan)


def recorded(note: Note, patience: Patience | None = None) -> Work:
    """The work that leaves its request's record, however it ends."""

    async def work_and_record(task: Task) -> Outcome:
        try:
            outcome = await work(task, patience)
        except Exception:
            note.answer = note.answer or errors.InternalError("The gateway failed.")
            recording.record_work(note, task.reservation, task.plan, Outcome())
            raise
        recording.record_work(note, task.reservation, task.plan, outcome)
        return outcome

    return work_and_record


def _patience(caller: Caller, asked: Asked) -> Patience:
    """How long the request may wait for a place, so that its refusal comes before its caller's time is up."""
    seconds = asked.form.answer_within
    return Patience(caller.key.id, asyncio.get_running_loop().time() + seconds - min(1.0, seconds / 10), asked.has_left)
