"""The ledger's promises one by one: admitted within limits, held until settled, counted once, decided by the owner."""

import pytest
from typing_extensions import override

from gateway.money.ledger import Ledger
from gateway.money.ledger_results import (
    Admitted,
    LedgerAnswer,
    OverLimit,
    Rate,
    Retention,
    Scope,
    Settled,
    TooMany,
    Unpriced,
)
from gateway.store.client import CommandQueue
from gateway.store.windows import Calendar, Windows
from tests.conftest import Valkey
from tests.support.ledgers import DAY, HOUR, MINUTE, SECOND, Clock, Store, at, make_id, make_opening

pytestmark = pytest.mark.quiet_store

TASK, CALL, OTHER_CALL = make_id("task", 1), make_id("call", 1), make_id("call", 2)
WORKER, OTHER_WORKER = make_id("worker", 1), make_id("worker", 2)
KEY = f"key:{make_id('key', 1)}"
EVERYONE = Scope()


async def limit(ledger: Ledger, name: str, value: int | None, scope: Scope = EVERYONE, change: int = 1) -> None:
    assert await ledger.set_limit(make_id("change", change), scope, name, value) is LedgerAnswer.DONE


async def send(ledger: Ledger, *, images: int = 1, price: int = 10, fence: int = 1) -> None:
    """One task with one call for all its images."""
    assert isinstance(await ledger.open(make_opening(1, price=price, images=images)), Admitted)
    assert await ledger.mark_sent(TASK, CALL, range(images), price, fence) is LedgerAnswer.HELD


async def test_refusal_names_limit(ledger: Ledger, clock: Clock) -> None:
    """A refused task is told which limit, whose, what is left of it and when it resets."""
    await limit(ledger, "usd_day", 25)
    assert isinstance(await ledger.open(make_opening(1)), Admitted)
    midnight = at("2026-11-05T00:00:00")
    assert await ledger.open(make_opening(2, images=2)) == OverLimit("usd_day", "everyone", 25, 15, midnight)
    assert clock.now < midnight


async def test_refused_task_holds_nothing(ledger: Ledger, store: Store) -> None:
    """A task that one limit refuses leaves no trace in any other."""
    await limit(ledger, "requests_minute", 5)
    await limit(ledger, "usd_total", 5, Scope(team="design"), change=2)
    before = store.read()
    refused = await ledger.open(make_opening(1, team="design"))
    assert refused == OverLimit("usd_total", "team", 5, 5, None)
    assert store.read() == before


async def test_total_has_no_reset(ledger: Ledger) -> None:
    """What is limited in total does not come back with the clock."""
    await limit(ledger, "usd_total", 10)
    await send(ledger)
    await ledger.post(TASK, CALL, 10, 1)
    assert await ledger.open(make_opening(2)) == OverLimit("usd_total", "everyone", 10, 0, None)


async def test_new_limit_counts_the_past(ledger: Ledger) -> None:
    """A limit that is set today knows what was spent before it was set."""
    await send(ledger)
    await ledger.post(TASK, CALL, 10, 1)
    await limit(ledger, "usd_month", 15)
    assert isinstance(await ledger.open(make_opening(2)), OverLimit)
    await limit(ledger, "usd_month", None, change=2)
    assert isinstance(await ledger.open(make_opening(2)), Admitted)


async def test_task_keeps_its_windows(ledger: Ledger, clock: Clock, store: Store) -> None:
    """A picture that is asked for before midnight and paid after it is the old day's, and leaves the new day whole."""
    await limit(ledger, "usd_day", 10)
    clock.now = at("2026-11-30T23:59:59")
    await send(ledger)
    clock.now += 2 * SECOND
    await ledger.post(TASK, CALL, 9, 1)
    assert store.window(KEY, "2026-11-30") == {"usd_posted": 9, "images_posted": 1}
    assert store.window(KEY, "2026-12-01") == {}
    assert isinstance(await ledger.open(make_opening(2)), Admitted)
    assert store.window(KEY, "2026-12") == {"usd_held": 10, "images_held": 1}


async def test_long_day_ends_at_midnight(ledger: Ledger, clock: Clock) -> None:
    """On the day of 25 hours a budget lasts 25 hours."""
    await limit(ledger, "images_day", 1)
    clock.now = at("2026-10-25T00:00:00")
    assert isinstance(await ledger.open(make_opening(1)), Admitted)
    clock.now += 25 * HOUR - 1
    assert isinstance(await ledger.open(make_opening(2)), OverLimit)
    clock.now += 1
    assert isinstance(await ledger.open(make_opening(2)), Admitted)


class LateCalendar(Calendar):
    """The calendar of a machine whose clock stood still, until it is told the time."""

    told = 0

    @override
    def name_windows(self, at: int) -> Windows:
        self.told += 1
        return super().name_windows(at if self.told > 1 else 1_577_836_800 * SECOND)


async def test_wrong_clock_names_anew(valkey: Valkey, store: Store) -> None:
    """A gateway whose clock is years off counts in the windows of the server's clock."""
    command_queue = CommandQueue(valkey.url)
    assert isinstance(await Ledger(command_queue, LateCalendar()).open(make_opening(1)), Admitted)
    await command_queue.aclose()
    seconds, _ = store.command("TIME")
    today = Calendar().name_windows(int(seconds) * SECOND).day.name
    assert store.window("everyone", today) == {"usd_held": 10, "images_held": 1}
    assert not [name for name in store.read() if "2020" in name]


async def test_minute_limit_lets_burst_pass(ledger: Ledger, clock: Clock) -> None:
    """Three a minute are three at once, and then one every twenty seconds."""
    await limit(ledger, "requests_minute", 3)
    for number, left in ((1, 2), (2, 1), (3, 0)):
        answer = await ledger.open(make_opening(number))
        assert answer == Admitted(1, (Rate("requests_minute", "everyone", 3, left, number * 20 * SECOND),))
    refused = await ledger.open(make_opening(4))
    assert refused == OverLimit("requests_minute", "everyone", 3, 0, clock.now + 20 * SECOND)
    clock.now += 20 * SECOND - 1
    assert isinstance(await ledger.open(make_opening(4)), OverLimit)
    clock.now += 1
    assert isinstance(await ledger.open(make_opening(4)), Admitted)


async def test_more_than_burst_never_waits(ledger: Ledger, clock: Clock) -> None:
    """More images than a minute ever allows are refused for good, at any time."""
    await limit(ledger, "images_minute", 3)
    assert await ledger.open(make_opening(1, images=4)) == TooMany("images_minute", "everyone", 3)
    clock.now += HOUR
    assert isinstance(await ledger.open(make_opening(1, images=4)), TooMany)
    assert isinstance(await ledger.open(make_opening(1, images=3)), Admitted)


async def test_dead_worker_runs_nothing(ledger: Ledger, clock: Clock) -> None:
    """Tasks of a worker whose lease ended do not count as concurrent requests; an adopted one does again."""
    await limit(ledger, "concurrent_requests", 1)
    await ledger.renew(WORKER, 15 * SECOND)
    assert isinstance(await ledger.open(make_opening(1)), Admitted)
    other = make_opening(2, worker=OTHER_WORKER)
    assert await ledger.open(other) == OverLimit("concurrent_requests", "everyone", 1, 0, None)
    assert await ledger.adopt(TASK, OTHER_WORKER, 1) is LedgerAnswer.LIVING
    clock.now += 15 * SECOND
    assert await ledger.adopt(TASK, OTHER_WORKER, 1) == 2
    assert isinstance(await ledger.open(other), OverLimit)
    assert await ledger.close(TASK, 2) is LedgerAnswer.CLOSED
    assert isinstance(await ledger.open(other), Admitted)


async def test_stale_owner_decides_nothing(ledger: Ledger, store: Store) -> None:
    """After an adoption the old owner's decisions change nothing."""
    await send(ledger, images=2)
    assert await ledger.adopt(TASK, OTHER_WORKER, 1) == 2
    before = store.read()
    assert await ledger.mark_sent(TASK, OTHER_CALL, [0], 10, 1) is LedgerAnswer.FENCED
    assert await ledger.raise_price(TASK, 20, 1) is LedgerAnswer.FENCED
    assert await ledger.presume(TASK, CALL, 1) is LedgerAnswer.FENCED
    assert await ledger.close(TASK, 1) is LedgerAnswer.FENCED
    assert await ledger.adopt(TASK, WORKER, 1) is LedgerAnswer.FENCED
    assert store.read() == before


async def test_evidence_comes_from_anybody(ledger: Ledger, store: Store) -> None:
    """What a call cost is counted whoever says so, also after the task was adopted and closed."""
    await send(ledger)
    await ledger.adopt(TASK, OTHER_WORKER, 1)
    await ledger.close(TASK, 2)
    assert await ledger.post(TASK, CALL, 7, 1) == Settled(LedgerAnswer.POSTED, 7, 1)
    assert store.window("everyone", "total") == {"usd_posted": 7, "images_posted": 1}


async def test_sent_slot_outlives_time(ledger: Ledger, clock: Clock, store: Store) -> None:
    """What was sent stays held for as long as nobody knows how it ended, whatever is folded meanwhile."""
    await send(ledger)
    await ledger.close(TASK, 1)
    clock.now += 90 * DAY
    assert await ledger.fold(Retention(1, 1, 1)) == (0, 1)
    assert store.window(KEY, "total") == {
        "usd_held": 10,
        "images_held": 1,
        "trimmed:usd_held": 10,
        "trimmed:images_held": 1,
    }


async def test_wrong_nack_is_corrected(ledger: Ledger, store: Store) -> None:
    """A call that was called refused and then proves to be billed takes its slot back and is counted."""
    await send(ledger)
    assert await ledger.nack(TASK, CALL) is LedgerAnswer.VOID
    assert await ledger.post(TASK, CALL, 10, 1) == Settled(LedgerAnswer.POSTED, 10, 1)
    assert await ledger.mark_sent(TASK, OTHER_CALL, [0], 10, 1) is LedgerAnswer.TAKEN
    assert store.window(KEY, "total") == {"usd_posted": 10, "images_posted": 1}


async def test_second_nack_frees_nothing(ledger: Ledger) -> None:
    """A slot that another call has meanwhile is not freed by a late word about the first."""
    await send(ledger)
    await ledger.nack(TASK, CALL)
    assert await ledger.mark_sent(TASK, OTHER_CALL, [0], 10, 1) is LedgerAnswer.HELD
    assert await ledger.nack(TASK, CALL) is LedgerAnswer.VOID
    assert await ledger.mark_sent(TASK, make_id("call", 3), [0], 10, 1) is LedgerAnswer.TAKEN


async def test_bill_replaces_guess(ledger: Ledger, store: Store) -> None:
    """An unknown call counts at its target's price until the vendor says what it really cost."""
    assert isinstance(await ledger.open(make_opening(1, price=10, images=2)), Admitted)
    assert await ledger.mark_sent(TASK, CALL, [0, 1], 6, 1) is LedgerAnswer.HELD
    assert await ledger.presume(TASK, CALL, 1) == Settled(LedgerAnswer.PRESUMED, 12, 2)
    assert store.window(KEY, "total") == {"usd_presumed": 12, "images_presumed": 2}
    assert await ledger.post(TASK, CALL, 5, 1) == Settled(LedgerAnswer.POSTED, 5, 1)
    assert await ledger.presume(TASK, CALL, 1) == Settled(LedgerAnswer.POSTED, 5, 1)
    assert store.window(KEY, "total") == {"usd_posted": 5, "images_posted": 1}


async def test_first_bill_stands(ledger: Ledger, store: Store) -> None:
    """A call is counted once, however often and in however many ways it is told."""
    await send(ledger)
    for usd in (7, 7, 9):
        assert await ledger.post(TASK, CALL, usd, 1) == Settled(LedgerAnswer.POSTED, 7, 1)
    assert await ledger.nack(TASK, CALL) is LedgerAnswer.POSTED
    assert store.window(KEY, "total") == {"usd_posted": 7, "images_posted": 1}


async def test_dearer_target_needs_raise(ledger: Ledger) -> None:
    """A call at a price that is not held is not sent; a raise over the limit names it and leaves the hold as it was."""
    await limit(ledger, "usd_total", 25)
    await ledger.open(make_opening(1))
    assert await ledger.mark_sent(TASK, CALL, [0], 20, 1) is LedgerAnswer.UNDERHELD
    assert await ledger.raise_price(TASK, 26, 1) == OverLimit("usd_total", "everyone", 25, 15, None)
    assert await ledger.mark_sent(TASK, CALL, [0], 20, 1) is LedgerAnswer.UNDERHELD
    assert await ledger.raise_price(TASK, 20, 1) is LedgerAnswer.RAISED
    assert await ledger.mark_sent(TASK, CALL, [0], 20, 1) is LedgerAnswer.HELD


async def test_unknown_price_needs_free_spender(ledger: Ledger, store: Store) -> None:
    """A target whose price nobody knows serves only tasks that no limit on dollars counts."""
    await limit(ledger, "usd_week", 1_000_000, Scope(team="design"))
    before = store.read()
    refused = await ledger.open(make_opening(1, price=None, team="design"))
    assert refused == Unpriced("usd_week", "team")
    assert store.read() == before
    assert isinstance(await ledger.open(make_opening(1, price=None, images=2)), Admitted)
    assert store.window(KEY, "total") == {"images_held": 2}
    assert await ledger.mark_sent(TASK, CALL, [0, 1], None, 1) is LedgerAnswer.HELD
    assert await ledger.presume(TASK, CALL, 1) == Settled(LedgerAnswer.PRESUMED, 0, 2)
    assert await ledger.post(TASK, CALL, 7, 2) == Settled(LedgerAnswer.POSTED, 7, 2)
    assert store.window(KEY, "total") == {"usd_posted": 7, "images_posted": 2}


async def test_unknown_price_is_asked_for(ledger: Ledger) -> None:
    """A task with a known price may change to an unknown one only where it could have begun with it."""
    await ledger.open(make_opening(1))
    assert await ledger.mark_sent(TASK, CALL, [0], None, 1) is LedgerAnswer.UNDERHELD
    await limit(ledger, "usd_total", 25)
    assert await ledger.raise_price(TASK, None, 1) == Unpriced("usd_total", "everyone")
    assert await ledger.mark_sent(TASK, CALL, [0], None, 1) is LedgerAnswer.UNDERHELD
    await limit(ledger, "usd_total", None, change=2)
    assert await ledger.raise_price(TASK, None, 1) is LedgerAnswer.RAISED
    assert await ledger.mark_sent(TASK, CALL, [0], None, 1) is LedgerAnswer.HELD


async def test_close_releases_unsent_only(ledger: Ledger, store: Store) -> None:
    """Closing gives back what was never sent, and a later nack the rest."""
    await ledger.open(make_opening(1, images=3))
    await ledger.mark_sent(TASK, CALL, [1], 10, 1)
    await ledger.close(TASK, 1)
    assert store.window(KEY, "total") == {"usd_held": 10, "images_held": 1}
    assert await ledger.mark_sent(TASK, OTHER_CALL, [0], 10, 1) is LedgerAnswer.CLOSED
    await ledger.nack(TASK, CALL)
    assert store.window(KEY, "total") == {}


async def test_late_mark_is_void(ledger: Ledger) -> None:
    """A mark that arrives after its call was given up does not let it be sent."""
    await ledger.open(make_opening(1))
    assert await ledger.nack(TASK, CALL) is LedgerAnswer.VOID
    assert await ledger.mark_sent(TASK, CALL, [0], 10, 1) is LedgerAnswer.VOID
    assert await ledger.post(TASK, CALL, 10, 1) is None
    assert await ledger.mark_sent(TASK, OTHER_CALL, [0], 10, 1) is LedgerAnswer.HELD


async def test_late_open_holds_nothing(ledger: Ledger, clock: Clock, store: Store) -> None:
    """An opening that arrives after its task was given up holds no money."""
    assert await ledger.close(TASK, 1) is LedgerAnswer.CLOSED
    assert await ledger.open(make_opening(1)) is LedgerAnswer.CLOSED
    assert await ledger.mark_sent(TASK, CALL, [0], 10, 1) is LedgerAnswer.CLOSED
    assert store.window("everyone", "total") == {}
    clock.now += 2 * DAY
    assert await ledger.fold(Retention()) == (1, 0)
    assert store.read() == {}


async def test_used_id_is_refused(ledger: Ledger, store: Store) -> None:
    """An id that stands for something else is no repetition."""
    await ledger.open(make_opening(1))
    before = store.read()
    for other in ({"fingerprint": "e" * 64}, {"key": make_id("key", 2)}, {"images": 2}):
        assert await ledger.open(make_opening(1, **other)) is LedgerAnswer.CONFLICT
    assert store.read() == before


async def test_largest_amounts_are_exact(ledger: Ledger, store: Store) -> None:
    """Fifteen digits of µ$ are added and taken away to the last one."""
    price, images = 999_999_999_999, 1000
    await send(ledger, price=price, images=images)
    assert store.window("everyone", "total") == {"usd_held": price * images, "images_held": images}
    await ledger.post(TASK, CALL, price * images - 1, 999)
    assert store.window("everyone", "total") == {"usd_posted": price * images - 1, "images_posted": 999}


async def test_credit_makes_room(ledger: Ledger, store: Store) -> None:
    """A credit counts once, with its reason in the journal, and lets its key spend again."""
    await limit(ledger, "usd_month", 10)
    await send(ledger)
    await ledger.post(TASK, CALL, 10, 1)
    assert isinstance(await ledger.open(make_opening(2)), OverLimit)
    for _ in range(2):
        done = await ledger.adjust(make_id("change", 2), Scope(key=make_id("key", 1)), -10, "never arrived")
        assert done is LedgerAnswer.DONE
    assert isinstance(await ledger.open(make_opening(2)), Admitted)
    corrections = [entry for entry in store.read()["{igw}:journal"] if entry["kind"] == "adjust"]
    assert [(entry["usd_posted"], entry["reason"]) for entry in corrections] == [("-10", "never arrived")]


async def test_late_repetition_overrules_nothing(ledger: Ledger, store: Store) -> None:
    """A change that is sent again after another one does not come back."""
    await limit(ledger, "usd_total", 5, change=1)
    await limit(ledger, "usd_total", 7, change=2)
    await limit(ledger, "usd_total", 5, change=1)
    assert store.read()["{igw}:limits:everyone"] == {"usd_total": "7"}
    assert await ledger.set_limit(make_id("change", 1), EVERYONE, "usd_total", 6) is LedgerAnswer.CONFLICT


async def test_fold_keeps_sums(ledger: Ledger, clock: Clock, store: Store) -> None:
    """What is folded is forgotten and still counted; a guess waits for its bill for longer."""
    await send(ledger)
    await ledger.presume(TASK, CALL, 1)
    await ledger.close(TASK, 1)
    clock.now += 2 * DAY
    assert await ledger.fold(Retention()) == (0, 0)
    await ledger.post(TASK, CALL, 8, 1)
    clock.now += 2 * DAY
    assert await ledger.fold(Retention()) == (1, 0)
    clock.now += 100 * DAY
    assert await ledger.fold(Retention()) == (0, 3)
    sums = {"usd_posted": 8, "images_posted": 1}
    bases = {f"{base}:{name}": value for base in ("folded", "trimmed") for name, value in sums.items()}
    assert store.window(KEY, "total") == sums | bases
    assert await ledger.post(TASK, CALL, 8, 1) is None


async def test_windows_go_after_retention(ledger: Ledger, store: Store) -> None:
    """A day's counters are kept for 400 days, those of all time for ever."""
    await ledger.open(make_opening(1))
    assert 400 * DAY < store.command("PTTL", "{igw}:window:everyone:2026-11-04") * 1000 <= 401 * DAY
    assert store.command("PTTL", "{igw}:window:everyone:total") == -1


async def test_each_new_day_of_a_month_expires(ledger: Ledger, clock: Clock, store: Store) -> None:
    """All counters of a calendar window expire: those of a new day too, and those that are empty between two tasks."""
    for number in (1, 2, 3):
        await ledger.open(make_opening(number))
        await ledger.close(make_id("task", number), 1)
        clock.now += 20 * HOUR
    windows = [name for name in store.read() if name.startswith("{igw}:window:") and not name.endswith(":total")]
    assert len([name for name in windows if name.startswith("{igw}:window:everyone:2026-11-0")]) == 3
    assert all(store.command("PTTL", name) > 0 for name in windows)


async def test_rates_are_forgotten_when_full(ledger: Ledger, store: Store) -> None:
    """Nothing is kept of a rate once it allows everything again."""
    await limit(ledger, "requests_minute", 2)
    await ledger.open(make_opening(1))
    assert 0 < store.command("PTTL", "{igw}:rate:everyone:requests_minute") * 1000 <= MINUTE
