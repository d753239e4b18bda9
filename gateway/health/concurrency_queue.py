"""The door to the targets: a call enters while there is a place, and otherwise waits in order, fair by key.

Used by `dispatch`, before anything is sent. The order is this process's; the places are everybody's, in `health`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gateway import errors
from gateway.catalogue.catalogue import Target
from gateway.health.condition import Block
from gateway.health.health import Health, Permit
from gateway.health.target_store import CallReport

TICK_S = 0.25
"""Seconds between two looks at places that another process may have given back."""

_LEFT_EVERY_S = 1.0

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items in the order in which they are to be served: the keys take turns, each with its oldest first."""

    def __init__(self, most: int, most_per_key: int) -> None:
        self._most = most
        self._most_per_key = most_per_key
        # The keys in the order of their turns: a dict keeps it.
        self._lines: dict[str, deque[T]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values())) if self._lines else 0

    def __iter__(self) -> Iterator[T]:
        lines = list(self._lines.values())
        for place in range(max(map(len, lines), default=0)):
            yield from [line[place] for line in lines if place < len(line)]

    def add(self, key: str, item: T) -> bool:
        """Whether there was room for it."""
        if len(self) >= self._most or len(self._lines.get(key, ())) >= self._most_per_key:
            return False
        self._lines.setdefault(key, deque()).append(item)
        return True

    def serve(self, key: str, item: T) -> None:
        """Take an item out because it was served: the next turn is another key's."""
        line = self._lines.pop(key)
        line.remove(item)
        if line:
            self._lines[key] = line

    def leave(self, key: str, item: T) -> None:
        """Take an item out that waits no longer; its key's turn stays."""
        line = self._lines.get(key, deque())
        if item in line:
            line.remove(item)
            if not line:
                del self._lines[key]


async def _stays() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class WaitLimit:
    """Whose request waits, until when on the loop's clock, and what tells that its caller has left."""

    key: str = ""
    until: float = float("inf")
    has_left: Callable[[], Awaitable[bool]] = _stays


@dataclass(slots=True, eq=False)
class _Waiter:
    key: str
    targets: Sequence[Target]
    served: asyncio.Future[Permit | Block] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ConcurrencyQueue:
    """One process's. `most` and `most_per_key` bound how many wait."""

    def __init__(self, health: Health, most: int, most_per_key: int, *, tick_s: float = TICK_S) -> None:
        self._health = health
        self._queue: FairQueue[_Waiter] = FairQueue(most, most_per_key)
        self._tick_s = tick_s
        self._freed = asyncio.Event()
        self._letting: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def enter(self, target: Target) -> Permit | Block:
        """A place for one call, unless others wait for one there."""
        if len(self._queue) and any(target.label == one.label for waiter in self._queue for one in waiter.targets):
            return Block("full")
        return await self._health.take(target)

    async def wait(self, targets: Sequence[Target], patience: WaitLimit) -> Permit | Block | None:
        """The next place at one of the targets; the Bar when none will let anybody in soon; None: the time is up, or
        the caller has left. Raises QueueFull."""
        waiter = _Waiter(patience.key, targets)
        if not self._queue.add(patience.key, waiter):
            raise errors.QueueFull("Too many requests wait for a place at the upstreams.", retry_after=5)
        if self._letting is None or self._letting.done():
            self._letting = asyncio.create_task(self._let_in())
        self._freed.set()
        try:
            return await self._await(waiter, patience)
        finally:
            self._queue.leave(patience.key, waiter)

    def finish(self, permit: Permit, report: CallReport) -> None:
        """Give a place back with what its call taught; who waits first gets it."""
        self._health.finish(permit, report)
        self._freed.set()

    async def _await(self, waiter: _Waiter, patience: WaitLimit) -> Permit | Block | None:
        loop = asyncio.get_running_loop()
        try:
            while (left := patience.until - loop.time()) > 0:
                await asyncio.wait({waiter.served}, timeout=min(left, _LEFT_EVERY_S))
                if waiter.served.done():
                    return waiter.served.result()
                if await patience.has_left():
                    break
        except asyncio.CancelledError:
            self._take_back(waiter)
            raise
        self._take_back(waiter)
        return None

    def _take_back(self, waiter: _Waiter) -> None:
        if not waiter.served.cancel() and isinstance(found := waiter.served.result(), Permit):
            self.finish(found, CallReport("none"))

    async def _let_in(self) -> None:
        while len(self._queue):
            self._freed.clear()
            while await self._let_one_in():
                pass
            try:
                async with asyncio.timeout(self._tick_s):
                    await self._freed.wait()
            except TimeoutError:
                continue

    async def _let_one_in(self) -> bool:
        """Whether somebody got a place, so that the order is another one now."""
        shut: dict[str, Block] = {}
        for waiter in list(self._queue):
            for target in waiter.targets:
                if target.label in shut or waiter.served.done():
                    continue
                found = await self._health.take(target)
                if isinstance(found, Block):
                    shut[target.label] = found
                elif self._hand_over(found, waiter):
                    return True
            bars = [shut[target.label] for target in waiter.targets if target.label in shut]
            if len(bars) == len(waiter.targets) and not any(bar.is_passing for bar in bars):
                self._answer(waiter, bars[0])
        return False

    def _hand_over(self, permit: Permit, waiter: _Waiter) -> bool:
        if self._answer(waiter, permit):
            return True
        # It left while the place was asked for.
        self._health.finish(permit, CallReport("none"))
        return False

    def _answer(self, waiter: _Waiter, found: Permit | Block) -> bool:
        if waiter.served.done():
            return False
        waiter.served.set_result(found)
        self._queue.serve(waiter.key, waiter)
        return True
