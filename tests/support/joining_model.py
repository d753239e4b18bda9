"""A task as the ledger's model knows it, and who joins which: the rule of joining, said again in plain Python.

Knows nothing of Redis and nothing of money.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.money.ledger_results import Opening
from gateway.store.windows import Windows
from tests.support.ledgers import DAY

CLAIM_CLOSED = 10_000_000
"""µs for which a retry may claim a task whose connection was closed in order right after the answer."""


@dataclass
class Call:
    slots: tuple[int, ...]
    price: int
    state: str = "held"
    usd: int = 0
    images: int = 0


@dataclass
class Task:
    opening: Opening
    windows: Windows
    worker: str
    held: list[int]
    by: list[str]
    fence: int = 1
    unpriced: bool = False
    closed: bool = False
    folded: bool = False
    rested: int = 0
    waiter: str = ""
    waits_on: str = ""
    waits_until: int = 0
    left: int = 0
    handed: str = ""
    claimable_until: int | None = None
    found_at: int = 0
    ended: int = 0
    is_policy: bool = False
    calls: dict[str, Call] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.closed and all(call.state != "held" for call in self.calls.values())

    @property
    def is_doubtful(self) -> bool:
        return any(call.state == "presumed" for call in self.calls.values())

    @property
    def outcome(self) -> str:
        """What came of what was sent."""
        states = [(call.state, call.images) for call in self.calls.values() if call.state != "void"]
        if any(state == "posted" and images for state, images in states):
            return "succeeded"
        return "failed" if states else "nothing"

    def free(self) -> list[int]:
        return [slot for slot, by in enumerate(self.by) if by == "free"]

    def amount(self, name: str) -> int:
        unit, kind = name.split("_")
        if kind == "held":
            waiting = [slot for slot, by in enumerate(self.by) if by == "free" or self._is_out(by)]
            return sum(self.held[slot] for slot in waiting) if unit == "usd" else len(waiting)
        return sum(call.usd if unit == "usd" else call.images for call in self.calls.values() if call.state == kind)

    def _is_out(self, by: str) -> bool:
        return by in self.calls and self.calls[by].state == "held"


class JoiningModel:
    """The tasks there are, who waits for them, and by what they are found."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.leases: dict[str, int] = {}
        self.claims: dict[tuple[str, str], list[tuple[int, str]]] = {}
        self.keyed: dict[tuple[str, str], str] = {}

    def leave(self, now: int, task_id: str, waiter: str, how: str) -> str:
        task = self.tasks[task_id]
        if task.folded:
            return "unknown"
        claims = self.claims.get((task.opening.key, task.opening.fingerprint), [])
        if how in ("unread", "closed"):
            if task.handed != waiter:
                return "gone"
            task.handed, task.left = "", 0
            task.claimable_until = now + CLAIM_CLOSED if how == "closed" else None
            claims.append((task.found_at, task_id))
            claims.sort()
            return "done"
        if task.waiter != waiter:
            return "gone"
        task.waiter, task.left = "", now
        if how == "handed" and any(each[1] == task_id for each in claims):
            claims[:] = [each for each in claims if each[1] != task_id]
            task.handed = waiter
        return "done"

    def be_found(self, now: int, asked: Opening) -> None:
        self._wait(now, self.tasks[asked.task], asked)
        if asked.idempotency:
            self.keyed[asked.key, asked.idempotency] = asked.task
        elif asked.form == "answer":
            self.tasks[asked.task].found_at = now
            claims = self.claims.get((asked.key, asked.fingerprint), [])
            young = [each for each in claims if each[0] > now - asked.keep - DAY]
            self.claims[asked.key, asked.fingerprint] = [*young, (now, asked.task)]

    def repeat(self, now: int, asked: Opening) -> tuple[Any, ...] | None:
        """The task that makes what is asked for already."""
        if asked.idempotency:
            task = self.tasks.get(self.keyed.get((asked.key, asked.idempotency), ""))
            if task is None or task.folded or self._is_stale(now, task, asked):
                return None
            outcome = self._outcome(now, task, asked)
            if outcome == "nothing" and not task.is_policy:
                return None
            if task.opening.fingerprint != asked.fingerprint:
                return ("mismatch",)
            return ("joined" if outcome == "running" else "replay", task.opening.task)
        for _, name in self.claims.get((asked.key, asked.fingerprint), []):
            task = self.tasks[name]
            if not task.folded and (task.waiter == asked.task or self._is_claimable(now, task, asked)):
                self._wait(now, task, asked)
                task.claimable_until = None
                return ("joined", name)
        return None

    def _is_claimable(self, now: int, task: Task, asked: Opening) -> bool:
        is_gone = asked.retry > 0 and 0 < task.waits_until <= now
        if self._is_stale(now, task, asked) or (task.waiter and self._lives(now, task.waits_on, asked) and not is_gone):
            return False
        if task.claimable_until is not None and task.claimable_until <= now:
            return False
        left = self.leases.get(task.waits_on, 0) if task.waiter else task.left
        outcome = self._outcome(now, task, asked)
        if asked.retry:
            return outcome != "nothing"
        return outcome in ("running", "succeeded") and left > now - asked.orphans

    def _outcome(self, now: int, task: Task, asked: Opening) -> str:
        is_over = task.closed or (task.outcome == "nothing" and not self._lives(now, task.worker, asked))
        return task.outcome if is_over else "running"

    def _lives(self, now: int, worker: str, asked: Opening) -> bool:
        return worker == asked.worker or self.leases.get(worker, 0) > now

    @staticmethod
    def _is_stale(now: int, task: Task, asked: Opening) -> bool:
        return task.closed and task.ended + asked.keep <= now

    @staticmethod
    def _wait(now: int, task: Task, asked: Opening) -> None:
        task.waiter, task.waits_on = asked.task, asked.worker
        task.waits_until = now + asked.patience if asked.patience else 0
