"""The concurrency queue before the targets: calls without a permit wait, the keys take turns, a key's oldest is first.

The order is this process's; all processes share the permits. Nothing is sent before a call has its permit.
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
from gateway.health.health import CallReport, Health, Permit

TICK_S = 0.25
"""Seconds between two tries to get a permit that another process may have returned."""

_DISCONNECTED_EVERY_S = 1.0
"""Seconds between two looks whether a waiting caller has disconnected."""

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items in the order of service: the keys take turns, each with its oldest item first."""

    def __init__(self, most: int, most_per_key: int) -> None:
        self._most = most
        self._most_per_key = most_per_key
        # A dict keeps the keys in the order of their turns.
        self._lines: dict[str, deque[T]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values())) if self._lines else 0

    def __iter__(self) -> Iterator[T]:
        lines = list(self._lines.values())
        for place in range(max(map(len, lines), default=0)):
            yield from [line[place] for line in lines if place < len(line)]

    def add(self, key: str, item: T) -> bool:
        """Add an item; return False, and add nothing, when the queue or the key's part of it is full."""
        if len(self) >= self._most or len(self._lines.get(key, ())) >= self._most_per_key:
            return False
        self._lines.setdefault(key, deque()).append(item)
        return True

    def serve(self, key: str, item: T) -> None:
        """Remove a served item, and move its key to the end of the turns."""
        line = self._lines.pop(key)
        line.remove(item)
        if line:
            self._lines[key] = line

    def leave(self, key: str, item: T) -> None:
        """Remove an item that gives up, if it is there; its key's turn stays."""
        line = self._lines.get(key, deque())
        if item in line:
            line.remove(item)
            if not line:
                del self._lines[key]


async def _stay_connected() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class WaitLimit:
    """The key of a waiting request, the end of its wait on the loop's clock, and a test for a disconnected caller."""

    key: str = ""
    until: float = float("inf")
    has_disconnected: Callable[[], Awaitable[bool]] = _stay_connected


@dataclass(slots=True, eq=False)
class _Waiter:
    key: str
    targets: Sequence[Target]
    served: asyncio.Future[Permit | Block] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ConcurrencyQueue:
    """One process's queue. `most` and `most_per_key` bound the waiting calls; `tick_s` is the pause between tries."""

    def __init__(self, health: Health, most: int, most_per_key: int, *, tick_s: float = TICK_S) -> None:
        self._health = health
        self._queue: FairQueue[_Waiter] = FairQueue(most, most_per_key)
        self._tick_s = tick_s
        self._freed = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def enter(self, target: Target) -> Permit | Block:
        """Take a permit for one call, or return the block if there is none or other calls wait for one.

        While Redis is unavailable, there is always a permit unless other calls wait.
        """
        if self.is_awaited(target):
            return Block("full")
        return await self._health.take(target)

    def is_awaited(self, target: Target) -> bool:
        """True when calls wait for a permit at this target."""
        return bool(self._queue) and any(target.label == one.label for each in self._queue for one in each.targets)

    async def wait(self, targets: Sequence[Target], limit: WaitLimit) -> Permit | Block | None:
        """Wait for a permit at one of the targets, or return a block when every target has a long one.

        Returns None when the time is up or the caller has disconnected. Raises QueueFull.
        """
        waiter = _Waiter(limit.key, targets)
        if not self._queue.add(limit.key, waiter):
            raise errors.QueueFull("Too many requests wait for the upstreams.", retry_after=5)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve_all())
        self._freed.set()
        try:
            return await self._wait_for_answer(waiter, limit)
        finally:
            self._queue.leave(limit.key, waiter)

    def finish(self, permit: Permit, report: CallReport) -> None:
        """Give a permit back, with its call's report, and let the waiting calls try for a permit at once."""
        self._health.finish(permit, report)
        self._freed.set()

    async def _wait_for_answer(self, waiter: _Waiter, limit: WaitLimit) -> Permit | Block | None:
        loop = asyncio.get_running_loop()
        try:
            while (left := limit.until - loop.time()) > 0:
                await asyncio.wait({waiter.served}, timeout=min(left, _DISCONNECTED_EVERY_S))
                if waiter.served.done():
                    return waiter.served.result()
                if await limit.has_disconnected():
                    break
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise
        self._withdraw(waiter)
        return None

    def _withdraw(self, waiter: _Waiter) -> None:
        if not waiter.served.cancel() and isinstance(found := waiter.served.result(), Permit):
            self.finish(found, CallReport("none"))

    async def _serve_all(self) -> None:
        while len(self._queue):
            self._freed.clear()
            while await self._serve_one():
                pass
            try:
                async with asyncio.timeout(self._tick_s):
                    await self._freed.wait()
            except TimeoutError:
                continue

    async def _serve_one(self) -> bool:
        """Give one waiting call a permit, and calls whose targets all have a long block that block.

        Returns True if a call got a permit, which changes the order.
        """
        blocked: dict[str, Block] = {}
        for waiter in list(self._queue):
            for target in waiter.targets:
                if target.label in blocked or waiter.served.done():
                    continue
                found = await self._health.take(target)
                if isinstance(found, Block):
                    blocked[target.label] = found
                elif self._give_permit(found, waiter):
                    return True
            blocks = [blocked[target.label] for target in waiter.targets if target.label in blocked]
            if len(blocks) == len(waiter.targets) and not any(block.is_passing for block in blocks):
                self._answer(waiter, blocks[0])
        return False

    def _give_permit(self, permit: Permit, waiter: _Waiter) -> bool:
        if self._answer(waiter, permit):
            return True
        # It gave up while the store was asked.
        self._health.finish(permit, CallReport("none"))
        return False

    def _answer(self, waiter: _Waiter, found: Permit | Block) -> bool:
        if waiter.served.done():
            return False
        waiter.served.set_result(found)
        self._queue.serve(waiter.key, waiter)
        return True
