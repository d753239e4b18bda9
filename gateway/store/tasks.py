"""Task records in Redis: opened before anything is sent, grown as images are stored, ended once.

Written by `gateway.tasks`, read by whoever waits or asks. What was sent and what it cost is in the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

from gateway.store import names
from gateway.store.client import StoreClient
from gateway.store.deliveries import ROOM, SUBSCRIBE, TELL
from gateway.store.taskrecord import End, Hook, Made, Promise, TaskRecord

TTL_S = 86_400 + 3600
"""Seconds that a record outlives its last change: a day, and the time in which an answer that began may end."""

MOST_HOOKS = 10
"""Addresses that are told of one task."""

_STREAM = 10_000
_LISTED = 10_000


class TaskStore:
    """The task records in one store. Every method may raise StoreUnavailable.

    A vendor's `revised_prompt` is as good as the prompt: it is kept only where the operator lets prompts be kept.
    `told` is set when something was queued for callers' addresses, of which `room` may wait for one key.
    """

    def __init__(self, redis: StoreClient, *, keeps_prompts: bool = False, room: int = ROOM) -> None:
        self._redis = redis
        self._room = str(room)
        self.told = asyncio.Event()
        self._hidden = set() if keeps_prompts else {"revised_prompt"}

    async def open(self, record: TaskRecord, hook: Hook | None = None) -> None:
        """Promise a task, and to tell its caller's address of its end. When it raises, nothing may be sent for it."""
        name, own = names.TASK(record.id), names.TASKS_OF(record.promise.key)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(name, "promise", record.promise.model_dump_json(exclude_defaults=True))
            if hook is not None:
                # Whoever joined in the moment before this may have added one already.
                pipe.eval(SUBSCRIBE.text, 1, name, *self._subscription(record.id, hook))
            pipe.expire(name, TTL_S)
            pipe.zadd(own, {record.id: time.time()})
            pipe.zremrangebyscore(own, "-inf", time.time() - TTL_S)
            pipe.zremrangebyrank(own, 0, -_LISTED - 1)
            pipe.expire(own, TTL_S)
            await pipe.execute()

    async def add(self, task_id: str, images: Sequence[Made]) -> None:
        """Write down images that are stored, and tell who waits."""
        async with self._redis.pipeline(transaction=True) as pipe:
            self._put(pipe, task_id, images)
            self._announce(pipe, task_id)
            await pipe.execute()

    async def subscribe(self, task_id: str, hook: Hook) -> bool:
        """Tell one more address of a task's end, at once if it has ended; False if there are too many already."""
        words = self._subscription(task_id, hook)
        answer = await cast(Any, self._redis.eval(SUBSCRIBE.text, 1, names.TASK(task_id), *words))
        if answer[0] == "done" and answer[1] != "0":
            self.told.set()
        return answer[0] == "done"

    async def end(self, record: TaskRecord) -> TaskRecord:
        """Write down how a task ended, and tell who waits; answers the task as it stands then.

        The first end stands, and a guess only until somebody knows. What its caller's addresses are to be told is
        queued in the same step.
        """
        if record.end is None:
            raise ValueError("a task that has no end yet")
        name = names.TASK(record.id)
        async with self._redis.pipeline(transaction=True) as pipe:
            # A task whose worker died before its promise was written is known by its end all the same.
            pipe.hsetnx(name, "promise", record.promise.model_dump_json(exclude_defaults=True))
            field = "guess" if record.end.is_guess else "end"
            pipe.hsetnx(name, field, record.end.model_dump_json(exclude_defaults=True))
            self._put(pipe, record.id, record.images)
            self._announce(pipe, record.id)
            pipe.eval(TELL.text, 1, name, *("", record.id, self._room))
            pipe.hgetall(name)
            answers = await pipe.execute()
        if answers[-2]:
            self.told.set()
        return _read(record.id, answers[-1]) or record

    async def find_unended(self, tasks: Sequence[str]) -> set[str]:
        """Those of these tasks whose end was not written down."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for task_id in tasks:
                pipe.hmget(names.TASK(task_id), "end", "guess")
            rows = await pipe.execute()
        return {task_id for task_id, row in zip(tasks, rows, strict=True) if not any(row)}

    async def read(self, task_id: str) -> TaskRecord | None:
        return _read(task_id, await cast(Any, self._redis.hgetall(names.TASK(task_id))))

    async def list(self, key_id: str, after: str | None, most: int) -> tuple[list[TaskRecord], bool]:
        """A key's tasks, the newest first, from the one after `after`; and whether there are more."""
        name, start = names.TASKS_OF(key_id), 0
        if after is not None:
            rank = await cast(Any, self._redis.zrevrank(name, after))
            if rank is None:
                return [], False
            start = rank + 1
        ids = await cast(Any, self._redis.zrevrange(name, start, start + most))
        async with self._redis.pipeline(transaction=False) as pipe:
            for task_id in ids[:most]:
                pipe.hgetall(names.TASK(task_id))
            rows = await pipe.execute()
        found = (_read(task_id, row) for task_id, row in zip(ids, rows, strict=False))
        return [record for record in found if record is not None], len(ids) > most

    async def last_change(self) -> str:
        """Where the announcements stand now."""
        entries = await cast(Any, self._redis.xrevrange(names.CHANGED(), count=1))
        return entries[0][0] if entries else "0-0"

    async def hint(self, call_id: str) -> None:
        """Tell whoever follows a paid call that its vendor called back."""
        await cast(Any, self._redis.xadd(names.CHANGED(), {"call": call_id}, maxlen=_STREAM, approximate=True))

    def _subscription(self, task_id: str, hook: Hook) -> tuple[str, ...]:
        return ("", task_id, hook.model_dump_json(), str(MOST_HOOKS), self._room, str(TTL_S))

    def _put(self, pipe: Any, task_id: str, images: Sequence[Made]) -> None:
        name = names.TASK(task_id)
        for made in images:
            # Whoever brought a picture first may have handed it out.
            pipe.hsetnx(name, f"image:{made.slot}", made.model_dump_json(exclude_defaults=True, exclude=self._hidden))
        pipe.expire(name, TTL_S)

    def _announce(self, pipe: Any, task_id: str) -> None:
        pipe.xadd(names.CHANGED(), {"task": task_id}, maxlen=_STREAM, approximate=True)


def _read(task_id: str, row: dict[str, str]) -> TaskRecord | None:
    if "promise" not in row:
        return None
    end = row.get("end") or row.get("guess")
    images = [Made.model_validate_json(text) for field, text in row.items() if field.startswith("image:")]
    return TaskRecord(
        id=task_id,
        promise=Promise.model_validate_json(row["promise"]),
        images=tuple(sorted(images, key=lambda each: each.slot)),
        end=End.model_validate_json(end) if end else None,
    )
