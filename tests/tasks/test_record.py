"""What a request's record says, whatever became of it, and whatever its caller wrote into it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import errors
from gateway.callers.key_record import KeyRecord
from gateway.history.record import Record
from gateway.jobs.job import ImageJob, Size
from gateway.tasks.record import RequestNote
from tests.support.ledgers import make_id

KEY = KeyRecord.model_validate({"id": make_id("key", 1), "name": "ana", "created": "2026-11-04T12:00:00Z"})


def record_of(job: ImageJob | None = None, **more: Any) -> Record:
    return RequestNote("req_1", KEY, "generation", job=job, **more).to_record(make_id("rec", 1))


def test_unread_request_says_little() -> None:
    """A request that could not be read has a record without a job, that says why."""
    record = record_of(answer=errors.InvalidValue("The body is not valid JSON."))
    assert (record.status, record.error, record.n_asked, record.model) == (400, "invalid_value", 0, "")
    assert not record.is_model_known


def test_auto_is_nothing_asked() -> None:
    """Size and quality are told only where the caller set them."""
    record = record_of(ImageJob("generation", "a cat"))
    assert (record.size_asked, record.quality_asked, record.n_asked) == (None, None, 1)
    record = record_of(ImageJob("generation", "a cat", size=Size(1024, 640), quality="high", n=3))
    assert (record.size_asked, record.quality_asked, record.n_asked) == ("1024x640", "high", 3)


@pytest.mark.parametrize("keeps", [False, True])
def test_prompt_only_where_wanted(keeps: bool) -> None:
    """A prompt is noted whole, or not at all."""
    record = record_of(ImageJob("generation", "a cat" * 1000), keeps_prompt=keeps)
    assert record.prompt == ("a cat" * 1000 if keeps else None)


def test_any_text_can_be_written() -> None:
    """Half a character, and a text without an end, do not keep a record from being written."""
    job = ImageJob("generation", "a \ud83d cat", end_user="\udc00" + "u" * 5000)
    record = record_of(job, keeps_prompt=True, model="m" * 5000)
    assert record.prompt == "a ? cat"
    assert (len(record.end_user or ""), len(record.model)) == (200, 200)
    assert Record.model_validate_json(record.to_json()) == record
