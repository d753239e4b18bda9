"""What the ledger promises, said again in plain Python without totals: every sum is made anew from what happened.

Knows nothing of Redis. Each step answers what the ledger must answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gateway.money.ledger_results import (
    Admitted,
    Joined,
    Lease,
    LedgerAnswer,
    Opening,
    OverLimit,
    Settled,
    TooMany,
    Unpriced,
)
from gateway.store.windows import Windows
from tests.support.joining_model import Call, JoiningModel, Task
from tests.support.ledgers import MINUTE

AMOUNTS = ("usd_held", "usd_presumed", "usd_posted", "images_held", "images_presumed", "images_posted")
ORDER = ("usd_total", "usd_month", "usd_week", "usd_day", "images_month", "images_day")


@dataclass
class Correction:
    key: str
    team: str
    windows: Windows
    usd: int


def scopes(key: str, team: str) -> list[tuple[str, str]]:
    named = [("key", f"key:{key}")] if key else []
    named += [("team", f"team:{team}")] if team else []
    return [*named, ("everyone", "everyone")]


def names(windows: Windows) -> list[str]:
    return [windows.day.name, windows.week.name, windows.month.name, "total"]


class Model(JoiningModel):
    """The whole ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.corrections: list[Correction] = []
        self.limits: dict[tuple[str, str], int] = {}
        self.levels: dict[tuple[str, str], tuple[int, int]] = {}

    # Sums.

    def totals(self, *, folded_only: bool = False) -> dict[tuple[str, str], dict[str, int]]:
        """Every amount of every window of every scope in which anything was ever counted."""
        rows = [
            (task.opening.key, task.opening.team, task.windows, {name: task.amount(name) for name in AMOUNTS})
            for task in self.tasks.values()
            if task.folded or not folded_only
        ]
        rows += [(each.key, each.team, each.windows, {"usd_posted": each.usd}) for each in self.corrections]
        found: dict[tuple[str, str], dict[str, int]] = {}
        for key, team, windows, amounts in rows:
            for _, scope in scopes(key, team):
                for window in names(windows):
                    sums = found.setdefault((scope, window), dict.fromkeys(AMOUNTS, 0))
                    for name, amount in amounts.items():
                        sums[name] += amount
        return found

    def excess(self, scope: str, limit: str, windows: Windows) -> int:
        """By how much a limit is passed; negative is what is left."""
        unit, span = limit.split("_")
        window = "total" if span == "total" else getattr(windows, span).name
        sums = self.totals().get((scope, window), {})
        return (
            sum(sums.get(f"{unit}_{state}", 0) for state in ("held", "presumed", "posted")) - self.limits[scope, limit]
        )

    def running(self, scope: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for task in self.tasks.values():
            if not task.closed and scope in [name for _, name in scopes(task.opening.key, task.opening.team)]:
                found[task.worker] = found.get(task.worker, 0) + 1
        return found

    def stand(self, now: int, key: str, team: str, windows: Windows) -> dict[tuple[str, str], int]:
        """How much of each limit is used."""
        found: dict[tuple[str, str], int] = {}
        for kind, scope in scopes(key, team):
            for limit in [name for at, name in self.limits if at == scope]:
                ceiling = self.limits[scope, limit]
                if limit in ORDER:
                    used = self.excess(scope, limit, windows) + ceiling
                elif limit == "concurrent_requests":
                    used = sum(count for name, count in self.running(scope).items() if self.leases.get(name, 0) > now)
                else:
                    interval = math.ceil(MINUTE / ceiling)
                    used = ceiling - max(0, (ceiling * interval - self._level(now, scope, limit)) // interval)
                found[kind, limit] = used
        return found

    # Decisions.

    def open(self, now: int, asked: Opening, windows: Windows) -> tuple[Any, ...]:
        if known := self.tasks.get(asked.task):
            if known.closed:
                return ("closed",)
            same = (asked.key, asked.fingerprint, asked.images) == (
                known.opening.key,
                known.opening.fingerprint,
                known.opening.images,
            )
            return ("new", known.fence) if same else ("conflict",)
        if same := self.repeat(now, asked):
            return same
        return self._admit(now, asked, windows)

    def _admit(self, now: int, asked: Opening, windows: Windows) -> tuple[Any, ...]:
        found = scopes(asked.key, asked.team)
        needs = {"requests_minute": 1, "images_minute": asked.images}
        for kind, scope in found:
            for limit, need in needs.items():
                if need > (ceiling := self.limits.get((scope, limit), need)):
                    return ("too_many", limit, kind, ceiling)
        price = asked.price or 0
        refusal = None if asked.price is not None else self._over_unpriced(found)
        refusal = refusal or self._over_amount(found, windows, price * asked.images, asked.images)
        refusal = refusal or self._over_running(now, found, asked.worker) or self._over_rate(now, found, needs)
        if refusal:
            return refusal
        for _, scope in found:
            for limit, need in needs.items():
                if ceiling := self.limits.get((scope, limit)):
                    level = self._level(now, scope, limit) + need * math.ceil(MINUTE / ceiling)
                    self.levels[scope, limit] = (level, now)
        images = range(asked.images)
        self.tasks[asked.task] = Task(
            asked,
            windows,
            asked.worker,
            [price for _ in images],
            ["free" for _ in images],
            unpriced=asked.price is None,
        )
        self.be_found(now, asked)
        return ("new", 1)

    def raise_price(self, task_id: str, price: int | None, fence: int) -> tuple[Any, ...]:
        if refusal := self._not_owned(task_id, fence):
            return refusal
        task = self.tasks[task_id]
        if task.closed:
            return ("closed",)
        found = scopes(task.opening.key, task.opening.team)
        if price is None:
            refusal = None if task.unpriced else self._over_unpriced(found)
            task.unpriced = refusal is None
            return refusal or ("raised",)
        more = sum(max(0, price - task.held[slot]) for slot in task.free())
        if not more:
            return ("raised",)
        if refusal := self._over_amount(found, task.windows, more, None):
            return refusal
        for slot in task.free():
            task.held[slot] = max(price, task.held[slot])
        return ("raised",)

    def mark_sent(self, task_id: str, call_id: str, slots: tuple[int, ...], price: int | None, fence: int) -> str:
        if refusal := self._not_owned(task_id, fence):
            return str(refusal[0])
        task = self.tasks[task_id]
        if known := task.calls.get(call_id):
            return "conflict" if known.state == "held" and known.slots != slots else known.state
        if task.closed:
            return "closed"
        for slot in slots:
            if task.by[slot] != "free":
                return "taken"
            if task.held[slot] < (price or 0):
                return "underheld"
        if price is None and not task.unpriced:
            return "underheld"
        for slot in slots:
            task.by[slot] = call_id
        task.calls[call_id] = Call(slots, (price or 0) * len(slots))
        return "held"

    def presume(self, now: int, task_id: str, call_id: str, fence: int) -> tuple[Any, ...]:
        if refusal := self._not_owned(task_id, fence):
            return refusal
        call = self.tasks[task_id].calls.get(call_id)
        if call is None:
            return ("unknown",)
        if call.state == "held":
            call.state, call.usd, call.images = "presumed", call.price, len(call.slots)
            self._rest(now, task_id)
        return (call.state, call.usd, call.images)

    def close(self, now: int, task_id: str, fence: int, how: str = "") -> str:
        if refusal := self._not_owned(task_id, fence):
            return str(refusal[0])
        task = self.tasks[task_id]
        if how == "cancel" and task.outcome != "nothing":
            return "sent"
        if not task.closed:
            task.closed, task.ended, task.is_policy = True, now, how == "policy"
            self._release(task)
            self._rest(now, task_id)
        return "closed"

    def adopt(self, now: int, task_id: str, worker: str, fence: int) -> tuple[Any, ...]:
        task = self.tasks.get(task_id)
        if task is None or task.folded:
            return ("unknown",)
        if (task.worker, task.fence) == (worker, fence + 1):
            return (task.fence,)
        if task.fence != fence:
            return ("fenced",)
        if self.leases.get(task.worker, 0) > now:
            return ("living",)
        task.worker, task.fence = worker, fence + 1
        return (task.fence,)

    # Evidence.

    def nack(self, now: int, task_id: str, call_id: str) -> str:
        task = self.tasks[task_id]
        if task.folded:
            return "unknown"
        call = task.calls.setdefault(call_id, Call((), 0, "void"))
        if call.state == "held":
            call.state = "void"
            for slot in call.slots:
                task.by[slot] = "free"
            if task.closed:
                self._release(task)
            self._rest(now, task_id)
        return call.state

    def post(self, now: int, task_id: str, call_id: str, usd: int, images: int) -> tuple[Any, ...]:
        task = self.tasks[task_id]
        call = task.calls.get(call_id)
        if task.folded or call is None or not call.slots:
            return ("unknown",)
        if call.state != "posted":
            for slot in call.slots:
                if call.state == "void" and task.by[slot] == "free":
                    task.by[slot] = call_id
            call.state, call.usd, call.images = "posted", usd, images
            self._rest(now, task_id)
        return (call.state, call.usd, call.images)

    def fold(self, now: int, ended: int, doubtful: int) -> int:
        due = [
            task
            for task in self.tasks.values()
            if task.is_over and not task.folded and task.rested <= now - (doubtful if task.is_doubtful else ended)
        ]
        for task in due:
            task.folded = True
        return len(due)

    # Parts.

    def _not_owned(self, task_id: str, fence: int) -> tuple[Any, ...] | None:
        task = self.tasks[task_id]
        if task.folded:
            return ("unknown",)
        return None if task.fence == fence else ("fenced",)

    def _rest(self, now: int, task_id: str) -> None:
        if self.tasks[task_id].is_over:
            self.tasks[task_id].rested = now

    @staticmethod
    def _release(task: Task) -> None:
        for slot in task.free():
            task.by[slot] = "released"

    def _over_amount(
        self, found: list[tuple[str, str]], windows: Windows, usd: int, images: int | None
    ) -> tuple[Any, ...] | None:
        for kind, scope in found:
            for limit in ORDER:
                unit, span = limit.split("_")
                ceiling, need = self.limits.get((scope, limit)), usd if unit == "usd" else images
                if ceiling is None or need is None:
                    continue
                if (excess := self.excess(scope, limit, windows)) + need > 0:
                    end = None if span == "total" else getattr(windows, span).end
                    return ("refused", limit, kind, ceiling, max(0, -excess), end)
        return None

    def _over_unpriced(self, found: list[tuple[str, str]]) -> tuple[Any, ...] | None:
        for kind, scope in found:
            for limit in ORDER:
                if limit.startswith("usd") and (scope, limit) in self.limits:
                    return ("unpriced", limit, kind)
        return None

    def _over_running(self, now: int, found: list[tuple[str, str]], worker: str) -> tuple[Any, ...] | None:
        for kind, scope in found:
            ceiling = self.limits.get((scope, "concurrent_requests"))
            living = sum(
                count for name, count in self.running(scope).items() if name == worker or self.leases.get(name, 0) > now
            )
            if ceiling is not None and living >= ceiling:
                return ("refused", "concurrent_requests", kind, ceiling, 0, None)
        return None

    def _over_rate(self, now: int, found: list[tuple[str, str]], needs: dict[str, int]) -> tuple[Any, ...] | None:
        """A bucket that fills by one interval a request, leaks a µs a µs, and must not run over."""
        for kind, scope in found:
            for limit, need in needs.items():
                if ceiling := self.limits.get((scope, limit)):
                    interval = math.ceil(MINUTE / ceiling)
                    level = self._level(now, scope, limit)
                    over = level + need * interval - ceiling * interval
                    if over > 0:
                        left = max(0, (ceiling * interval - level) // interval)
                        return ("refused", limit, kind, ceiling, left, now + over)
        return None

    def _level(self, now: int, scope: str, limit: str) -> int:
        level, since = self.levels.get((scope, limit), (0, now))
        return max(0, level - (now - since))


def plain_answer(answer: Any) -> tuple[Any, ...]:
    """An answer as the model gives it."""
    match answer:
        case Admitted():
            return ("new", answer.fence)
        case Joined():
            return ("replay" if answer.is_replay else "joined", answer.task)
        case OverLimit():
            return ("refused", answer.limit, answer.scope, answer.ceiling, answer.left, answer.resets)
        case Unpriced():
            return ("unpriced", answer.limit, answer.scope)
        case TooMany():
            return ("too_many", answer.limit, answer.scope, answer.ceiling)
        case Lease():
            return (answer.stop,)
        case Settled():
            return (str(answer.state), answer.usd, answer.images)
        case LedgerAnswer():
            return (str(answer),)
        case None:
            return ("unknown",)
        case _:
            return (answer,)
