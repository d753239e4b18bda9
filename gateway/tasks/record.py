"""A request's record, collected while the request runs, and queued once: after its work, or at once if it has none.

It never delays the request, and holds a prompt only where the catalogue allows it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from gateway import errors
from gateway.callers.key_record import KeyRecord
from gateway.delivery.outcome import Outcome
from gateway.errors import PublicError
from gateway.history.record import PREFIX, PassedBy, Record, record_id
from gateway.ids import new_id
from gateway.jobs.job import ImageJob, Operation
from gateway.services import Services
from gateway.tasks.task import Task, Work

_LONGEST = 200
"""Most characters of a model's or an end user's name that a caller chose."""


@dataclass(slots=True)
class RequestNote:
    """The facts of one request so far. `answer` is the error that its caller got, if any; `began` is monotonic seconds.

    `record` is the record of its work, once that has ended.
    """

    request: str
    key: KeyRecord
    operation: Operation
    keeps_prompt: bool = False
    began: float = field(default_factory=time.monotonic)
    model: str = ""
    is_model_known: bool = False
    job: ImageJob | None = None
    answer: PublicError | None = None
    record: Record | None = None

    def to_record(self, identifier: str, **more: Any) -> Record:
        """Return the record of the request without its work. `more` has other fields of the record."""
        job = self.job
        facts: dict[str, Any] = {
            "id": identifier,
            "request": self.request,
            "key": self.key.id,
            "key_name": self.key.name,
            "team": self.key.team,
            "end_user": _clip(job.end_user) if job and job.end_user else None,
            "operation": self.operation,
            "model": _clip(self.model),
            "is_model_known": self.is_model_known,
            "size_asked": str(job.size_asked) if job and job.size_asked else None,
            "quality_asked": job.quality if job else None,
            "n_asked": job.n if job else 0,
            "status": self.answer.status if self.answer else 200,
            "error": self.answer.code if self.answer else None,
            "seconds": round(time.monotonic() - self.began, 3),
            "prompt": _make_storable(job.prompt) if job and self.keeps_prompt else None,
        }
        return Record(**facts | more)


def open_note(services: Services, request: str, key: KeyRecord, operation: Operation) -> RequestNote:
    """Begin the note of a request whose caller is known."""
    return RequestNote(request, key, operation, services.catalogue.document.accounting.keep_prompts)


def record_refusal(services: Services, note: RequestNote) -> None:
    """Queue the record of a request that began no work, by itself or counted with others of its kind."""
    services.refusals.note(note.to_record(new_id(PREFIX)))


def record_joined(services: Services, note: RequestNote, task: str) -> None:
    """Queue the record of a request that joined another one's task: it cost nothing."""
    services.recorder.note(note.to_record(new_id(PREFIX), task=task, is_joined=True))


def record_work(note: RequestNote, work: Work) -> Work:
    """Return the same work, which also queues its request's record at its end or error. Canceled work queues none."""

    def write(task: Task, outcome: Outcome) -> None:
        note.record = _describe_work(note, task, outcome)
        task.services.recorder.note(note.record)

    async def work_and_record(task: Task) -> Outcome:
        try:
            outcome = await work(task)
        except Exception:
            note.answer = note.answer or errors.InternalError("The gateway failed.")
            write(task, Outcome())
            raise
        write(task, outcome)
        return outcome

    return work_and_record


def _describe_work(note: RequestNote, task: Task, outcome: Outcome) -> Record:
    """Return the whole record of a request whose work has ended."""
    reservation, plan = task.reservation, task.plan
    price = reservation.price
    passed_by = tuple([PassedBy(target=one.label, reason=one.unfit.reason) for one in plan.rejections])
    return note.to_record(
        record_id(task.id),
        task=task.id,
        price_held=None if price is None else price * reservation.images,
        strategy=plan.strategy,
        rule=plan.rule,
        # A caller that was answered before the end, by 504, got that error; any other gets the outcome.
        **outcome.to_facts(passed_by, note.answer),
    )


def _clip(text: str) -> str:
    return _make_storable(text)[:_LONGEST]


def _make_storable(text: str) -> str:
    # Half a surrogate pair, as broken JSON may hold it, cannot be stored.
    return text.encode("utf-8", "replace").decode()
