"""The facts of a store that help to explain a fault: server, health, pauses, last errors, audit and counts.

No fact holds a secret, a prompt, a picture, a text of a vendor or an amount of money.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from redis.exceptions import ResponseError

from gateway.errors import PublicError
from gateway.history.export import show_time
from gateway.history.history import DAY, RecordFilter
from gateway.history.record import CallFact, Record
from gateway.money.ledger_results import LedgerConfused
from gateway.net.outside_text import HIDDEN, Mask
from gateway.operations.audit import audit_ledger
from gateway.operations.pauses import list_pauses
from gateway.operations.stores import Stores
from gateway.operations.upstreams import list_upstreams
from gateway.process.settings import StartRefused
from gateway.store import names
from gateway.store.client import StoreUnavailable

Facts = dict[str, Any]

ERRORS_DAYS = 7
"""The days whose errors are read, and whose answers are counted."""

MOST_ERRORS = 200
MOST_RECORDS = 5_000
LONGEST = 2_000

_SERVER_FACTS = (
    *("server_name", "valkey_version", "redis_version", "redis_mode", "os", "uptime_in_seconds", "role"),
    *("connected_clients", "connected_slaves", "used_memory", "maxmemory", "maxmemory_policy", "evicted_keys"),
    *("loading", "aof_enabled", "aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"),
    *("rejected_connections", "total_commands_processed", "instantaneous_ops_per_sec", "total_error_replies"),
)
_COUNTED = {
    "keys": (names.KEY_INDEX, "hlen"),
    "operators": (names.OPERATOR_INDEX, "hlen"),
    "open_tasks": (names.OPEN, "zcard"),
    "ended_tasks": (names.ENDED, "zcard"),
    "tasks_with_presumed_calls": (names.DOUBTFUL, "zcard"),
    "journal_entries": (names.JOURNAL, "xlen"),
    "keys_with_waiting_webhooks": (names.WEBHOOKS, "zcard"),
    "lost_webhooks": (names.WEBHOOKS_LOST, "zcard"),
    "leases": (names.LEASES, "zcard"),
}
_NEIGHBOURS = re.compile(rf"[^\s\"',;()]*{re.escape(HIDDEN)}[^\s\"',;()]*")
"""A hidden secret with the characters beside it: the mask leaves the beginning of some for people to recognise."""


async def collect_facts(stores: Stores) -> Facts:
    """Return every section by its name. A section that cannot be read has the kind of the fault in its place.

    After the first question without an answer nothing more is asked.
    """
    sections: Mapping[str, Callable[[Stores], Awaitable[Any]]] = {
        "store": _read_server,
        "upstreams": _read_upstreams,
        "errors": _read_errors,
        "ledger": _read_ledger,
        "counts": _read_counts,
    }
    found: Facts = {}
    for name, read in sections.items():
        try:
            found[name] = await read(stores)
        except StoreUnavailable as error:
            return {each: {"unread": type(error).__name__} for each in sections} | found
        except (PublicError, StartRefused, LedgerConfused, ResponseError) as error:
            # Not its text: a mistake in the catalogue may quote a key that stands in the wrong place.
            found[name] = {"unread": type(error).__name__}
    return found


def clean_facts(value: Any, mask: Mask) -> Any:
    """Return JSON values with every secret and inner address in their texts hidden, keys included.

    No part of a secret stays, and texts are cut after LONGEST characters.
    """
    if isinstance(value, str):
        return _NEIGHBOURS.sub(HIDDEN, mask.clean(value, LONGEST))
    if isinstance(value, Mapping):
        fields = cast(Mapping[Any, Any], value)
        return {clean_facts(str(name), mask): clean_facts(one, mask) for name, one in fields.items()}
    if isinstance(value, list):
        return [clean_facts(one, mask) for one in cast(list[Any], value)]
    return value


async def _read_server(stores: Stores) -> Facts:
    found = cast(Facts, await stores.redis.execute_command("INFO"))
    return {name: found[name] for name in _SERVER_FACTS if name in found}


async def _read_upstreams(stores: Stores) -> Facts:
    upstreams, pauses = await list_upstreams(stores), await list_pauses(stores)
    money = {"presumed_usd", "balance", "min_balance"}
    return {
        "credentials": [one.model_dump(mode="json", exclude=money) for one in upstreams.data],
        "pauses": [one.model_dump(mode="json") for one in pauses.data],
    }


async def _read_errors(stores: Stores) -> Facts:
    """Count the answers of the last days by status and code, and describe the last errors, newest first."""
    now = time.time_ns() // 1000
    answers: Counter[str] = Counter()
    last: list[Facts] = []
    looked_at = 0
    async for record in stores.history.stream(RecordFilter(now - ERRORS_DAYS * DAY, now + 1)):
        looked_at += 1
        answers[f"{record.status} {record.error}" if record.error else str(record.status)] += record.repeats
        if record.error and len(last) < MOST_ERRORS:
            last.append(_describe_error(record))
        if looked_at == MOST_RECORDS:
            break
    return {"days": ERRORS_DAYS, "records": looked_at, "answers": dict(answers.most_common()), "last": last}


def _describe_error(record: Record) -> Facts:
    return {
        "time": show_time(record.time),
        "record": record.id,
        "request": record.request,
        "task": record.task,
        "status": record.status,
        "error": record.error,
        "repeats": record.repeats,
        "seconds": record.seconds,
        "operation": record.operation,
        # A model that no catalogue has is a caller's own text.
        "model": record.model if record.is_model_known else None,
        "n_asked": record.n_asked,
        "n_delivered": record.n_delivered,
        "strategy": record.strategy,
        "joined": record.is_joined,
        "skipped": [one.target for one in record.passed_by],
        "calls": [_describe_call(one) for one in record.calls],
    }


def _describe_call(call: CallFact) -> Facts:
    """A call with its phase: its outcome, its duration, and the state of its money."""
    return {
        "call": call.id,
        "target": call.target,
        "outcome": call.outcome,
        "seconds": call.seconds,
        "images": call.images,
        "state": call.state,
        "is_disputed": call.disputed > 0,
    }


async def _read_ledger(stores: Stores) -> Facts:
    found = await audit_ledger(stores)
    return {
        "tasks": found.tasks,
        "sums": found.sums,
        "entries": found.entries,
        "spending_closed": found.spending_closed,
        "differences": dict(Counter(f"{one.kind} {one.name}" for one in found.differences)),
    }


async def _read_counts(stores: Stores) -> Facts:
    async with stores.redis.pipeline(transaction=False) as pipe:
        for name, command in _COUNTED.values():
            getattr(pipe, command)(name())
        pipe.dbsize()
        *numbers, entries = await pipe.execute()
    return {**dict(zip(_COUNTED, numbers, strict=True)), "entries_in_redis": entries}
