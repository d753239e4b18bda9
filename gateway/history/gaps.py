"""Finds what the ledger has counted and the history never heard of: a process died between the two.

Stepped in every worker by `app`. Never changes the ledger; what it finds goes to `store.recorder` as everything does.
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

ON_ITS_WAY = 120 * MICROSECONDS
"""For so long after its task's end a record is its own process's business."""

_MOST = 500

_log = structlog.get_logger(__name__)


class Gaps:
    """One worker's look at the last day. `note` is handed the missing records, as `describe` makes them.

    `now` replaces the clock in tests.
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
        self._looked_to = 0

    async def fill(self) -> int:
        """Tell of every task that ended lately without a record; answers how many. Raises StoreUnavailable."""
        now, told = self._now(), 0
        until = now - ON_ITS_WAY
        # Once more what was just looked at, since the ledger has another clock.
        since = max(now - DAY, self._looked_to - ON_ITS_WAY)
        async for tasks in self._ended(since, until):
            # Of an older task the record may be over, and to write it again would count it twice.
            recent = [task for task in tasks if instant_of(task) >= now - DAY]
            for task in await self._history.find_missing(recent):
                hold = await self._ledger.show(task)
                if hold is not None and hold.calls:
                    self._note(await self._describe(hold))
                    told += 1
        self._looked_to = until
        if told:
            _log.warning("wrote records of work whose process died", tasks=told)
        return told

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
