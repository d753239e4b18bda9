"""What all processes know of a target: its breaker, its cool-down, its places and what its calls may have cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import pytest
from redis import Redis

from gateway.catalogue.upstream import HealthRules
from gateway.health.condition import Block, Caps
from gateway.health.health import CallReport, Result, TargetStore
from gateway.ids import new_id
from gateway.store.client import CommandQueue
from tests.conftest import Valkey

pytestmark = pytest.mark.quiet_store

LABEL = "anyfast/main"
RULES = HealthRules()
SECOND = 1_000_000
LEASE_S = 15.0
DAY_MS = 86_400_000


class Rig:
    """The store with a clock that is set by hand; `one` and `other` are two processes."""

    def __init__(self, command_queue: CommandQueue) -> None:
        self.now = 1_800_000_000 * SECOND
        self.one = TargetStore(command_queue, now=lambda: self.now)
        self.other = TargetStore(command_queue, now=lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    async def take(self, caps: Caps | None = None, permit: str = "") -> str | Block:
        """A permit's id, or why there is none."""
        permit = permit or new_id("permit")
        return await self.one.take(LABEL, permit, LEASE_S, caps or Caps()) or permit

    async def call(self, result: Result, **facts: object) -> str:
        """One call that ends like this; what became of the breaker."""
        permit = await self.take()
        assert isinstance(permit, str)
        change = await self.one.finish(LABEL, permit, CallReport(result, **facts), RULES)  # type: ignore[arg-type]
        return change.breaker

    async def breaker(self) -> str:
        return (await self.other.look([LABEL]))[LABEL].breaker


@pytest.fixture
async def rig(valkey: Valkey) -> AsyncIterator[Rig]:
    command_queue = CommandQueue(valkey.url)
    yield Rig(command_queue)
    await command_queue.aclose()


async def test_three_unknown_outcomes_open(rig: Rig) -> None:
    """The third unknown outcome among the last calls opens the breaker for everybody, whatever came between."""
    results: list[Result] = ["unknown", "good", "unknown", "none", "good"]
    assert [await rig.call(one) for one in results] == [""] * 5
    assert await rig.call("unknown") == "opened"
    assert await rig.breaker() == "open"
    assert await rig.take() == Block("circuit_open", RULES.open)


async def test_five_refusals_open(rig: Rig) -> None:
    """So do five refusals; older ones than the last twenty calls, or ten minutes, are forgotten."""
    assert [await rig.call("refusal") for _ in range(4)] == [""] * 4
    rig.wait(RULES.window + 1)
    assert [await rig.call("refusal") for _ in range(4)] == [""] * 4
    assert [await rig.call("good") for _ in range(19)] == [""] * 19
    assert [await rig.call("refusal") for _ in range(4)] == [""] * 4
    assert await rig.call("refusal") == "opened"


async def test_callers_faults_never_count(rig: Rig) -> None:
    """What says nothing of the upstream opens nothing, however often it happens."""
    assert {await rig.call("none") for _ in range(30)} == {""}
    assert await rig.breaker() == "closed"


async def test_half_open_lets_one_pass(rig: Rig) -> None:
    """After its time one call at a time passes; three good ones close the breaker."""
    for _ in range(3):
        await rig.call("unknown")
    rig.wait(RULES.open)
    for change in ("", "", "closed"):
        probe = await rig.take()
        assert isinstance(probe, str)
        assert await rig.take() == Block("half_open")
        ended = await rig.one.finish(LABEL, probe, CallReport("good"), RULES)
        assert ended.breaker == change
    assert await rig.breaker() == "closed"
    rig.wait(1)
    # What opened it does not count again.
    assert [await rig.call("unknown") for _ in range(3)] == ["", "", "opened"]


async def test_failed_probe_opens_for_longer(rig: Rig) -> None:
    """Each failed probe doubles the time, up to a bound; a probe whose worker died gives way to another."""
    for _ in range(3):
        await rig.call("unknown")
    for seconds in (60, 120, 240, 480, 600, 600):
        rig.wait(600)
        assert await rig.call("refusal") == "opened"
        assert await rig.take() == Block("circuit_open", seconds)
    rig.wait(600)
    assert isinstance(await rig.take(), str)
    rig.wait(LEASE_S)
    assert isinstance(await rig.take(), str)


async def test_late_results_change_no_open_breaker(rig: Rig) -> None:
    """Calls that began before the breaker opened neither close it nor prolong it."""
    late = [await rig.take() for _ in range(4)]
    for _ in range(3):
        await rig.call("unknown")
    rig.wait(RULES.open)
    for permit, result in zip(late, ("good", "good", "good", "unknown"), strict=True):
        assert isinstance(permit, str)
        assert (await rig.one.finish(LABEL, permit, CallReport(result), RULES)).breaker == ""  # type: ignore[arg-type]
    assert await rig.breaker() == "half_open"


async def test_repeated_report_counts_once(rig: Rig) -> None:
    """A report whose reply was lost is told again without counting again."""
    permit = await rig.take()
    assert isinstance(permit, str)
    report = CallReport("unknown", presumed=7)
    for _ in range(5):
        assert (await rig.one.finish(LABEL, permit, report, RULES)).breaker == ""
    assert (await rig.other.look([LABEL]))[LABEL].presumed == 7


async def test_places_are_everybodys(rig: Rig) -> None:
    """No more calls than allowed run at a time; asking again for the same one takes no second place."""
    caps = Caps(at_once=2)
    first = await rig.take(caps)
    assert isinstance(first, str)
    assert await rig.take(caps, first) == first
    assert isinstance(await rig.take(caps), str)
    assert await rig.take(caps) == Block("full")
    await rig.one.finish(LABEL, first, CallReport("good"), RULES)
    assert isinstance(await rig.take(caps), str)


async def test_dead_workers_places_end(rig: Rig) -> None:
    """Places that nobody holds end with their lease; held ones stay."""
    caps = Caps(at_once=2)
    held, lost = await rig.take(caps), await rig.take(caps)
    assert isinstance(held, str)
    assert isinstance(lost, str)
    rig.wait(LEASE_S - 1)
    await rig.one.hold(LABEL, [held], LEASE_S)
    rig.wait(2)
    assert (await rig.other.look([LABEL]))[LABEL].in_flight == 1
    assert isinstance(await rig.take(caps), str)
    assert await rig.take(caps) == Block("full")


async def test_calls_a_minute_are_bounded(rig: Rig) -> None:
    """Sixty calls at once, then one a second."""
    caps = Caps(per_minute=60)
    assert all([isinstance(await rig.take(caps), str) for _ in range(60)])
    assert await rig.take(caps) == Block("busy", 1.0)
    rig.wait(1)
    assert isinstance(await rig.take(caps), str)
    assert await rig.take(caps) == Block("busy", 1.0)


async def test_refused_credential_outlasts_a_rate_limit(rig: Rig) -> None:
    """The reason that an operator must hear of is told once, and is not hidden by a later rate limit."""
    rights = [await rig.take() for _ in range(3)]
    reports = [
        CallReport("refusal", cool=5, why="limit"),
        CallReport("none", cool=300, why="credential"),
        CallReport("refusal", cool=600, why="limit"),
    ]
    told: list[str] = []
    for permit, report in zip(rights, reports, strict=True):
        assert isinstance(permit, str)
        told.append((await rig.one.finish(LABEL, permit, report, RULES)).cooled)
    assert told == ["limit", "credential", ""]
    assert await rig.take() == Block("credential_rejected", 600)
    rig.wait(600)
    assert isinstance(await rig.take(), str)


async def test_spend_brake_holds_for_an_hour(rig: Rig) -> None:
    """Too much presumed money keeps calls away until the hour is over, or an operator resets it."""
    caps = Caps(spend_limit=10)
    await rig.call("none", presumed=10)
    assert isinstance(await rig.take(caps), str)
    await rig.call("none", presumed=1)
    found = await rig.take(caps)
    assert isinstance(found, Block)
    assert (found.reason, 3600 <= found.wait <= 3900) == ("paused_by_spend_limit", True)
    rig.wait(found.wait)
    assert isinstance(await rig.take(caps), str)
    await rig.call("none", presumed=11)
    await rig.one.reset(LABEL)
    assert isinstance(await rig.take(caps), str)


async def test_reset_uses_it_again(rig: Rig) -> None:
    """An operator's reset closes the breaker, ends a cool-down and forgets a low balance."""
    for _ in range(3):
        await rig.call("unknown", cool=300.0, why="credential") if await rig.breaker() == "closed" else None
        await rig.one.reset(LABEL)
    assert await rig.one.note_check(LABEL, balance="3", is_low=True) == "low"
    assert await rig.take(Caps(has_floor=True)) == Block("low_balance")
    await rig.one.reset(LABEL)
    assert isinstance(await rig.take(Caps(has_floor=True)), str)


async def test_latencies_are_medians(rig: Rig) -> None:
    """The median of the last forty good calls of one quality and size, known to everybody."""
    for seconds in [100.0] * 10 + [1.0, 2.0] * 20:
        await rig.call("good", kind="high/1K", seconds=seconds)
    await rig.call("good", kind="low/1K", seconds=7.0)
    found = (await rig.other.look([LABEL]))[LABEL].latencies
    assert {kind: (one.samples, one.median) for kind, one in found.items()} == {
        "high/1K": (40, 1.5),
        "low/1K": (1, 7.0),
    }


async def test_one_worker_has_the_turn(rig: Rig) -> None:
    """Of all workers one checks a target in each stretch of time, ten times as often while it is tried again."""
    assert [await store.take_turn(LABEL, 300) for store in (rig.one, rig.other)] == [True, False]
    rig.wait(300)
    assert [await store.take_turn(LABEL, 300) for store in (rig.other, rig.one)] == [True, False]
    for _ in range(3):
        await rig.call("unknown")
    rig.wait(31)
    assert await rig.one.take_turn(LABEL, 300)


@pytest.mark.parametrize("label", ["", " x", "a\nb", "x" * 202, "{igw}"])
async def test_odd_labels_are_refused(rig: Rig, label: str) -> None:
    """No label leads to another name in Redis."""
    with pytest.raises(Exception, match="INVALID label"):
        await rig.one.reset(label)


async def cool(rig: Rig, key: str, how: str) -> None:
    """A vendor rejects this key, in a call or in a free check."""
    if how == "call":
        report = CallReport("none", cool=300, why="credential")
        await rig.one.finish(LABEL, new_id("permit"), report, RULES, key)
    else:
        await rig.one.note_check(LABEL, trouble="credential (401)", cool=300, key=key)


@pytest.mark.parametrize("how", ["call", "check"])
@pytest.mark.parametrize(
    ("rejected", "present", "is_blocked"),
    [("aa", "aa", True), ("aa", "bb", False), ("", "bb", True), ("aa", "", True), ("", "", True)],
)
async def test_cool_down_belongs_to_the_key(rig: Rig, how: str, rejected: str, present: str, is_blocked: bool) -> None:
    """A key in the place of a rejected one is used at once, in each process; the rejected one stays blocked."""
    await cool(rig, rejected, how)
    block = await rig.other.take(LABEL, new_id("permit"), LEASE_S, Caps(), present)
    assert (block is not None) is is_blocked
    (seen,) = (await rig.other.look([LABEL])).values()
    assert (seen.find_block(has_floor=False, spend_limit=None, key=present) is not None) is is_blocked
    assert seen.describe(has_floor=False, spend_limit=None)[0] == "credential_rejected"


@pytest.mark.parametrize("how", ["call", "check"])
async def test_good_key_ends_the_other_ones_cool_down(rig: Rig, how: str) -> None:
    """Once the new key has worked, operators see no rejected credential; a second bad key has its own cool-down."""
    await cool(rig, "aa", how)
    await cool(rig, "bb", how)
    assert await rig.one.take(LABEL, new_id("permit"), LEASE_S, Caps(), "bb") is not None
    if how == "call":
        await rig.one.finish(LABEL, new_id("permit"), CallReport("good"), RULES, "cc")
    else:
        await rig.one.note_check(LABEL, key="cc")
    (seen,) = (await rig.other.look([LABEL])).values()
    assert seen.describe(has_floor=False, spend_limit=None)[0] == "ok"


async def test_rate_limit_counts_for_every_key(rig: Rig) -> None:
    """Another key does not pass a rate limit, also not where it was learnt after a rejected key."""
    await cool(rig, "aa", "call")
    await rig.one.finish(LABEL, new_id("permit"), CallReport("refusal", cool=60, why="limit"), RULES, "bb")
    assert await rig.one.take(LABEL, new_id("permit"), LEASE_S, Caps(), "bb") == Block("rate_limited", 60.0)


async def test_first_call_of_a_day_prolongs(rig: Rig, valkey: Valkey) -> None:
    """What is known of a target is kept for at least 29 days after its last call, and its permits for 30."""
    with Redis.from_url(valkey.url) as redis:
        for _ in range(2):
            await rig.call("good", kind="high/1K", seconds=1.0)
            await rig.take()
            for name in ("target", "latency", "permits"):
                assert redis.pexpire(f"{{igw}}:{name}:{LABEL}", 29 * DAY_MS, lt=True)
            rig.wait(DAY_MS / 1000)
        await rig.call("none")
        await rig.take()
        for name in ("target", "latency", "permits"):
            assert 29 * DAY_MS < cast(int, redis.pttl(f"{{igw}}:{name}:{LABEL}")) <= 30 * DAY_MS
