"""The audit of the ledger: it compares totals, tasks, journal and indexes, and repairs differences on request.

It runs beside traffic. A slow reading finds suspects. A script counts the suspects again, decides and, on request,
repairs them. It adds a journal entry for each change of an amount.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar, cast

from gateway.money.ledger_results import AMOUNTS, Hold, LedgerAnswer, LedgerConfused, read_holds
from gateway.store import names
from gateway.store.client import CommandQueue, StoreClient
from gateway.store.lua import Script, join_scripts, read_sources

DEADLINE_S = 60.0
"""Seconds that one script of an audit may take: it reads every task that is not folded."""

Bucket = tuple[str, str]
"""A scope and a window, as `key:key_01k…` and `2026-11`."""

BucketSums = dict[str, int]
Item = TypeVar("Item")

_MANY = 200
_TRIES = 5
_WHOLE = re.compile(r"-?\d{1,16}")
_TASK = re.compile(r"task_[0-9a-z]{26}")
_KEPT = timedelta(days=399)


@dataclass(frozen=True, slots=True)
class Difference:
    """One wrong amount, counter or index entry.

    `found` is the value in the store, `right` the value that a repair writes. `tasks` and `journal` are the sums of the
    tasks and of the journal's entries, folded ones included; each is empty where the audit compares no such sum.
    """

    kind: str
    place: str
    name: str
    found: str
    tasks: str
    journal: str
    right: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The numbers of tasks, buckets and journal entries in the store, and the differences, repaired ones included."""

    tasks: int
    buckets: int
    entries: int
    differences: tuple[Difference, ...]


@dataclass(slots=True)
class _Journal:
    """The sums of the journal's entries by bucket, their number, and the ids of the first and the last one."""

    first: str = ""
    last: str = ""
    entries: int = 0
    sums: dict[Bucket, BucketSums] = field(default_factory=lambda: defaultdict(_nothing))


class Audit:
    """The audit of one store. `command_queue` should have the deadline DEADLINE_S.

    In tests, `now` returns the µs that replace the store's clock.
    """

    def __init__(
        self,
        redis: StoreClient,
        command_queue: CommandQueue,
        *,
        scripts: Mapping[str, Script] | None = None,
        now: Callable[[], int] | None = None,
    ) -> None:
        self._redis = redis
        self._command_queue = command_queue
        self._scripts = scripts or join_scripts(read_sources("ledger"))
        self._now = now

    async def read_epoch(self) -> str:
        """Return the store's epoch as text, in the form of a data folder's file; "" if the store has none."""
        return str(await self._redis.get(names.EPOCH()) or "")

    async def is_lost(self) -> bool:
        """True when a process found that this store lost data, and no operator has accepted it since."""
        marked, epoch = await self._redis.mget(names.LOST(), names.EPOCH())
        return marked is not None and marked == str(epoch or "").partition(" ")[0]

    async def run(self, *, repairs: bool = False) -> AuditReport:
        """Find every difference. With `repairs`, also repair each one, and add a journal entry for a repaired amount.

        Raises StoreUnavailable, and LedgerConfused if the journal is trimmed faster than it can be read.
        """
        journal = await self._read_journal()
        totals = await self._read_hashes(names.WINDOW("*"))
        holds = await self._read_holds()
        suspects = _suspect_buckets(totals, holds, journal)
        running = _suspect_running(await self._read_hashes(names.RUNNING("*")), holds)
        found = [
            *await self._recount(journal, suspects, running, repairs=repairs),
            *await self._reindex(holds, repairs=repairs),
        ]
        return AuditReport(len(holds), len(totals), journal.entries, tuple(found))

    async def _recount(
        self, journal: _Journal, buckets: Sequence[Bucket], scopes: Sequence[str], *, repairs: bool
    ) -> list[Difference]:
        found: list[Difference] = []
        for part in _split(buckets) if buckets else [()] if scopes else []:
            for _ in range(_TRIES):
                words = [word for bucket in part for word in (*bucket, *_format_sums(journal.sums[bucket]))]
                counts = (str(len(part)), str(len(scopes)))
                answer = await self._run(
                    "recount", str(int(repairs)), journal.first, journal.last, *counts, *words, *scopes
                )
                if answer[0] != "moved":
                    break
                journal = await self._read_journal()
            else:
                raise LedgerConfused("the journal is trimmed faster than it can be read")
            found += [Difference(**json.loads(text)) for text in answer[1:]]
            scopes = ()
        return found

    async def _reindex(self, holds: Mapping[str, Hold], *, repairs: bool) -> list[Difference]:
        listed: dict[str, set[str]] = defaultdict(set)
        for name in (names.OPEN, names.ENDED, names.DOUBTFUL):
            for task in cast(list[str], await self._redis.zrange(name(), 0, -1)):
                listed[task].add(name.stem)
        found: list[Difference] = []
        for task in sorted(task for task in {*listed, *holds} if _TASK.fullmatch(task)):
            hold = holds.get(task)
            if listed[task] != ({_index_of(hold)} if hold else set()):
                _, is_in, right = await self._run("reindex", str(int(repairs)), task)
                if is_in != right:
                    found.append(Difference("index", task, "index", is_in or "none", "", "", right or "none"))
        return found

    async def _read_journal(self) -> _Journal:
        journal, after = _Journal(), "-"
        while rows := await self._redis.xrange(names.JOURNAL(), min=after, count=1000):
            for entry_id, entry in cast(list[tuple[str, dict[str, str]]], rows):
                journal.first = journal.first or entry_id
                journal.last, journal.entries = entry_id, journal.entries + 1
                for bucket in _buckets_of_entry(entry):
                    _add(journal.sums[bucket], {name: int(entry.get(name, 0)) for name in AMOUNTS})
            after = f"({journal.last}"
        return journal

    async def _read_holds(self) -> dict[str, Hold]:
        found = [name.rpartition(":")[2] async for name in self._scan(names.HOLD("*"))]
        holds: list[Hold] = []
        for part in _split([task for task in found if _TASK.fullmatch(task)]):
            holds += read_holds(await self._run("show", ",".join(part)))
        return {hold.task: hold for hold in holds}

    async def _read_hashes(self, pattern: str) -> dict[str, dict[str, str]]:
        """Return every hash that matches the pattern, by the part of its name that the pattern's `*` matches."""
        found = [name async for name in self._scan(pattern)]
        rows: dict[str, dict[str, str]] = {}
        for part in _split(found):
            async with self._redis.pipeline(transaction=False) as pipe:
                for name in part:
                    pipe.hgetall(name)
                rows |= zip((name.removeprefix(pattern[:-1]) for name in part), await pipe.execute(), strict=True)
        return rows

    async def _scan(self, pattern: str) -> AsyncIterator[str]:
        # SCAN may return a name twice.
        seen: set[str] = set()
        async for name in self._redis.scan_iter(match=pattern, count=1000):
            if name not in seen:
                seen.add(name)
                yield name

    async def _run(self, name: str, *arguments: str) -> list[str]:
        now = "" if self._now is None else str(self._now())
        return await self._command_queue.run(self._scripts[name], now, *arguments)


def _suspect_buckets(
    totals: Mapping[str, Mapping[str, str]], holds: Mapping[str, Hold], journal: _Journal
) -> list[Bucket]:
    by_tasks: dict[Bucket, BucketSums] = defaultdict(_nothing)
    for hold in holds.values():
        for bucket in _buckets_of(hold.key, hold.team, hold.windows):
            _add(by_tasks[bucket], hold.amounts)
    rows = {_parse_bucket(place): row for place, row in totals.items()}
    known = {*rows, *(bucket for bucket in {*by_tasks, *journal.sums} if not _is_gone(bucket[1]))}
    return [
        bucket
        for bucket in sorted(known)
        if not _is_right(rows.get(bucket, {}), by_tasks[bucket], journal.sums[bucket])
    ]


def _is_right(row: Mapping[str, str], tasks: BucketSums, journal: BucketSums) -> bool:
    if not all(_WHOLE.fullmatch(value) for value in row.values()):
        return False
    return all(
        int(row.get(name, 0))
        == int(row.get(f"folded:{name}", 0)) + tasks[name]
        == int(row.get(f"trimmed:{name}", 0)) + journal[name]
        and (not name.endswith("_held") or int(row.get(f"folded:{name}", 0)) == 0)
        for name in AMOUNTS
    )


def _suspect_running(found: Mapping[str, Mapping[str, str]], holds: Mapping[str, Hold]) -> list[str]:
    right: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for hold in holds.values():
        for scope in _scopes_of(hold.key, hold.team) if hold.is_open else ():
            right[scope][hold.worker] += 1
    said = {scope: {worker: str(count) for worker, count in counts.items()} for scope, counts in right.items()}
    return sorted(scope for scope in {*said, *found} if said.get(scope, {}) != found.get(scope, {}))


def _index_of(hold: Hold) -> str:
    if not hold.is_over:
        return names.OPEN.stem
    is_doubtful = any(call.state is LedgerAnswer.PRESUMED for call in hold.calls)
    return (names.DOUBTFUL if is_doubtful else names.ENDED).stem


def _scopes_of(key: str, team: str) -> Iterator[str]:
    if key:
        yield f"key:{key}"
    if team:
        yield f"team:{team}"
    yield "everyone"


def _buckets_of(key: str, team: str, windows: Iterable[str]) -> Iterator[Bucket]:
    # A task that was closed before it was opened has no windows and no amounts.
    spans = [window for window in windows if window]
    for scope in _scopes_of(key, team) if spans else ():
        for window in (*spans, "total"):
            yield scope, window


def _buckets_of_entry(entry: Mapping[str, str]) -> Iterator[Bucket]:
    if entry["kind"] == "repair":
        yield entry["scope"], entry["window"]
    else:
        yield from _buckets_of(entry["key"], entry["team"], (entry["day"], entry["week"], entry["month"]))


def _parse_bucket(place: str) -> Bucket:
    scope, _, window = place.rpartition(":")
    return scope, window


def _is_gone(window: str) -> bool:
    """True when a window began more than 399 days ago: if it has no total, that is no difference."""
    if window == "total":
        return False
    if "W" in window:
        year, week = window.split("-W")
        began = date.fromisocalendar(int(year), int(week), 1)
    else:
        began = date.fromisoformat(window if window.count("-") == 2 else f"{window}-01")
    return began + _KEPT < datetime.now(UTC).date()


def _nothing() -> BucketSums:
    return dict.fromkeys(AMOUNTS, 0)


def _add(sums: BucketSums, more: Mapping[str, int]) -> None:
    for name in AMOUNTS:
        sums[name] += more[name]


def _format_sums(sums: BucketSums) -> list[str]:
    return [str(sums[name]) for name in AMOUNTS]


def _split(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), _MANY):
        yield items[start : start + _MANY]
