"""The ledger's limits, and its tasks that may hold money, for housekeeping and operators. It writes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.money.ledger_results import Hold, Scope, read_holds, read_limits


@dataclass(frozen=True, slots=True)
class RetryQuery:
    """A retry that looks for the task of its first attempt. `living` are workers that are known to run. Another worker
    runs if it renews its lease, which is `lease_us` µs long.
    """

    key: str
    fingerprint: str
    worker: str
    lease_us: int
    living: tuple[str, ...] = ()


class LedgerReader(ABC):
    """Reads the ledger by its scripts. Every method may raise StoreUnavailable. Times are in µs."""

    async def limits_of(self, scope: Scope) -> dict[str, int]:
        """Return the limits of one scope, by name, in µ$ or as numbers."""
        return read_limits(await self._run("limits", scope.key, scope.team))

    async def holds(self, most: int = 1000) -> list[Hold]:
        """Return the tasks that may still hold money, oldest first, no more than `most`."""
        return read_holds(await self._run("holds", "all", "", "", str(most)))

    async def orphans(self, most: int = 100) -> list[Hold]:
        """Return the tasks that may hold money and whose owner's lease has ended, oldest first."""
        return read_holds(await self._run("holds", "orphaned", "", "", str(most)))

    async def left(self, since: int, most: int = 1000) -> list[Hold]:
        """Return the tasks that ended in the last 5 minutes of their worker's lease, which ended after `since` (µs)."""
        return read_holds(await self._run("holds", "left", "", str(since), str(most)))

    async def overdue(self, worker: str, before: int, most: int = 100) -> list[Hold]:
        """Return this worker's tasks that may hold money and opened no later than `before` (µs), oldest first."""
        return read_holds(await self._run("holds", "overdue", worker, str(before), str(most)))

    async def show(self, task: str) -> Hold | None:
        """Return the amounts of one task; None if it is unknown or already folded."""
        found = await self.show_all([task])
        return found[0] if found else None

    async def show_all(self, tasks: Sequence[str]) -> list[Hold]:
        """Return the amounts of several tasks, without unknown ones."""
        return read_holds(await self._run("show", ",".join(tasks))) if tasks else []

    @abstractmethod
    async def _run(self, name: str, *arguments: str) -> list[str]:
        """Run a script of the ledger, and return its answer."""

    async def check_first_request(self, query: RetryQuery, since: int = 0) -> int | None:
        """Return the µs at which the retry began to wait for a worker that may be dead; None if it need not wait.

        The first check has `since` 0. Each later one needs the result of the check before as `since`.
        """
        words = (query.key, query.fingerprint, query.worker, str(query.lease_us), str(since), ",".join(query.living))
        answer = await self._run("retry_wait", *words)
        return int(answer[1]) if answer[0] == "wait" else None
