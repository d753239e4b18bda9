"""Records of requests, for an operator: one, a page, or all that fit a filter."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import Field

from gateway import errors
from gateway.history.export import record_json
from gateway.history.history import RecordFilter
from gateway.history.record import Record
from gateway.operations.answers import AnswerModel, Listing
from gateway.operations.stores import Stores

SINCE = "7d"
"""The beginning of a list of requests if the operator gives none."""


class RecordedCall(AnswerModel):
    """One paid call of a request."""

    id: str
    upstream: str
    target: str
    outcome: str = Field(description="`delivered`, or the verdict on its failure.")
    seconds: float
    n: int
    images: int
    usd: str | None
    state: str
    usd_disputed: str = Field(description="The part of the upstream's bill that is not believed, and not charged.")
    promised: str | None = Field(None, description="The promised size, where the upstream made another.")
    made: list[str] = Field(default_factory=list, description="The sizes of its images, where one is not as promised.")


class PassedByTarget(AnswerModel):
    """A target of the model that the plan rejected, and the reason."""

    target: str
    reason: str = Field(description="The ability it lacks, or the state that kept calls away from it at that moment.")


class RequestRecord(AnswerModel):
    """The record of one request, or of equal refusals in quick succession, without pictures."""

    id: str
    time: str
    request: str
    task: str | None
    is_joined: bool = Field(description="True when another request began the task; that record has images and cost.")
    key: str
    key_name: str
    team: str | None
    end_user: str | None
    operation: str
    model: str
    upstreams: list[str]
    calls: list[RecordedCall]
    size_asked: str | None
    sizes_made: list[str]
    quality_asked: str | None
    quality_sent: str | None
    n_asked: int
    n_delivered: int
    usd_held: str | None
    usd_settled: str | None
    is_presumed: bool
    status: int
    error: str | None
    repeats: int = Field(description="The number of requests in this record: refusals in quick succession share one.")
    seconds: float
    prompt: str | None = Field(description="Only where the catalogue says `keep_prompts`.")
    strategy: str | None = Field(description="The strategy that ordered the targets; null where there was no plan.")
    rule: str | None = Field(description="The catalogue's rule that held.")
    passed_by: list[PassedByTarget] = Field(description="The model's targets that were not asked, and why.")
    usd_disputed: str = Field(description="The part of the upstreams' bills that is not believed, and not charged.")

    @classmethod
    def of(cls, record: Record) -> RequestRecord:
        return cls.model_validate(record_json(record))


async def list_requests(
    stores: Stores, wanted: RecordFilter, most: int, after: str | None = None
) -> Listing[RequestRecord]:
    """Return a page of records, newest first, after the record with the id `after`.

    A page may be shorter than `most` and still have a next page. Raises InvalidValue for an `after` that is no id.
    """
    try:
        found = await stores.history.find(wanted, most, after)
    except ValueError as error:
        raise errors.InvalidValue("`after` must be the `next` of a page.", param="after") from error
    rows = [RequestRecord.of(record) for record in found.records]
    return Listing[RequestRecord](data=rows, has_more=found.cursor is not None, next=found.cursor)


async def stream_records(stores: Stores, wanted: RecordFilter, most: int | None = None) -> AsyncIterator[Record]:
    """Yield up to `most` records that pass the filter, newest first; None is no bound. Reads page by page."""
    count = 0
    async for record in stores.history.stream(wanted):
        yield record
        count += 1
        if count == most:
            return


async def find_record(stores: Stores, identifier: str) -> Record:
    """Return the record with this id, or the record of the task with this id. Raises RecordNotFound."""
    record = await stores.history.show(identifier)
    if record is None:
        raise errors.RecordNotFound(
            "There is no record of this id, or its time is over (`accounting.history_days`).", param="record_id"
        )
    return record
