"""What the ledger tells who asks: how limits stand, what was spent, which tasks still hold, and whose owner is gone."""

import pytest

from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Admitted, LedgerAnswer, OverLimit, Rate, Scope, Spent, Standing
from tests.support.ledgers import DAY, MINUTE, SECOND, Clock, Store, at, make_id, make_opening

pytestmark = pytest.mark.quiet_store

TASK, CALL = make_id("task", 1), make_id("call", 1)
KEY, WORKER, OTHER_WORKER = make_id("key", 1), make_id("worker", 1), make_id("worker", 2)


async def set_limits(ledger: Ledger, scope: Scope, first: int = 1, **limits: int) -> None:
    for number, (name, value) in enumerate(limits.items(), first):
        assert await ledger.set_limit(make_id("change", number), scope, name, value) is LedgerAnswer.DONE


async def test_standings_name_every_limit(ledger: Ledger, clock: Clock, store: Store) -> None:
    """A key sees each limit of its own, its team's and everyone's: how much is used, left, and when it is back."""
    await set_limits(ledger, Scope(key=KEY), usd_total=100, images_minute=6)
    await set_limits(ledger, Scope(team="design"), first=11, usd_day=40, concurrent_requests=3)
    await set_limits(ledger, Scope(), first=21, images_month=2)
    await ledger.renew(WORKER, 15 * SECOND)
    await ledger.open(make_opening(1, images=2, team="design"))
    before = store.read()
    found = await ledger.look(KEY, "design")
    assert store.read() == before
    assert found.now == clock.now
    assert found.limits == (
        Standing("usd_total", "key", 100, 20, 80, None),
        Standing("images_minute", "key", 6, 2, 4, clock.now + 20 * SECOND),
        Standing("usd_day", "team", 40, 20, 20, at("2026-11-05T00:00:00")),
        Standing("concurrent_requests", "team", 3, 1, 2, None),
        Standing("images_month", "everyone", 2, 2, 0, at("2026-12-01T00:00:00")),
    )
    clock.now += MINUTE
    assert [each.used for each in (await ledger.look(KEY, "design")).limits] == [20, 0, 20, 0, 2]


async def test_standings_tell_what_was_spent(ledger: Ledger, clock: Clock) -> None:
    """Posted, presumed and held sums are told by scope and window, and a new day begins with nothing."""
    await ledger.open(make_opening(1, images=3))
    await ledger.mark_sent(TASK, CALL, [0], 10, 1)
    await ledger.mark_sent(TASK, make_id("call", 2), [1], 10, 1)
    await ledger.post(TASK, CALL, 7, 1)
    await ledger.presume(TASK, make_id("call", 2), 1)
    sums = (10, 10, 7, 1, 1, 1)
    windows = ("total", "month", "week", "day")
    assert (await ledger.look(KEY)).spent == tuple(
        Spent(scope, window, *sums) for scope in ("key", "everyone") for window in windows
    )
    clock.now += DAY
    spent = {(each.scope, each.window): each.usd_posted for each in (await ledger.look(KEY)).spent}
    assert (spent["key", "week"], spent["key", "day"]) == (7, 0)


async def test_limits_are_told(ledger: Ledger) -> None:
    """The limits of one scope are its own alone."""
    await set_limits(ledger, Scope(team="design"), usd_day=40, images_day=9)
    assert await ledger.limits_of(Scope(team="design")) == {"usd_day": 40, "images_day": 9}
    assert await ledger.limits_of(Scope()) == {}


async def test_every_answer_tells_rates(ledger: Ledger, clock: Clock) -> None:
    """Admitted, asked again or refused, an answer tells how each limit a minute stands."""
    await set_limits(ledger, Scope(), requests_minute=6, images_minute=60, usd_total=25)
    told = (
        Rate("requests_minute", "everyone", 6, 5, 10 * SECOND),
        Rate("images_minute", "everyone", 60, 58, 2 * SECOND),
    )
    for _ in range(2):
        admitted = await ledger.open(make_opening(1, images=2))
        assert isinstance(admitted, Admitted)
        assert admitted.rates == told
    refused = await ledger.open(make_opening(2))
    assert isinstance(refused, OverLimit)
    assert (refused.limit, refused.now, refused.rates) == ("usd_total", clock.now, told)


async def test_holds_are_what_is_not_over(ledger: Ledger, clock: Clock) -> None:
    """A task is listed from its opening until it is closed and its last call settled, oldest first."""
    await ledger.open(make_opening(1, images=2, team="design"))
    clock.now += SECOND
    await ledger.open(make_opening(2))
    await ledger.mark_sent(TASK, CALL, [1], 10, 1)
    first, second = await ledger.holds()
    assert (first.task, first.key, first.team, first.worker, first.fence) == (TASK, KEY, "design", WORKER, 1)
    assert (first.state, first.opened, first.free, first.images) == ("open", clock.now - SECOND, 1, 2)
    assert (first.usd_held, first.images_held) == (20, 2)
    assert [(call.call, call.state, call.price, call.marked) for call in first.calls] == [
        (CALL, LedgerAnswer.HELD, 10, clock.now)
    ]
    assert second.windows == ("2026-11-04", "2026-W45", "2026-11")
    assert [hold.task for hold in await ledger.holds(1)] == [TASK]
    await ledger.close(TASK, 1)
    await ledger.close(second.task, 1)
    assert [(hold.task, hold.state, hold.usd_held) for hold in await ledger.holds()] == [(TASK, "closed", 10)]
    await ledger.post(TASK, CALL, 9, 1)
    assert await ledger.holds() == []
    over = await ledger.show(TASK)
    assert over
    assert (over.is_over, over.usd_held, over.amounts["usd_posted"], over.calls[0].usd) == (True, 0, 9, 9)


async def test_late_close_of_nothing_is_no_hold(ledger: Ledger) -> None:
    """A task that was given up before its opening arrived is known, and holds nothing."""
    await ledger.close(TASK, 1)
    await ledger.open(make_opening(1))
    assert await ledger.holds() == []
    found = await ledger.show(TASK)
    assert found
    assert (found.state, found.worker, found.images) == ("closed", "", 0)
    assert await ledger.show(make_id("task", 2)) is None


async def test_orphans_have_no_living_owner(ledger: Ledger, clock: Clock) -> None:
    """Only tasks whose owner's lease has ended are orphans, until somebody adopts them."""
    await ledger.renew(WORKER, 15 * SECOND)
    await ledger.renew(OTHER_WORKER, 30 * SECOND)
    await ledger.open(make_opening(1))
    await ledger.open(make_opening(2, worker=OTHER_WORKER))
    assert await ledger.orphans() == []
    clock.now += 15 * SECOND
    assert [hold.task for hold in await ledger.orphans()] == [TASK]
    await ledger.adopt(TASK, OTHER_WORKER, 1)
    assert await ledger.orphans() == []


async def test_overdue_are_own_and_old(ledger: Ledger, clock: Clock) -> None:
    """A worker finds those of its tasks that were opened before an instant and are not over."""
    for number, worker in enumerate((WORKER, OTHER_WORKER, WORKER), 1):
        await ledger.open(make_opening(number, worker=worker))
        clock.now += SECOND
    found = await ledger.overdue(WORKER, clock.now - 2 * SECOND)
    assert [hold.task for hold in found] == [TASK]
