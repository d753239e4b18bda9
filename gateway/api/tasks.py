"""The routes of a caller's tasks: read one, list them, cancel one for which no call was sent.

Every worker answers from the task's record, also for tasks of other workers. A key sees only its own tasks.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from gateway import errors
from gateway.api.request import CallerDep, ServicesDep
from gateway.callers.auth import Caller
from gateway.money.ledger_results import LedgerAnswer
from gateway.money.reservation import ledger_unavailable
from gateway.services import Services
from gateway.state.task_store import Status, TaskRecord
from gateway.store.client import StoreUnavailable
from gateway.tasks import answer, task
from gateway.tasks.answer import AnswerForm, Part

MOST_LISTED = 100
RETRY_AFTER_S = 2

router = APIRouter(tags=["tasks"])


@router.get("/tasks/{task_id}", summary="One task of this key")
async def read_task(task_id: str, request: Request, services: ServicesDep, caller: CallerDep) -> StreamingResponse:
    """Return the task, with its images if it has succeeded. Raises TaskNotFound and QuotaStoreUnavailable."""
    return await _answer(request, services, await _find(services, caller, task_id))


@router.delete("/tasks/{task_id}", summary="Cancel a task for which nothing was sent yet")
async def cancel_task(task_id: str, request: Request, services: ServicesDep, caller: CallerDep) -> StreamingResponse:
    """Cancel the task, and return it: `canceled` at no cost, or unchanged if a call was sent for it or it has ended.

    Raises TaskNotFound and QuotaStoreUnavailable.
    """
    record = await _find(services, caller, task_id)
    try:
        record = await task.cancel(services, record)
    except StoreUnavailable as error:
        raise ledger_unavailable(error) from error
    return await _answer(request, services, record)


@router.get("/tasks", summary="This key's tasks")
async def list_tasks(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 20,
) -> StreamingResponse:
    """Return a page of the key's tasks, newest first, with images as links; `after` is the last id of the page before.

    Raises QuotaStoreUnavailable.
    """
    try:
        records, has_more = await services.task_store.list(caller.key.id, after, limit)
    except StoreUnavailable as error:
        raise ledger_unavailable(error) from error
    form = replace(_form(request, services), response_format="url")
    parts: list[Part] = [b'{"object":"list","data":[']
    for index, record in enumerate(records):
        parts.append(b"," if index else b"")
        parts += answer.shape_task(services, record, form, await _status(services, record))
    parts.append(b'],"has_more":' + (b"true" if has_more else b"false") + b"}")
    return _send(services, parts, {})


async def _find(services: Services, caller: Caller, task_id: str) -> TaskRecord:
    try:
        record = await services.task_events.look(task_id)
    except StoreUnavailable as error:
        raise ledger_unavailable(error) from error
    if record is None or record.promise.key != caller.key.id:
        raise errors.TaskNotFound("This key has no task of this id. A task is kept for a day after its end.")
    return record


async def _answer(request: Request, services: Services, record: TaskRecord) -> StreamingResponse:
    form = replace(_form(request, services), response_format=record.promise.response_format)
    headers = {} if record.end else {"retry-after": str(RETRY_AFTER_S)}
    status = await _status(services, record)
    return _send(services, answer.shape_task(services, record, form, status), headers)


async def _status(services: Services, record: TaskRecord) -> Status:
    """The task's status. A task that has not ended is `pending` while all its calls in the ledger, if any, are void.

    Else it is `processing`, also if the ledger is unavailable or does not know the task.
    """
    if record.end is None:
        try:
            hold = await services.ledger.show(record.id)
        except StoreUnavailable:
            return "processing"
        is_sent = hold is None or any(call.state is not LedgerAnswer.VOID for call in hold.calls)
        return "processing" if is_sent else "pending"
    return record.status_at(time.time())


def _form(request: Request, services: Services) -> AnswerForm:
    base_url = services.settings.public_url or str(request.base_url).rstrip("/")
    return AnswerForm("b64_json", stream=False, base_url=base_url, answer_within=0, keep_alive=0)


def _send(services: Services, parts: list[Part], headers: dict[str, str]) -> StreamingResponse:
    shaped = answer.shape_parts(services, parts, headers)
    sent = dict(shaped.headers) | {"content-length": str(shaped.length)}
    return StreamingResponse(shaped.body, media_type=shaped.media_type, headers=sent)
