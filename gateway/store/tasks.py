"""Task records: what was promised to whom, and how it ended; what was sent for it is in the ledger.

Written by `gateway.tasks` when a task is opened and when it ends. Never holds a prompt, a picture or a key.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from gateway.store import names
from gateway.store.client import StoreClient

TTL_S = 86_400
"""Seconds that a record outlives its last change."""


class TaskStore:
    """The task records in one store."""

    def __init__(self, redis: StoreClient) -> None:
        self._redis = redis

    async def open(self, task_id: str, key_id: str, facts: dict[str, Any]) -> None:
        """Promise a task. Raises StoreUnavailable, and then nothing may be sent for it."""
        await self._set(
            task_id,
            {"key_id": key_id, "status": "processing", "created_at": str(int(time.time()))}
            | {name: _text(value) for name, value in facts.items()},
        )

    async def end(self, task_id: str, status: str, facts: dict[str, Any]) -> None:
        """Write down how a task ended. Raises StoreUnavailable."""
        await self._set(
            task_id,
            {"status": status, "completed_at": str(int(time.time()))}
            | {name: _text(value) for name, value in facts.items()},
        )

    async def _set(self, task_id: str, fields: dict[str, str]) -> None:
        name = names.TASK(task_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(name, items=[item for pair in fields.items() for item in pair])
            pipe.expire(name, TTL_S)
            await pipe.execute()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
