"""Search for tasks with calls and without a record: their process died after the ledger had counted them.

It passes the missing records to the recorder. This module never changes the ledger.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from time import time_ns
from typing import cast

import structlog

from gateway.history.history import DAY, History
from gateway.history.record import Record, instant_of
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Hold
from gateway.store import names
from gateway.store.client import StoreClient
from gateway.store.windows import MICROSECONDS

GRACE = 120 * MICROSECONDS
"""The time after a task's end, in µs, in which its own process may still write the record."""

_MOST = 500

_log = structlog.get_logger(__name__)


class Gaps:
    """One worker's search through the last day. `describe` makes a missing record, and `note` gets the record.

    In tests, `now` returns the µs that replace the clock.
    """

    def __init__(
        self,
        redis: StoreClient,
        ledger: Ledger,
        history: History,
        note: Callable[[Record], None],
        *,
        describe: Callable[[Hold], Awaitable[Record]],
        now: Callable[[], int] = lambda: time_ns() // 1000,
    ) -> None:
        self._describe = describe
        self._redis = redis
        self._ledger = ledger
        self._history = history
        self._note = note
        self._now = now
        self._searched_to = 0

    async def fill(self) -> int:
        """Make a record for each task with calls and without a record; return their number. Raises StoreUnavailable.

        The first search covers the tasks that were opened and ended in the last day. Each later one covers those that
        ended since the search before. A task that ended less than GRACE ago waits for a later search.
        """
        now, written = self._now(), 0
        until = now - GRACE
        # With an overlap, since the ledger has another clock.
        since = max(now - DAY, self._searched_to - GRACE)
        async for tasks in self._ended(since, until):
            # The record of an older task may have expired, and a new one would count its money twice.
            recent = [task for task in tasks if instant_of(task) >= now - DAY]
            for task in await self._history.find_missing(recent):
                hold = await self._ledger.show(task)
                if hold is not None and hold.calls:
                    self._note(await self._describe(hold))
                    written += 1
        self._searched_to = until
        if written:
            _log.warning("wrote records of work whose process died", tasks=written)
        return written

    async def _ended(self, since: int, until: int) -> AsyncIterator[list[str]]:
        for name in (names.ENDED(), names.DOUBTFUL()):
            start = 0
            while True:
                asked = self._redis.zrangebyscore(name, since, until, start=start, num=_MOST)
                tasks = await cast(Awaitable[list[str]], asked)
                yield tasks
                if len(tasks) < _MOST:
                    break
                start += _MOST
