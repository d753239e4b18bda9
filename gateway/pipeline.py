"""The steps of a request on one page: `serve` answers the caller; `work` makes the images, and outlives the request.

serve:  let a retry wait before it opens   tasks/retry.py
        plan, without what is unavailable  routing/plan.py, health/health.py
        hold the price and store the task,
          or join one; start its work      money/reservation.py (store/scripts/ledger/open.lua), tasks/task.py
        take the first call's permit, and
          mark that call, in the same step delivery/call.py
        wait, and answer                   tasks/wait.py, tasks/answer.py
work:   for each target, for each call:    delivery/dispatch.py, delivery/call.py
          take a permit if it has none     health/concurrency_queue.py
          mark the call as sent if it is
            not marked                     money/reservation.py (store/scripts/ledger/mark_sent.lua)
          submit, poll, download           delivery/bridge.py, upstreams/
          store the images and the receipt delivery/intake.py, state/call_store.py
          charge the call                  money/reservation.py (store/scripts/ledger/post.lua)
        conclude, record, end              delivery/outcome.py, tasks/record.py, tasks/task.py
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from gateway import errors
from gateway.callers.auth import Caller
from gateway.callers.key_record import KeyRecord
from gateway.catalogue.catalogue import explain_unknown_model
from gateway.catalogue.document import Strategy
from gateway.delivery.dispatch import Delivery
from gateway.delivery.outcome import Outcome
from gateway.health.concurrency_queue import WaitLimit
from gateway.health.condition import refuse_paused
from gateway.jobs.job import ImageJob, Repeat
from gateway.money import reservation
from gateway.pictures.spool import Spool
from gateway.routing import description
from gateway.routing import plan as routing
from gateway.routing.plan import Circumstances, Plan, narrow
from gateway.services import Services
from gateway.tasks import record, retry
from gateway.tasks.answer import AnswerForm, Shaped, shape, shape_accepted, shape_stream
from gateway.tasks.record import RequestNote
from gateway.tasks.task import Ending, Refused, StillRunning, Task, TaskSpec, open_task, wait_for
from gateway.tasks.wait import CallerConnection, CallerDisconnected, TaskWait


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """One checked request: the job, the model's public name, and the form of its answer.

    `upstream` and `strategy` are the caller's choices, None without one; `note` becomes the request's record. With
    `may_promise` a caller whose time is up gets the task (202) in place of an error. `webhook` is the address for a
    webhook that the request names, or None.
    """

    job: ImageJob
    model: str
    form: AnswerForm
    spool: Spool
    note: RequestNote
    connection: CallerConnection
    upstream: str | None = None
    strategy: Strategy | None = None
    repeat: Repeat = field(default_factory=Repeat)
    may_promise: bool = False
    webhook: str | None = None

    def find_webhook(self, key: KeyRecord) -> str | None:
        """Return the webhook address for the task's end: the request's own, else the key's if the answer may be a task.

        Returns None if there is no such address.
        """
        is_promise = self.repeat.form == "task" or self.may_promise
        return self.webhook or (key.webhook if is_promise else None)


async def serve(services: Services, caller: Caller, asked: CheckedRequest) -> Shaped:
    """Join a task or open one for a checked request, and return its answer. Raises PublicError and CallerDisconnected.

    If the request opens a task, the task's work closes `asked.spool` at its end.
    """
    form, connection = asked.form, asked.connection
    until = asyncio.get_running_loop().time() + form.answer_within
    if asked.repeat.retry:
        await retry.wait_to_open(services, caller, asked.repeat, connection.gone, form.answer_within)
    while True:
        # When thousands arrive together, the first ones start before the last ones are planned.
        async with services.openings:
            waiting = await _open(services, caller, asked)
        waiting.gone = connection.gone
        connection.waiting = waiting
        if asked.repeat.form == "task":
            return await shape_accepted(waiting, form)
        if form.stream:
            return await shape_stream(waiting, form)
        ending = await wait_for(waiting, until - asyncio.get_running_loop().time())
        # A joined task may end before anything was sent: then this request opens one itself.
        if not (waiting.is_joined and isinstance(ending, Refused) and ending.is_unstarted):
            return await _answer(waiting, ending, asked)


async def _open(services: Services, caller: Caller, asked: CheckedRequest) -> TaskWait:
    """Plan the request, and join a task or open one. Raises PublicError and CallerDisconnected."""
    plan = await make_plan(services, caller, asked)
    if asked.connection.gone.done() and asked.repeat.form == "answer":
        # Its retry may have opened the task by now.
        raise CallerDisconnected
    spec = TaskSpec(
        asked.job,
        plan,
        asked.repeat,
        asked.model,
        asked.form.response_format,
        webhook=asked.find_webhook(caller.key),
        base_url=asked.form.base_url,
    )
    limit = _make_wait_limit(services, caller, asked)
    recorded = record.record_work(asked.note, lambda task: work(task, limit))
    return await open_task(services, caller, spec, asked.spool, recorded, begins_call=True)


async def _answer(waiting: TaskWait, ending: Ending, asked: CheckedRequest) -> Shaped:
    """Shape the answer to a caller that waited. Raises PublicError and CallerDisconnected.

    If the time is up, the answer is the task (202) with `may_promise`; otherwise the wait ends in the ledger.
    """
    if isinstance(ending, StillRunning):
        if asked.may_promise:
            return await shape_accepted(waiting, asked.form)
        # Before the answer is sent: the caller's retry, which may come at once, must find the task free.
        await waiting.leave()
    return shape(waiting, ending, asked.form)


async def quote(services: Services, caller: Caller, asked: CheckedRequest) -> dict[str, Any]:
    """Return the request's plan, and its refusal by a pause or by the caller's limits, if there is one, as JSON values.

    Sends nothing to an upstream, and holds nothing in the ledger. Raises PublicError.
    """
    plan, refusal = await reservation.look_ahead(
        services.books, caller.identity, asked.job, await make_plan(services, caller, asked)
    )
    return description.describe_plan(plan, asked.job, asked.model, plan.refusal or refusal)


async def make_plan(services: Services, caller: Caller, asked: CheckedRequest) -> Plan:
    """Check the request against the caller's key, and plan its targets in the order that the strategy sets.

    The last known conditions of the targets give the strategy the medians and the load, and remove blocked targets. The
    plan has a refusal if they remove every target, and while everything or the caller's team is paused. Raises
    PublicError.
    """
    found = services.catalogue.find_model(asked.model)
    if found is None:
        names = services.catalogue.model_names()
        raise errors.ModelNotFound(explain_unknown_model(asked.model, names), param="model")
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
    refusal = refuse_paused(services.health.pauses, caller.key.team)
    return narrow(plan, services.health.find_blocks(), services.health.load, refusal)


async def work(task: Task, wait_limit: WaitLimit | None = None) -> Outcome:
    """Make the images of a task as far as its upstreams do, and return its outcome.

    `wait_limit` bounds the wait for a permit at an upstream; with None the wait has no bound.
    """
    limit = wait_limit or WaitLimit()
    delivery = Delivery(task.services, task.job, task.spool, task.reservation, task.add_image, limit, task.first)
    return await delivery.deliver(task.plan)


def _make_wait_limit(services: Services, caller: Caller, asked: CheckedRequest) -> WaitLimit:
    """Make the limit of the wait for a permit. The wait ends early enough for its refusal to reach the caller.

    It also ends when the caller has disconnected, unless the caller asked for a task or another request waits for
    the task in this process.
    """
    seconds, connection = asked.form.answer_within, asked.connection

    async def has_disconnected() -> bool:
        # A caller that wants a task asks for it by its id; and a retry may wait in the first request's place.
        waiting = connection.waiting
        is_promised = asked.repeat.form == "task" or waiting is None
        return not is_promised and connection.gone.done() and not services.task_events.is_watched(waiting.task)

    return WaitLimit(
        caller.key.id, asyncio.get_running_loop().time() + seconds - min(1.0, seconds / 10), has_disconnected
    )
