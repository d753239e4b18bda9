"""Events of tasks, which wake the requests that wait in this process: at once for a task that runs in this process.

For all other tasks and processes, one blocking reader gets the announcements from the store. It reads only while
somebody waits for them.

This module never keeps a record longer than its task runs or a request watches it.
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
"""Seconds to collect more news before the next read: every process reads the announcements of all tasks."""

PAUSE_S = 0.5
"""Seconds before the reader asks again while Redis is unavailable."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Entry:
    """One task that this process runs or watches. `record` is its newest one if it ran in this process, else None."""

    record: TaskRecord | None = None
    is_running: bool = False
    watchers: list[Watch] = field(default_factory=list)


class Demand:
    """The waits that need the announcements in the store."""

    def __init__(self) -> None:
        self._waits = 0
        self._begun = asyncio.Event()

    def begin(self) -> None:
        self._waits += 1
        self._begun.set()

    def end(self) -> None:
        self._waits -= 1
        if not self._waits:
            self._begun.clear()

    @property
    def exists(self) -> bool:
        return self._waits > 0

    async def wait(self) -> None:
        """Wait until there is a demand. Returns at once if there is one."""
        await self._begun.wait()


class Watch:
    """One wait for news of a task, as a context. An asyncio.Event and a task for its wait would take 4 KB more.

    `distant` counts the waits for tasks that run elsewhere.
    """

    __slots__ = ("_distant", "_entries", "_is_distant", "_task", "_waker", "has_news")

    def __init__(self, entries: dict[str, _Entry], distant: Demand, task: str) -> None:
        self._entries = entries
        self._distant = distant
        self._is_distant = False
        self._task = task
        self._waker: asyncio.Future[None] | None = None
        self.has_news = False

    def __enter__(self) -> Watch:
        entry = self._entries.setdefault(self._task, _Entry())
        entry.watchers.append(self)
        if entry.record is None:
            self._is_distant = True
            self._distant.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entries[self._task].watchers.remove(self)
        _drop_unused(self._entries, self._task)
        if self._is_distant:
            self._distant.end()

    def notify(self) -> None:
        """Set `has_news`, since the task may have changed, and end the wait that runs, if there is one."""
        self.has_news = True
        self.wake()

    def wake(self, _gone: asyncio.Future[None] | None = None) -> None:
        """End the wait that runs, if there is one. `has_news` stays."""
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    async def wait(self, seconds: float, gone: asyncio.Future[None] | None = None) -> None:
        """Wait until there is news, `gone` is done, `seconds` have passed, or `wake` is called.

        Returns at once if there is news or `gone` is done.
        """
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
    """One process's task events. `url` is the store's, for the reader's own connection."""

    def __init__(self, url: str, store: TaskStore) -> None:
        self._url = url
        self._store = store
        self._entries: dict[str, _Entry] = {}
        self._callbacks: dict[str, asyncio.Event] = {}
        self._demand = Demand()

    def post(self, record: TaskRecord) -> None:
        """Keep the new record of a task that runs in this process, and notify its watches. The store gets nothing.

        The record is kept until the task has ended and no request watches it.
        """
        entry = self._entries.setdefault(record.id, _Entry())
        entry.record, entry.is_running = record, record.end is None
        self.wake(record.id)
        _drop_unused(self._entries, record.id)

    def watch(self, task_id: str) -> Watch:
        """Return a wait for changes of the task. The wait gets news once it is entered as a context."""
        return Watch(self._entries, self._demand, task_id)

    @contextmanager
    def watch_callbacks(self, call_id: str) -> Iterator[asyncio.Event]:
        """Yield an event that each callback for a paid call sets, during the context."""
        event = self._callbacks[call_id] = asyncio.Event()
        self._demand.begin()
        try:
            yield event
        finally:
            self._demand.end()
            del self._callbacks[call_id]

    def is_watched(self, task_id: str) -> bool:
        """True when a request of this process waits for the task."""
        entry = self._entries.get(task_id)
        return entry is not None and bool(entry.watchers)

    async def look(self, task_id: str) -> TaskRecord | None:
        """Return the task, from memory if it runs in this process, else from the store; None if there is none.

        Raises StoreUnavailable.
        """
        entry = self._entries.get(task_id)
        if entry is not None and entry.record is not None:
            return entry.record
        return await self._store.read(task_id)

    async def listen(self) -> None:
        """Read the announcements of all processes until this is cancelled. Notify the watches of changed tasks.

        A callback sets the events of its call. Nothing is read while no request waits for a task that runs elsewhere,
        and no call for a callback. While Redis is unavailable, this notifies all watches, and tries again.
        """
        client = connect(self._url, deadline_s=BLOCK_S + DEADLINE_S, connections=1)
        last = ""
        try:
            while True:
                if not self._demand.exists:
                    last = ""
                    await self._demand.wait()
                try:
                    last = last or await self._begin()
                    stream = names.CHANGED()
                    news = await cast(Any, client.xread({stream: last}, block=round(BLOCK_S * 1000), count=1000))
                    for entry, fields in news[0][1] if news else ():
                        last = entry
                        self._handle_news(fields)
                    await asyncio.sleep(GATHER_S)
                except (StoreUnavailable, RedisError) as error:
                    # Each wait still looks from time to time.
                    _log.debug("the announcements of changed tasks are unavailable", reason=str(error))
                    last = ""
                    self.wake_all()
                    await asyncio.sleep(PAUSE_S)
        finally:
            await client.aclose()

    async def _begin(self) -> str:
        """Return the position of the last announcement, from which nothing will be missed.

        A wait for a task that runs elsewhere looks once more: its task may have changed before this position.
        """
        last = await self._store.last_change()
        for task_id, entry in self._entries.items():
            if entry.record is None:
                self.wake(task_id)
        return last

    def wake(self, task_id: str) -> None:
        """Notify the watches of the task."""
        entry = self._entries.get(task_id)
        for watch in entry.watchers if entry else ():
            watch.notify()

    def wake_all(self) -> None:
        """Notify every watch."""
        for task_id in self._entries:
            self.wake(task_id)

    def _handle_news(self, fields: dict[str, str]) -> None:
        if "call" not in fields:
            self.wake(fields["task"])
        elif event := self._callbacks.get(fields["call"]):
            event.set()


def _drop_unused(entries: dict[str, _Entry], task_id: str) -> None:
    entry = entries[task_id]
    if not entry.watchers and not entry.is_running:
        del entries[task_id]
