"""Task records in Redis, from which any process can answer: the request, the images by slot, the end.

A record is opened before anything is sent, and ends once; only a known end replaces a guess. The ledger has the calls.
A record never holds a caller's prompt, a picture or a key's secret.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from gateway.state.webhook_queue import ROOM
from gateway.store import names
from gateway.store.client import Command, CommandQueue, StoreClient
from gateway.store.lua import SHARED, join_scripts, read_sources

Status = Literal["pending", "processing", "succeeded", "failed", "canceled", "expired"]
ResponseFormat = Literal["b64_json", "url"]

_NO_NAMES: set[str] = set()


class Lean(BaseModel):
    """A frozen record of little memory, for thousands at once. Its `model_fields_set` is always empty."""

    # A replica of an older version must be able to read a newer version's record.
    model_config = ConfigDict(frozen=True, extra="ignore")

    @override
    def model_post_init(self, context: Any, /) -> None:
        # A set of the given names would take 700 bytes in each record. A copy of a record copies this empty one.
        object.__setattr__(self, "__pydantic_fields_set__", _NO_NAMES)


class Promise(Lean):
    """The request, as far as an answer shows it. `size` is `auto` or the requested one, `created` is in unix seconds.

    `response_format` is the form of the answers at the task's own address.
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
    """One image: its artifact, its upstream, and the parameters of its call.

    `made` is the upstream's size if the delivered size is another, else None. `created` and `expires` are unix seconds.
    `usage` is the whole call's, and only the image of the call's last slot has it. `usd` is in µ$, None where no price
    is known.
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
        """The delivered size."""
        return f"{self.width}x{self.height}"


class Hook(Lean):
    """A caller's address for the webhook of a task's end. `id` is the message's, `base_url` is the start of links."""

    id: str
    key: str
    url: str
    base_url: str


class End(Lean):
    """The end of a task. `spent` is in µ$, None where a price is unknown; `error` is a PublicError's facts.

    `completed` is unix seconds. `is_unstarted` means that its worker died before an upstream accepted a call, so that
    waiting requests may begin again. `is_guess` means that the outcome of a call is unknown: an end that is no guess,
    if it arrives, replaces this end.
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
    """One task: the request, the images by slot, and the end, which is None while it runs."""

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
        """Return the status at an instant in unix seconds. A success with an expired image is `expired`.

        A task without an end is `processing`: only the ledger knows if anything was sent.
        """
        if self.end is None:
            return "processing"
        if self.end.status == "succeeded" and any(each.expires <= now for each in self.images):
            return "expired"
        return self.end.status


TTL_S = 86_400 + 3600
"""Seconds from a record's last change to its expiry: a day, and an hour for answers that are being sent."""

MOST_HOOKS = 10
"""The most webhook addresses of one task."""

_STREAM = 10_000
_LISTED = 10_000

_OWN = read_sources("tasks")
# A task's end queues its webhooks in the same step.
_BOTH = {SHARED: f"{read_sources('webhooks')[SHARED]}\n{_OWN[SHARED]}"}
SCRIPTS = join_scripts(_OWN | _BOTH, "state.task_store", "state.webhook_queue")


class TaskStore:
    """The task records in one store. Every method may raise StoreUnavailable.

    A vendor's `revised_prompt` counts as a prompt: it is stored only where the operator allows prompts.
    `webhook_queued` is set when this process queues a webhook; `room` bounds the queued webhooks of one key.
    """

    def __init__(
        self, redis: StoreClient, command_queue: CommandQueue, *, keeps_prompts: bool = False, room: int = ROOM
    ) -> None:
        self._redis = redis
        self._command_queue = command_queue
        self._room = str(room)
        self.webhook_queued = asyncio.Event()
        self._hidden = set() if keeps_prompts else {"revised_prompt"}

    async def open(self, record: TaskRecord, hook: Hook | None = None) -> None:
        """Store a new task, and its caller's webhook address. If this raises, nothing may be sent for the task."""
        await self._command_queue.run_chain(self.make_open(record, hook))

    def make_open(self, record: TaskRecord, hook: Hook | None = None) -> Command[list[str]]:
        """The command of `open`. The next one of its chain runs once the task is stored."""
        promise = record.promise.model_dump_json(exclude_defaults=True)
        words = (promise, record.promise.key, str(int(time.time())), str(_LISTED))
        address = () if hook is None else self._encode_hook(hook)
        return Command(SCRIPTS["open"], (record.id, str(TTL_S), *words, *address), list, "done")

    async def add(self, task_id: str, images: Sequence[TaskImage]) -> None:
        """Add stored images to a task, and announce the change to all processes. The first image of a slot stands."""
        await self._command_queue.run(SCRIPTS["add"], task_id, str(TTL_S), str(_STREAM), *self._encode(images))

    async def subscribe(self, task_id: str, hook: Hook) -> bool:
        """Add an address for a webhook of the task's end; if the task has ended, queue the webhook now.

        The same address is not added twice. Returns False, and adds nothing, if the task has MOST_HOOKS other ones.
        """
        answer = await self._command_queue.run(SCRIPTS["subscribe"], task_id, str(TTL_S), *self._encode_hook(hook))
        if answer[0] == "done" and answer[1] != "0":
            self.webhook_queued.set()
        return answer[0] == "done"

    async def end(self, record: TaskRecord) -> TaskRecord:
        """Store a task's end, queue its webhooks and announce the change in one step; return the task as it stands.

        The first end stands, except that a known end replaces a guess. Raises ValueError for a record without an end.
        """
        return cast(TaskRecord, (await self._command_queue.run_chain(self.make_end(record)))[0])

    def make_end(
        self, record: TaskRecord, note: Callable[[TaskRecord], object] = lambda _: None
    ) -> Command[TaskRecord]:
        """The command of `end`. It calls `note` with the task as it stands."""
        if record.end is None:
            raise ValueError("the task has no end yet")
        promise = record.promise.model_dump_json(exclude_defaults=True)
        ended = record.end.model_dump_json(exclude_defaults=True)
        field = "guess" if record.end.is_guess else "end"
        words = (promise, field, ended, self._room, *self._encode(record.images))
        return Command(
            SCRIPTS["finish"], (record.id, str(TTL_S), str(_STREAM), *words), partial(self._read_end, record, note)
        )

    def _read_end(self, record: TaskRecord, note: Callable[[TaskRecord], object], answer: list[str]) -> TaskRecord:
        _, queued, *stands = answer
        if queued != "0":
            self.webhook_queued.set()
        found = _read(record.id, dict(zip(stands[::2], stands[1::2], strict=True))) or record
        note(found)
        return found

    async def find_unended(self, tasks: Sequence[str]) -> set[str]:
        """Return those of `tasks` without a stored end or guess."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for task_id in tasks:
                pipe.hmget(names.TASK(task_id), "end", "guess")
            rows = await pipe.execute()
        return {task_id for task_id, row in zip(tasks, rows, strict=True) if not any(row)}

    async def read(self, task_id: str) -> TaskRecord | None:
        return _read(task_id, await cast(Any, self._redis.hgetall(names.TASK(task_id))))

    async def list(self, key_id: str, after: str | None, most: int) -> tuple[list[TaskRecord], bool]:
        """Return a key's tasks after the task `after`, newest first, no more than `most`; and True if more follow.

        None begins with the newest. An unknown `after` returns no task. Expired records are left out.
        """
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
        """Return the stream's position of the last announcement, `0-0` if there is none."""
        entries = await cast(Any, self._redis.xrevrange(names.CHANGED(), count=1))
        return entries[0][0] if entries else "0-0"

    async def announce_callback(self, call_id: str) -> None:
        """Announce to all processes that the vendor called back for a paid call."""
        await cast(Any, self._redis.xadd(names.CHANGED(), {"call": call_id}, maxlen=_STREAM, approximate=True))

    def _encode_hook(self, hook: Hook) -> tuple[str, ...]:
        """Return an address, and the bounds on addresses and messages, as the scripts take them."""
        return hook.model_dump_json(), str(MOST_HOOKS), self._room

    def _encode(self, images: Sequence[TaskImage]) -> Iterator[str]:
        """Yield images as the scripts take them: slot, text."""
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
