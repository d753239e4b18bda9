"""apiany's tasks: a task's age determines its state, and its start determines its ending.

No task has a timer, so thousands of them cost nothing between polls.
"""

import secrets
import time
from dataclasses import dataclass, field
from typing import Literal

from gateway.simulator.config import StatusWords
from gateway.simulator.faults import NoImage
from gateway.simulator.journal import Purchase
from gateway.simulator.picture import Picture

State = Literal["pending", "running", "done", "failed", "expired"]
_PENDING_SHARE = 0.3


@dataclass
class Task:
    """One task. `ending` is None for a task that never ends; `shape` is the shape of its result."""

    key: str
    purchase: Purchase
    latency: float
    ending: Literal["done", "failed", "expired"] | None
    words: StatusWords
    pictures: list[Picture]
    base_url: str
    shape: str = "result.data.url"
    no_image: NoImage | None = None
    error: dict[str, object] | None = None
    is_refunded: bool = False
    id: str = field(default_factory=lambda: f"task_{secrets.token_hex(10)}")
    created: float = field(default_factory=time.time)
    started: float = field(default_factory=time.monotonic)
    urls: list[str] = field(default_factory=list)

    def state(self) -> State:
        age = time.monotonic() - self.started
        if age < self.latency * _PENDING_SHARE:
            return "pending"
        if self.ending is None or age < self.latency:
            return "running"
        return self.ending

    def time_left(self) -> float:
        """Seconds until the task ends, also for a task without an ending."""
        return max(0.0, self.started + self.latency - time.monotonic())

    def word(self, state: State) -> str:
        """The vendor's word for a state."""
        words = self.words
        return {
            "pending": words.pending,
            "running": words.running,
            "done": words.done,
            "failed": words.failed,
            "expired": words.expired,
        }[state]


class TaskTable:
    """Tasks by id, the newest up to the bound, and the tasks that will be refunded."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._tasks: dict[str, Task] = {}
        self._refundable: dict[str, Task] = {}

    def add(self, task: Task) -> None:
        self._tasks[task.id] = task
        if len(self._tasks) > self._bound:
            del self._tasks[next(iter(self._tasks))]
        if task.is_refunded:
            self._refundable[task.id] = task

    def find(self, task_id: str) -> Task | None:
        return self._tasks.get(task_id)

    def take_refundable(self) -> list[Task]:
        """The failed tasks that have ended since the last call."""
        ended = [task for task in self._refundable.values() if task.state() in ("failed", "expired")]
        for task in ended:
            del self._refundable[task.id]
        return ended

    def clear(self) -> None:
        self._tasks.clear()
        self._refundable.clear()
