"""The log of changes: who, what, before and after; newest first, never for ever, and never a secret."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.callers.key_store import make_secret
from gateway.catalogue.document import Accounting
from gateway.history.changes import ADMIN_TOKEN, Changes
from gateway.ids import new_id
from gateway.store import names
from gateway.store.client import StoreClient
from tests.support.ledgers import DAY, SECOND, Clock, at, make_id

pytestmark = pytest.mark.quiet_store

NOW = at("2026-11-04T12:00:00")
KEY = make_id("key", 1)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def changes(redis: StoreClient, clock: Clock) -> Changes:
    return Changes(redis, Accounting(usage_days=10), now=clock)


async def test_change_is_told_as_made(changes: Changes, clock: Clock) -> None:
    """The log says who changed which fields of what, from what to what, when and from where."""
    before = {"name": "ana", "enabled": True, "models": ["a"], "expires": None}
    after = before | {"enabled": False, "models": ["a", "b"], "expires": datetime(2027, 1, 1, tzinfo=UTC)}
    written = await changes.write("operator:olga", "change", KEY, before, after, "10.0.0.7")
    assert await changes.read() == [written]
    assert (written.actor, written.action, written.subject, written.address) == (
        "operator:olga",
        "change",
        KEY,
        "10.0.0.7",
    )
    assert written.time == clock.now
    assert written.before == {"enabled": True, "models": ["a"], "expires": None}
    assert written.after == {"enabled": False, "models": ["a", "b"], "expires": "2027-01-01T00:00:00Z"}


async def test_made_and_deleted_are_whole(changes: Changes) -> None:
    """Of what was made or deleted the log holds all fields, and nothing on the other side."""
    await changes.write(ADMIN_TOKEN, "create", KEY, None, {"name": "ana", "team": None})
    await changes.write("cli:root", "delete", KEY, {"name": "ana", "team": None})
    deleted, made = await changes.read()
    assert (made.before, made.after) == (None, {"name": "ana", "team": None})
    assert (deleted.before, deleted.after) == ({"name": "ana", "team": None}, None)


async def test_no_secret_is_written(changes: Changes, redis: StoreClient) -> None:
    """Whatever the log is handed, no secret gets into it; what people may know of a key does."""
    secret, operators = make_secret(), make_secret().replace("igw_", "igo_")
    fields: dict[str, Any] = {
        "hint": secret[:8],
        "secret": "plain",
        "digest": "d" * 64,
        "note": f"was {secret}",
        "metadata": {"Token": operators, "list": [operators, "sk-proj-abcdefghijklmnop"]},
    }
    await changes.write("cli:ana", "rotate", f"key {secret}", {}, fields)
    stored = str(await redis.xrange(names.CHANGES()))
    for hidden in (secret[8:], operators[8:], "plain", "d" * 64, "abcdefghijklmnop"):
        assert hidden not in stored
    (change,) = await changes.read()
    assert change.after is not None
    assert change.after["hint"] == secret[:8]
    assert change.after["note"] == f"was {secret[:8]}***"
    assert change.subject == f"key {secret[:8]}***"


async def test_questions_choose_changes(changes: Changes, clock: Clock) -> None:
    """Changes are found by subject, by actor and by time, newest first, as many as asked for."""
    for number in range(500):
        clock.now += SECOND
        actor = "operator:rare" if number == 3 else "cli:ana"
        await changes.write(actor, "change", make_id("key", number % 2), {"n": number}, {"n": number + 1})
    assert [change.after for change in await changes.read(most=3)] == [{"n": 500}, {"n": 499}, {"n": 498}]
    (rare,) = await changes.read(actor="operator:rare")
    assert rare.after == {"n": 4}
    ones = await changes.read(subject=make_id("key", 1), most=1000)
    assert len(ones) == 250
    assert all(change.subject == make_id("key", 1) for change in ones)
    assert len(await changes.read(since=clock.now - 9 * SECOND, most=1000)) == 10


async def test_old_changes_are_over(changes: Changes, clock: Clock) -> None:
    """A change is shown for as long as daily sums are kept."""
    await changes.write("cli:ana", "create", KEY, None, {})
    clock.now += 10 * DAY + SECOND
    assert await changes.read() == []
    await changes.write("cli:ana", "delete", KEY, {}, None)
    assert len(await changes.read()) == 1


async def test_log_stays_bounded(redis: StoreClient) -> None:
    """Entries that are older than the log is kept leave the store, and of the newest it keeps so many."""
    old = {"id": new_id("log"), "at": "1", "actor": "a", "action": "b", "subject": "c", "before": "null"}
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(1, 2001):
            pipe.xadd(names.CHANGES(), old | {"after": "null", "address": ""}, id=f"{number}-0")  # type: ignore[arg-type]
        await pipe.execute()
    await Changes(redis, Accounting()).write("cli:ana", "create", KEY, None, {})
    assert await redis.xlen(names.CHANGES()) < 500
