"""What a store holds, asked over a connection of its own: keys, the ledger, task records, the history."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gateway.callers.key_store import KeyStore
from gateway.catalogue.document import Accounting
from gateway.health.condition import Condition
from gateway.health.health import TargetStore
from gateway.history.history import History, RecordFilter
from gateway.history.record import Record
from gateway.history.usage import Dimension, UsageReader, UsageReport
from gateway.money.ledger import Ledger
from gateway.process.data_folder import Secrets
from gateway.state.call_store import CallRecord, CallStore
from gateway.state.task_store import TaskStore
from gateway.state.webhook_queue import WebhookQueue
from gateway.store.client import CommandQueue, connect
from gateway.store.windows import Calendar

SECRETS = Secrets(pepper=b"p" * 32, signing_key=b"s" * 32)


async def with_keys(store_url: str, work: Callable[[KeyStore], Any]) -> Any:
    redis = connect(store_url)
    try:
        return await work(KeyStore(redis, SECRETS.pepper))
    finally:
        await redis.aclose()


async def with_ledger(store_url: str, work: Callable[[Ledger], Any]) -> Any:
    command_queue = CommandQueue(store_url)
    try:
        return await work(Ledger(command_queue, Calendar()))
    finally:
        await command_queue.aclose()


async def with_deliveries(store_url: str, work: Callable[[WebhookQueue], Any]) -> Any:
    command_queue = CommandQueue(store_url)
    try:
        return await work(WebhookQueue(command_queue))
    finally:
        await command_queue.aclose()


async def set_epoch(store_url: str, epoch: str, workers: Sequence[str]) -> None:
    """Make a store that was emptied one that an operator has accepted, and in which these workers live.

    Without their leases the workers would take each other's tasks over, until each has renewed its own.
    """
    redis = connect(store_url)
    try:
        await redis.set("{igw}:epoch", epoch)
        if workers:
            end = (time.time() + 15) * 1_000_000
            await redis.zadd("{igw}:leases", dict.fromkeys(workers, end))
    finally:
        await redis.aclose()


@asynccontextmanager
async def open_tasks(store_url: str, *, keeps_prompts: bool = False) -> AsyncIterator[TaskStore]:
    """The task records of a store."""
    redis, command_queue = connect(store_url), CommandQueue(store_url)
    try:
        yield TaskStore(redis, command_queue, keeps_prompts=keeps_prompts)
    finally:
        await command_queue.aclose()
        await redis.aclose()


async def read_task(store_url: str, task_id: str) -> dict[str, Any]:
    """What is remembered of a task, in few words."""
    async with open_tasks(store_url) as store:
        record = await store.read(task_id)
    assert record is not None, f"no record of {task_id}"
    end = record.end.model_dump() if record.end else {}
    images = [each.artifact for each in record.images]
    return {"status": "processing", **record.promise.model_dump(), **end, "id": task_id, "images": images}


async def read_tasks(store_url: str) -> list[dict[str, Any]]:
    redis = connect(store_url)
    try:
        names = [name async for name in redis.scan_iter("{igw}:task:*", _type="hash")]
    finally:
        await redis.aclose()
    return [await read_task(store_url, name.rpartition(":")[2]) for name in sorted(names)]


async def read_records(store_url: str, **wanted: Any) -> list[Record]:
    """The records that fit, oldest first."""
    redis, command_queue = connect(store_url), CommandQueue(store_url)
    try:
        history = History(command_queue, redis, Accounting())
        return [record async for record in history.stream(RecordFilter(0, 2**62, **wanted))][::-1]
    finally:
        await command_queue.aclose()
        await redis.aclose()


async def read_usage(store_url: str, *by: Dimension) -> UsageReport:
    """The sums of all days."""
    redis = connect(store_url)
    try:
        return await UsageReader(redis, Accounting()).sum(0, 2**62, by)
    finally:
        await redis.aclose()


async def read_conditions(store_url: str, labels: list[str]) -> dict[str, Condition]:
    """How targets are."""
    command_queue = CommandQueue(store_url)
    try:
        return await TargetStore(command_queue).look(labels)
    finally:
        await command_queue.aclose()


async def reset_conditions(store_url: str, labels: list[str]) -> None:
    """Use targets again, whatever was known of them."""
    command_queue = CommandQueue(store_url)
    try:
        for label in labels:
            await TargetStore(command_queue).reset(label)
    finally:
        await command_queue.aclose()


async def read_everything(store_url: str) -> str:
    """All that the store holds, as one text in which to look for what must not be there."""
    redis = connect(store_url)
    readers = {
        "hash": redis.hgetall,
        "string": redis.get,
        "stream": redis.xrange,
        "zset": lambda name: redis.zrange(name, 0, -1),
        "set": redis.smembers,
        # It expired after the server had named it.
        "none": redis.get,
    }
    try:
        found = [f"{name}{await readers[await redis.type(name)](name)}" async for name in redis.scan_iter("*")]
        return "\n".join(found)
    finally:
        await redis.aclose()


async def keep_error(store_url: str, task: str, call: str, facts: dict[str, Any]) -> None:
    """Write down why a call brought nothing."""
    command_queue = CommandQueue(store_url)
    try:
        await CallStore(command_queue).keep_error(task, call, facts)
    finally:
        await command_queue.aclose()


async def read_calls(store_url: str, calls: Sequence[str]) -> list[CallRecord]:
    """What other processes know of some calls."""
    command_queue = CommandQueue(store_url)
    try:
        return list((await CallStore(command_queue).read(calls)).values())
    finally:
        await command_queue.aclose()
