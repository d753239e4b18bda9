"""The history: one record for each request, with filters to find it; each record changes its day's sums with it.

This module never changes the ledger.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import time_ns
from typing import Any, cast

import orjson

from gateway.catalogue.document import Accounting
from gateway.history.record import PREFIX, Credit, Record, Sums, UsageLine, instant_of, record_id, subtract
from gateway.ids import first_id
from gateway.store import names
from gateway.store.client import CommandQueue, StoreClient, StoreUnavailable
from gateway.store.lua import join_scripts, read_sources
from gateway.store.outbox import PAUSE_S, Outbox, OutboxBound
from gateway.store.windows import MICROSECONDS, Calendar

DAY = 86_400 * MICROSECONDS

MEASURES = ("requests", "images", "errors", "usd", "disputed")

_NOTE = join_scripts(read_sources("history"), "history.history")["note"]
_BATCH = 200
_LOOKED_AT = 20_000
_CHANGES = 10


MOST_WAITING = 1000
"""Records that wait for Redis in one process."""

_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """The records from `since` to just before `until`, in µs; None allows every value."""

    since: int
    until: int
    key: str | None = None
    team: str | None = None
    model: str | None = None
    upstream: str | None = None
    status: int | None = None
    task: str | None = None
    request: str | None = None
    is_disputed: bool | None = None

    def fits(self, record: Record) -> bool:
        """True when the record passes all conditions but the time. The team `""` stands for keys without a team."""
        asked = (
            (self.key, record.key),
            (self.team, record.team or ""),
            (self.model, record.model),
            (self.status, record.status),
            (self.task, record.task),
            (self.request, record.request),
            (self.is_disputed, record.price_disputed > 0),
        )
        return all(want is None or want == found for want, found in asked) and (
            self.upstream is None or self.upstream in record.upstreams
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, newest first. `cursor` leads to older records; it is None if the search is complete."""

    records: tuple[Record, ...]
    cursor: str | None


class HistoryBusy(StoreUnavailable):
    """Other processes changed a record before each try to change it."""


class History:
    """The records and daily sums in one store. Every method raises StoreUnavailable.

    In tests, `now` returns the µs that replace the clock.
    """

    def __init__(
        self,
        command_queue: CommandQueue,
        redis: StoreClient,
        accounting: Accounting,
        *,
        now: Callable[[], int] = lambda: time_ns() // 1000,
    ) -> None:
        self._command_queue = command_queue
        self._redis = redis
        self._accounting = accounting
        self._calendar = Calendar(accounting.time_zone)
        self._now = now

    async def write(self, record: Record) -> None:
        """Write a record, merged with the stored one of its id, and change its day's sums.

        A repetition changes nothing. Raises StoreUnavailable; the record may be written then.
        """
        text = ""
        for _ in range(_CHANGES):
            before = Record.model_validate_json(text) if text else None
            after = before.merged(record) if before else record
            if after == before:
                return
            moves = subtract(after.lines(), before.lines() if before else {})
            found = await self._note("record", record.id, text, after.to_json(), moves)
            if found is None:
                return
            text = found
        raise HistoryBusy(record.id)

    async def credit(self, credit: Credit, at: int) -> None:
        """Add an operator's correction to the sums of the day of `at` (µs), once for each change id."""
        await self._note("credit", credit.id, "", credit.model_dump_json(), credit.lines(), at)

    async def show(self, identifier: str) -> Record | None:
        """Return one record, by its own id or its task's; None if there is none or the id is invalid."""
        try:
            text = await self._read(record_id(identifier))
        except ValueError:
            return None
        return Record.model_validate_json(text) if text else None

    async def find_missing(self, tasks: Sequence[str]) -> list[str]:
        """Return those of `tasks` that have no record. Raises ValueError for an invalid id."""
        if not tasks:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for task in tasks:
                pipe.hexists(names.RECORDS(self._day_of(task)), record_id(task))
            found = await pipe.execute()
        return [task for task, is_there in zip(tasks, found, strict=True) if not is_there]

    async def find(self, wanted: RecordFilter, most: int = 50, cursor: str | None = None) -> Page:
        """Return the newest records that pass the filter, no more than `most`; with a cursor, only older ones.

        A short or empty page may still have a cursor. Raises ValueError for a cursor that is no valid id.
        """
        wanted = self._narrow(wanted)
        found: list[Record] = []
        looked_at = 0
        for day in self._calendar.name_days(wanted.since, min(wanted.until, _after(cursor))):
            latest = min(cursor or _bound(wanted.until), _bound(wanted.until))
            while True:
                records = await self._read_before(day.name, latest, _bound(wanted.since))
                for record in records:
                    found += [record] if wanted.fits(record) else []
                    if len(found) == most:
                        return Page(tuple(found), record.id)
                looked_at += len(records)
                if len(records) < _BATCH:
                    break
                latest = records[-1].id
                if looked_at >= _LOOKED_AT:
                    return Page(tuple(found), latest)
        return Page(tuple(found), None)

    async def stream(self, wanted: RecordFilter) -> AsyncIterator[Record]:
        """Yield every record that passes the filter, newest first; only a page of them is in memory."""
        cursor: str | None = None
        while True:
            page = await self.find(wanted, _BATCH, cursor)
            for record in page.records:
                yield record
            if (cursor := page.cursor) is None:
                return

    def _narrow(self, wanted: RecordFilter) -> RecordFilter:
        """Limit the search to the kept days, and to the time in the id of the task or the request."""
        since = max(wanted.since, self._now() - (self._accounting.history_days + 1) * DAY)
        until = min(wanted.until, self._now() + DAY)
        for identifier, length in ((wanted.task, 1000), (wanted.request, DAY)):
            if identifier and (instant := _instant_or_none(identifier)) is not None:
                since, until = max(since, instant), min(until, instant + length)
        return replace(wanted, since=since, until=until)

    async def _read_before(self, day: str, latest: str, earliest: str) -> list[Record]:
        """Return the next records of a day before the id `latest`, newest first."""
        ids = await _reply(
            self._redis.zrevrangebylex(names.RECORD_ORDER(day), f"({latest}", f"[{earliest}", start=0, num=_BATCH)
        )
        texts = await _reply(self._redis.hmget(names.RECORDS(day), ids)) if ids else []
        return [Record.model_validate_json(text) for text in texts if text]

    async def _read(self, identifier: str) -> str | None:
        return cast(str | None, await _reply(self._redis.hget(names.RECORDS(self._day_of(identifier)), identifier)))

    async def _note(
        self,
        kind: str,
        identifier: str,
        expected: str,
        text: str,
        lines: Mapping[UsageLine, Sums],
        at: int | None = None,
    ) -> str | None:
        """Replace `expected` by `text`, change the sums, and return None. If another text is stored, return it."""
        day = self._calendar.name_windows(instant_of(identifier) if at is None else at).day
        sums_go = day.end + self._accounting.usage_days * DAY
        texts_go = sums_go if kind == "credit" else day.end + self._accounting.history_days * DAY
        expiries = (str(texts_go // 1000), str(sums_go // 1000))
        answer = await self._command_queue.run(
            _NOTE, kind, day.name, identifier, expected, text, *expiries, *_steps(lines)
        )
        return answer[1] if answer[0] == "other" else None

    def _day_of(self, identifier: str) -> str:
        return self._calendar.name_windows(instant_of(identifier)).day.name


def sum_field(line: UsageLine, measure: str) -> str:
    """Return the name of one sum's field in a day's hash. It is JSON, so that names with any characters stay apart."""
    return orjson.dumps([line.key, line.team, line.model, line.upstream, measure]).decode()


def read_sum_field(field: str) -> tuple[UsageLine, str]:
    *parts, measure = orjson.loads(field)
    return UsageLine(*parts), measure


def _steps(lines: Mapping[UsageLine, Sums]) -> list[str]:
    words: list[str] = []
    for line, sums in lines.items():
        for measure in MEASURES:
            if step := getattr(sums, measure):
                words += [sum_field(line, measure), str(step)]
    return words


def _bound(at: int) -> str:
    return first_id(PREFIX, -(-at // 1000))


def _after(cursor: str | None) -> int:
    """Return the µs just after the instant of a cursor; for None an instant after all records."""
    return 2**62 if cursor is None else instant_of(cursor) + 1


def _instant_or_none(identifier: str) -> int | None:
    try:
        return instant_of(identifier)
    except ValueError:
        return None


async def _reply(answer: Awaitable[Any] | Any) -> Any:
    # redis-py has one type for the answers of its blocking and its asynchronous client.
    return await cast(Awaitable[Any], answer)


class Recorder:
    """The records of one process that wait to be written to a history. `write` may be repeated for one record."""

    def __init__(
        self, write: Callable[[Record], Awaitable[None]], *, most: int = MOST_WAITING, pause_s: float = PAUSE_S
    ) -> None:
        self.outbox: Outbox[Record] = Outbox(
            "records of requests",
            write,
            at_once=_AT_ONCE,
            merge=Record.merged,
            bound=OutboxBound(most, is_cheap=lambda record: not record.calls),
            pause_s=pause_s,
        )

    def note(self, record: Record) -> None:
        """Queue a record to be written in the background, merged with a waiting one of the same id.

        Beyond `most` waiting records, the oldest one without calls is dropped, else the oldest.
        """
        self.outbox.put(record.id, record)
