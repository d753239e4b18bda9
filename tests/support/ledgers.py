"""What the tests of the ledger share: ids, a clock that is set by hand, and a look at all that a store holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

import redis as blocking

from gateway.money.ledger import Ledger, StoreEpoch
from gateway.money.ledger_results import Opening
from gateway.store.client import CommandQueue
from gateway.store.lua import Script, join_scripts, read_sources
from gateway.store.windows import Calendar

ZONE = "Europe/Berlin"
FINGERPRINT = "f" * 64
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

PROFILE = "TEST_PROFILE"
MUTANT = "TEST_LEDGER_MUTANT"
DRAWN = "drawn"

# How a careless hand would have written it: file, what stands there, what would.
MUTANTS = {
    "no phase": (
        "post",
        "if known.state == 'posted' then return {'posted', digits(known.usd), digits(known.images)} end",
        "",
    ),
    "release twice": ("nack", "if known.state ~= 'held' then return {known.state} end", ""),
    "no fence": ("lib", "if record.fence ~= digits(fence) then", "if false then"),
    "float money": ("lib", "entry[#entry + 1] = digits(delta)", "entry[#entry + 1] = string.format('%.6g', delta)"),
    "limit off by one": ("lib", "taken + needs[unit] > ceiling", "taken + needs[unit] >= ceiling"),
    "held not counted": ("lib", "local taken = (tonumber(sums[1]) or 0) +", "local taken ="),
    "guess kept": ("post", "-known.usd, -known.images", "0, 0"),
    "wrong nack believed": ("lib", "(call.state == 'void' and found.by == 'free')", "false"),
    "slot given twice": ("mark_sent", "if record.slots[slot].by ~= 'free' then return {'taken'} end", ""),
    "running for ever": ("close", "count_running(record, record.worker, -1)", ""),
    "unknown price let in": ("lib", "return {'unpriced', limit.name, scope.kind}", "return nil"),
    "hold listed for ever": ("lib", "redis.call('ZREM', NAME.open, record.id)", ""),
    "any store believed": ("lib", "if string.match(epoch, '^%S*') ~= memory.epoch then", "if false then"),
    "loss covered up": ("renew", "if lost then return lost end", ""),
    "lease moves back": (
        "renew",
        "math.max(now + lease, tonumber(redis.call('ZSCORE', NAME.leases, worker) or '0'))",
        "now + lease",
    ),
    "total always believed": (
        "recount",
        "if total and (total == by_tasks or total == by_journal) then",
        "if total then",
    ),
    "repair not written": (
        "recount",
        "entry[#entry + 1], entry[#entry + 2] = field, digits(value)",
        "entry = {'x', 'y'}",
    ),
    "no fingerprint": (
        "lib",
        "return NAME.claims .. ':' .. key .. ':' .. fingerprint",
        "return NAME.claims .. ':' .. key",
    ),
    "two claimants": ("open", "if waiter == '' or not is_living", "if waiter ~= task or not is_living"),
    "other request replayed": ("open", "if record.fingerprint ~= fingerprint then return {'mismatch'} end", ""),
    "picture given twice": ("end_wait", "if how == 'handed' and", "if false and"),
    "keyed and unkeyed meet": ("open", "elseif form == 'answer' then", "end if form == 'answer' then"),
    "closed answer claimable for ever": ("open", "if last and last <= now then return false end", ""),
    "claim ends with its seconds": ("open", ", 'claimable_until', ''", ""),
    "nobody ever leaves": ("end_wait", "'waiter', '', 'left'", "'left'"),
    "base forgotten": ("fold", "add_base('folded:', record, amounts)", ""),
}


def is_soak() -> bool:
    """Whether the long form of the tests was asked for."""
    return os.environ.get(PROFILE) == "soak"


def is_spoiled() -> bool:
    """Whether the ledger under test is a mutant."""
    return MUTANT in os.environ


def is_drawn() -> bool:
    """Whether the mutant is one of hundreds that a program made, for each of which there are a few seconds."""
    return os.environ.get(MUTANT) == DRAWN


def make_id(prefix: str, number: int) -> str:
    """An id as this gateway makes them, the same for the same number."""
    return f"{prefix}_{number:026d}"


def at(text: str, zone: str = ZONE) -> int:
    """A local time as µs."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


def scripts() -> dict[str, Script]:
    """The ledger's scripts, spoiled when a test of the tests asks for it."""
    sources = read_sources("ledger")
    mutant = os.environ.get(MUTANT, DRAWN)
    if mutant != DRAWN:
        name, right, wrong = MUTANTS[mutant]
        assert sources[name].count(right) == 1, mutant
        sources[name] = sources[name].replace(right, wrong)
    return join_scripts(sources)


@dataclass
class Clock:
    """The time that a ledger is told, in µs."""

    now: int

    def __call__(self) -> int:
        return self.now


def make_ledger(
    url: str, clock: Clock | None, store_epoch: StoreEpoch | None = None, *, deadline_s: float = 20
) -> tuple[Ledger, CommandQueue]:
    """A ledger in Berlin, and its connection, which is to be closed."""
    # Patient: what is proved is what the scripts do, on a machine that may be busy with other tests.
    command_queue = CommandQueue(url, deadline_s=deadline_s, pause_s=0.001)
    return Ledger(command_queue, Calendar(ZONE), scripts=scripts(), now=clock, store_epoch=store_epoch), command_queue


def make_opening(number: int, *, price: int | None = 10, images: int = 1, **more: Any) -> Opening:
    """A task that wants to be opened, by key 1 on worker 1 unless told otherwise."""
    told = {"key": make_id("key", 1), "fingerprint": FINGERPRINT, "worker": make_id("worker", 1)} | more
    return Opening(task=make_id("task", number), price=price, images=images, **told)


class Store:
    """All that a server holds, as plain values."""

    def __init__(self, url: str) -> None:
        self._redis = blocking.Redis.from_url(url, decode_responses=True)

    def close(self) -> None:
        self._redis.close()

    def command(self, *words: str) -> Any:
        return self._redis.execute_command(*words)

    def fields(self, name: str) -> dict[str, str]:
        """One hash."""
        return cast(dict[str, str], self._redis.hgetall(name))

    def read(self) -> dict[str, Any]:
        """Every key with its content; a stream as its entries' fields, since their ids tell only the real time."""
        names = sorted(cast(list[str], self._redis.keys("*")))
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            _ask(pipe, name)
        rows = dict(zip(names, pipe.execute(), strict=True))
        journal = "{igw}:journal"
        if journal in rows:
            rows[journal] = [fields for _, fields in rows[journal]]
        return rows

    def window(self, scope: str, window: str) -> Mapping[str, int]:
        row = cast(Mapping[str, str], self._redis.hgetall(f"{{igw}}:window:{scope}:{window}"))
        return {field: int(value) for field, value in row.items() if int(value)}


def _ask(pipe: Any, name: str) -> None:
    kind = name.split(":")[1]
    if kind in {"window", "limits", "running", "hold", "call"}:
        pipe.hgetall(name)
    elif kind == "journal":
        pipe.xrange(name)
    elif kind in {"open", "ended", "doubtful", "leases", "claims"}:
        pipe.zrange(name, 0, -1, withscores=True)
    else:
        pipe.get(name)
