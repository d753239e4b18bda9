"""Pauses in the store: who is paused, from when, until when, and how every process learns of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from gateway.health.condition import Block, Caps
from gateway.health.health import TargetStore
from gateway.health.pauses import Pause, PauseStore
from gateway.store import names
from gateway.store.client import CommandQueue, StoreClient
from tests.conftest import Valkey

pytestmark = pytest.mark.quiet_store

SECOND = 1_000_000
LABEL = "one/more/main"
"""A credential of `one/more`, or the credential `more/main` of `one`: only the catalogue knows."""


@dataclass
class Rig:
    """The pauses of a store, and what a process sees of them at a moment: `later` seconds after the present one."""

    pauses: PauseStore
    redis: StoreClient
    command_queue: CommandQueue

    async def take(self, upstream: str, *, later: float = 0) -> Block | None:
        store = await self.at(later)
        return await store.take(LABEL, "permit_1", 15, Caps(), upstream=upstream)

    async def seen(self, *, later: float = 0) -> dict[str, float]:
        return dict((await (await self.at(later)).look_with_pauses([LABEL]))[1])

    async def at(self, later: float) -> TargetStore:
        seconds, rest = await self.redis.time()
        now = int(seconds) * SECOND + int(rest) + round(later * SECOND)
        return TargetStore(self.command_queue, now=lambda: now)


@pytest.fixture
async def rig(valkey: Valkey, redis: StoreClient) -> AsyncIterator[Rig]:
    command_queue = CommandQueue(valkey.url)
    yield Rig(PauseStore(redis), redis, command_queue)
    await command_queue.aclose()


async def test_paused_upstream_gets_no_permit(rig: Rig) -> None:
    """No call to a paused upstream gets a permit, whoever asks; every other upstream's does."""
    await rig.pauses.put("upstream:one/more", None)
    assert await rig.take("one/more") == Block("paused")
    assert await rig.take("one") is None


@pytest.mark.parametrize("scope", ["everything", "team:one"])
async def test_requests_pause_leaves_permits(rig: Rig, scope: str) -> None:
    """A pause of everything or of a team takes no permit from a request that was admitted before."""
    await rig.pauses.put(scope, None)
    assert await rig.take("one") is None


async def test_pause_ends_by_itself(rig: Rig) -> None:
    """A pause with an end applies until then, with the time that is left, and not a moment longer."""
    await rig.pauses.put("upstream:one", 60)
    blocked = await rig.take("one", later=20)
    assert blocked is not None
    assert (blocked.reason, round(blocked.wait)) == ("paused", 40)
    assert round((await rig.seen(later=20))["upstream:one"]) == 40
    assert await rig.seen(later=61) == {}
    assert await rig.take("one", later=61) is None


async def test_every_pause_is_seen_with_the_targets(rig: Rig) -> None:
    """The look at the targets brings all pauses; one without an end has no time left to tell."""
    assert await rig.seen() == {}
    for scope in ("everything", "team:design", "upstream:one"):
        await rig.pauses.put(scope, None)
    assert await rig.seen() == {"everything": 0, "team:design": 0, "upstream:one": 0}


async def test_second_pause_sets_the_end_alone(rig: Rig) -> None:
    """Whoever pauses what is paused moves its end; its beginning stays."""
    before, first = await rig.pauses.put("everything", None)
    assert before is None
    former, second = await rig.pauses.put("everything", 60)
    assert former == first
    assert second.since == first.since
    assert second.until is not None
    assert await rig.pauses.list() == [second]


async def test_removed_pause_is_returned(rig: Rig) -> None:
    """Its end gives the pause back once; what is not paused gives nothing."""
    _, made = await rig.pauses.put("team:design", None)
    assert await rig.pauses.remove("team:design") == made
    assert await rig.pauses.remove("team:design") is None
    assert await rig.seen() == {}


async def test_ended_pauses_are_no_more(rig: Rig) -> None:
    """A pause whose time is over is in no list, is nobody's former pause, and goes with the next change."""
    await rig.redis.hset(names.PAUSES(), mapping={"team:old": "1 2", "upstream:old": "1 2"})
    assert await rig.pauses.list() == []
    assert await rig.pauses.remove("team:old") is None
    before, _ = await rig.pauses.put("everything", None)
    assert before is None
    assert list(await rig.redis.hkeys(names.PAUSES())) == ["everything"]


async def test_list_begins_with_everything(rig: Rig) -> None:
    """Everything comes first, then teams and upstreams by name, each with its times."""
    for scope in ("upstream:b", "team:z", "everything", "team:a"):
        await rig.pauses.put(scope, 60)
    found = await rig.pauses.list()
    assert [one.scope for one in found] == ["everything", "team:a", "team:z", "upstream:b"]
    assert {(one.until or 0) - one.since for one in found} == {60 * SECOND}
    assert all(isinstance(one, Pause) for one in found)
