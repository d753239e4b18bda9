"""Where requests wait for tasks: told at once of those that run here, by one blocking reader of all others.

Never decides anything, and
never keeps a record longer than its task runs or somebody watches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

import structlog
from redis.exceptions import RedisError

from gateway.state.task_store import TaskRecord, TaskStore
from gateway.store import names
from gateway.store.client import DEADLINE_S, StoreUnavailable, connect

BLOCK_S = 5.0
"""Seconds that one blocking read waits for news."""

GATHER_S = 0.02
"""Seconds in which more news may come, to be read with those that came: each request brings two, to every process."""

PAUSE_S = 0.5
"""Seconds before a reader that found Redis away asks again."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Place:
    """One task that runs here or is watched here. `record` is its newest, where it runs here."""

    record: TaskRecord | None = None
    is_running: bool = False
    watchers: list[Watch] = field(default_factory=list)


class Watch:
    """One wait for news of a task, while it is entered. An asyncio.Event and a task that waits for it are 4 KB more."""

    __slots__ = ("_places", "_task", "_waker", "has_news")

    def __init__(self, places: dict[str, _Place], task: str) -> None:
        self._places = places
        self._task = task
        self._waker: asyncio.Future[None] | None = None
        self.has_news = False

    def __enter__(self) -> Watch:
        self._places.setdefault(self._task, _Place()).watchers.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places[self._task].watchers.remove(self)
        _tidy(self._places, self._task)

    def tell(self) -> None:
        """The task may have changed."""
        self.has_news = True
        self.wake()

    def wake(self, _gone: asyncio.Future[None] | None = None) -> None:
        """End the wait, with or without news."""
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    async def wait(self, seconds: float, gone: asyncio.Future[None] | None = None) -> None:
        """Until there is news, `gone` is done, or the time is up."""
        if self.has_news or (gone is not None and gone.done()):
            return
        loop = asyncio.get_running_loop()
        self._waker = loop.create_future()
        timer = loop.call_later(seconds, self.wake)
        if gone is not None:
            gone.add_done_callback(self.wake)
        try:
            await self._waker
        finally:
            timer.cancel()
            self._waker = None
            if gone is not None:
                gone.remove_done_callback(self.wake)


class TaskEvents:
    """`url` is the store's, for the reader's own connection."""

    def __init__(self, url: str, store: TaskStore) -> None:
        self._url = url
        self._store = store
        self._places: dict[str, _Place] = {}
        self._heeded: dict[str, asyncio.Event] = {}

    def post(self, record: TaskRecord) -> None:
        """A task that runs here has changed; without an end it runs on."""
        place = self._places.setdefault(record.id, _Place())
        place.record, place.is_running = record, record.end is None
        self._wake(record.id)
        _tidy(self._places, record.id)

    def watch(self, task_id: str) -> Watch:
        """A wait that is told whenever the task may have changed."""
        return Watch(self._places, task_id)

    @contextmanager
    def heed(self, call_id: str) -> Iterator[asyncio.Event]:
        """An event that is set by each callback for a paid call that is followed here."""
        event = self._heeded[call_id] = asyncio.Event()
        try:
            yield event
        finally:
            del self._heeded[call_id]

    def is_watched(self, task_id: str) -> bool:
        """Whether anybody here waits for the task."""
        place = self._places.get(task_id)
        return place is not None and bool(place.watchers)

    async def look(self, task_id: str) -> TaskRecord | None:
        """The task as it stands. Raises StoreUnavailable where it does not run here and Redis is away."""
        place = self._places.get(task_id)
        if place is not None and place.record is not None:
            return place.record
        return await self._store.read(task_id)

    async def listen(self) -> None:
        """Wake whoever watches a task that changed anywhere, until cancelled."""
        client = connect(self._url, deadline_s=BLOCK_S + DEADLINE_S, connections=1)
        last = ""
        try:
            while True:
                try:
                    last = last or await self._store.last_change()
                    stream = names.CHANGED()
                    news = await cast(Any, client.xread({stream: last}, block=round(BLOCK_S * 1000), count=1000))
                    for entry, fields in news[0][1] if news else ():
                        last = entry
                        self._hear(fields)
                    await asyncio.sleep(GATHER_S)
                except (StoreUnavailable, RedisError) as error:
                    # Whatever it was, who waits here still looks from time to time.
                    _log.debug("the announcements are away", reason=str(error))
                    last = ""
                    self.wake_all()
                    await asyncio.sleep(PAUSE_S)
        finally:
            await client.aclose()

    def wake_all(self) -> None:
        """Have everybody who watches look again."""
        for task_id in self._places:
            self._wake(task_id)

    def _hear(self, fields: dict[str, str]) -> None:
        if "call" not in fields:
            self._wake(fields["task"])
        elif event := self._heeded.get(fields["call"]):
            event.set()

    def _wake(self, task_id: str) -> None:
        place = self._places.get(task_id)
        for watch in place.watchers if place else ():
            watch.tell()


def _tidy(places: dict[str, _Place], task_id: str) -> None:
    place = places[task_id]
    if not place.watchers and not place.is_running:
        del places[task_id]
