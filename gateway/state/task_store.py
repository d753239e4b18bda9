"""Task records in Redis: opened before anything is sent, grown as images are stored, ended once.

Written by `gateway.tasks.task`, read by whoever waits or asks. What was sent and what it cost is in the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from gateway.state.webhook_queue import ROOM
from gateway.store import names
from gateway.store.client import StoreClient
from gateway.store.command_queue import CommandQueue
from gateway.store.lua import SHARED, join_scripts, read_sources

Status = Literal["pending", "processing", "succeeded", "failed", "canceled", "expired"]
ResponseFormat = Literal["b64_json", "url"]


_NO_NAMES: set[str] = set()


class Lean(BaseModel):
    """A frozen record, of which thousands are held at once. Which of its fields were given, it does not tell."""

    # A replica of an older version must read a record that a newer one wrote.
    model_config = ConfigDict(frozen=True, extra="ignore")

    @override
    def model_post_init(self, context: Any, /) -> None:
        # A set of the names that were given would be 700 bytes of each record. A copy takes a copy of this one.
        object.__setattr__(self, "__pydantic_fields_set__", _NO_NAMES)


class Promise(Lean):
    """What was asked, as far as an answer tells it. `size` is `auto` or as asked, `created` is unix seconds.

    `response_format` is the form in which the task's own address answers.
    """

    key: str
    key_name: str = ""
    operation: str
    model: str = ""
    n: int
    size: str = "auto"
    dropped: tuple[str, ...] = ()
    end_user: str | None = None
    created: int
    response_format: ResponseFormat = "b64_json"


class TaskImage(Lean):
    """One image: its artifact, who made it, and how it was asked for.

    `made` is the size in which the upstream made it, where that is not its own. `usage` is its whole call's, and stands
    at its last image only. `usd` is µ$, None where no price is known.
    """

    slot: int
    artifact: str
    format: str
    width: int
    height: int
    made: str | None = None
    bytes: int
    created: int
    expires: int
    upstream: str
    revised_prompt: str | None = None
    usage: dict[str, Any] | None = None
    usd: int | None = None
    quality: str | None = None
    background: str = "opaque"
    dropped: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """The size in which it is handed out."""
        return f"{self.width}x{self.height}"


class Hook(Lean):
    """A caller's address that is told of a task's end. `id` is its message's, `base_url` is where links begin."""

    id: str
    key: str
    url: str
    base_url: str


class End(Lean):
    """How a task ended. `spent` is µ$, None where a price was not known; `error` is a PublicError's facts.

    `is_unstarted`: its worker died before anything was sent, so that whoever waits may begin anew. `is_guess`: nobody
    knows what became of a call; what it really brought, should that be heard of, takes this end's place.
    """

    status: Literal["succeeded", "failed", "canceled"]
    completed: int
    calls: int = 0
    upstreams: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    usage: dict[str, Any] | None = None
    spent: int | None = 0
    error: dict[str, Any] | None = None
    is_unstarted: bool = False
    is_guess: bool = False


class TaskRecord(Lean):
    """One task as it stands."""

    id: str
    promise: Promise
    images: tuple[TaskImage, ...] = ()
    end: End | None = None

    def with_image(self, made: TaskImage) -> TaskRecord:
        others = (each for each in self.images if each.slot != made.slot)
        return self.model_copy(update={"images": tuple(sorted((*others, made), key=lambda each: each.slot))})

    def with_end(self, end: End) -> TaskRecord:
        return self.model_copy(update={"end": end})

    def status_at(self, now: float) -> Status:
        """How it stands at an instant in unix seconds; whether a running one was sent is the ledger's to know."""
        if self.end is None:
            return "processing"
        if self.end.status == "succeeded" and any(each.expires <= now for each in self.images):
            return "expired"
        return self.end.status


TTL_S = 86_400 + 3600
"""Seconds that a record outlives its last change: a day, and the time in which an answer that began may end."""

MOST_HOOKS = 10
"""Addresses that are told of one task."""

_STREAM = 10_000
_LISTED = 10_000

_OWN = read_sources("tasks")
# A task's end queues what its caller's addresses are to be told, in the same step.
_BOTH = {SHARED: f"{read_sources('webhooks')[SHARED]}\n{_OWN[SHARED]}"}
SCRIPTS = join_scripts(_OWN | _BOTH, "state.task_store", "state.webhook_queue")


class TaskStore:
    """The task records in one store. Every method may raise StoreUnavailable.

    A vendor's `revised_prompt` is as good as the prompt: it is kept only where the operator lets prompts be kept.
    `told` is set when something was queued for callers' addresses, of which `room` may wait for one key.
    """

    def __init__(
        self, redis: StoreClient, command_queue: CommandQueue, *, keeps_prompts: bool = False, room: int = ROOM
    ) -> None:
        self._redis = redis
        self._command_queue = command_queue
        self._room = str(room)
        self.told = asyncio.Event()
        self._hidden = set() if keeps_prompts else {"revised_prompt"}

    async def open(self, record: TaskRecord, hook: Hook | None = None) -> None:
        """Promise a task, and to tell its caller's address of its end. When it raises, nothing may be sent for it."""
        promise = record.promise.model_dump_json(exclude_defaults=True)
        words = (promise, record.promise.key, str(int(time.time())), str(_LISTED))
        told = () if hook is None else self._name(hook)
        await self._command_queue.run(SCRIPTS["open"], record.id, str(TTL_S), *words, *told)

    async def add(self, task_id: str, images: Sequence[TaskImage]) -> None:
        """Write down images that are stored, and tell who waits."""
        await self._command_queue.run(SCRIPTS["add"], task_id, str(TTL_S), str(_STREAM), *self._say(images))

    async def subscribe(self, task_id: str, hook: Hook) -> bool:
        """Tell one more address of a task's end, at once if it has ended; False if there are too many already."""
        answer = await self._command_queue.run(SCRIPTS["subscribe"], task_id, str(TTL_S), *self._name(hook))
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
        promise = record.promise.model_dump_json(exclude_defaults=True)
        ended = record.end.model_dump_json(exclude_defaults=True)
        field = "guess" if record.end.is_guess else "end"
        words = (promise, field, ended, self._room, *self._say(record.images))
        _, queued, *stands = await self._command_queue.run(
            SCRIPTS["finish"], record.id, str(TTL_S), str(_STREAM), *words
        )
        if queued != "0":
            self.told.set()
        return _read(record.id, dict(zip(stands[::2], stands[1::2], strict=True))) or record

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

    def _name(self, hook: Hook) -> tuple[str, ...]:
        """An address as the scripts take it."""
        return hook.model_dump_json(), str(MOST_HOOKS), self._room

    def _say(self, images: Sequence[TaskImage]) -> Iterator[str]:
        """Images as the scripts take them: slot, text."""
        for made in images:
            yield str(made.slot)
            yield made.model_dump_json(exclude_defaults=True, exclude=self._hidden)


def _read(task_id: str, row: dict[str, str]) -> TaskRecord | None:
    if "promise" not in row:
        return None
    end = row.get("end") or row.get("guess")
    images = [TaskImage.model_validate_json(text) for field, text in row.items() if field.startswith("image:")]
    return TaskRecord(
        id=task_id,
        promise=Promise.model_validate_json(row["promise"]),
        images=tuple(sorted(images, key=lambda each: each.slot)),
        end=End.model_validate_json(end) if end else None,
    )
