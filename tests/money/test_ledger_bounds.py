"""The largest and smallest numbers and texts that each script takes: the bound itself, and nothing beyond it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from gateway.money.ledger import Ledger
from gateway.money.ledger_results import Admitted, InvalidArgument, LedgerAnswer, OverLimit, Scope
from gateway.store.client import CommandQueue
from gateway.store.windows import Calendar
from tests.conftest import Valkey
from tests.money.test_ledger_arguments import ARGUMENTS, CALL, MEMORY, NOW, SCRIPTS, TASK
from tests.support.ledgers import (
    DAY,
    FINGERPRINT,
    HOUR,
    MINUTE,
    SECOND,
    ZONE,
    Clock,
    Store,
    make_id,
    make_opening,
)

pytestmark = pytest.mark.quiet_store

LARGEST = 2**53 - 1
MOST_USD, MOST_IMAGES = 10**12, 1000
WORKER, OTHER_WORKER = make_id("worker", 1), make_id("worker", 2)

# By script and argument: the least and the most, None where that is no number of its own.
NUMBERS: dict[str, dict[str, tuple[int | None, int | None]]] = {
    "open": {
        "retry": (0, 1000),
        "price": (0, MOST_USD),
        "images": (1, MOST_IMAGES),
        "patience": (0, 7 * DAY),
        "orphans": (0, DAY),
        "keep": (0, 7 * DAY),
    },
    "raise": {"price": (0, MOST_USD), "fence": (1, LARGEST)},
    "mark_sent": {"price": (0, MOST_USD), "fence": (1, LARGEST)},
    "post": {"usd": (0, MOST_USD * MOST_IMAGES), "images": (0, None)},
    "presume": {"fence": (1, LARGEST)},
    "close": {"fence": (1, LARGEST)},
    "adopt": {"fence": (1, LARGEST - 1)},
    "adjust": {"usd": (-MOST_USD * MOST_IMAGES, MOST_USD * MOST_IMAGES)},
    "set_limit": {"value": (0, LARGEST)},
    "holds": {"before": (1, LARGEST // 2), "most": (1, 10_000)},
    "renew": {"lease": (1, HOUR)},
    "retry_wait": {"lease": (1, HOUR), "since": (0, NOW)},
    "fold": {
        "keep_ended": (1, LARGEST),
        "keep_doubtful": (1, LARGEST),
        "keep_journal": (1, LARGEST),
        "most": (1, 10_000),
    },
    "reindex": {"repair": (0, 1)},
    "recount": {"repair": (0, 1), "usd_held": (-LARGEST, LARGEST)},
}

INNER_NAMES = {"scope": "team", "running": "team"}
"""The part of an argument that a script names."""

# By script and argument: a text of the greatest length.
TEXTS: dict[str, dict[str, str]] = {
    "open": {"team": "t" * 128},
    "look": {"team": "t" * 128},
    "limits": {"team": "t" * 128},
    "set_limit": {"team": "t" * 128},
    "adjust": {"team": "t" * 128, "reason": "r" * 500},
    "ticket": {"upstream": "u" * 100, "credential": "c" * 100, "ticket": "t" * 2**20, "path": "/" + "p" * (2**22 - 1)},
    "recount": {"running": "team:" + "t" * 128, "scope": "team:" + "t" * 128},
    "mark_sent": {"note": "{" + " " * 65_534 + "}"},
    "keep": {"text": "{" + " " * 65_534 + "}"},
}


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
async def command_queue(valkey: Valkey) -> AsyncIterator[CommandQueue]:
    made = CommandQueue(valkey.url, deadline_s=20)
    yield made
    await made.aclose()


@pytest.fixture
async def marked(ledger: Ledger) -> Ledger:
    """A ledger with a task of two images, of which one has its call."""
    assert isinstance(await ledger.open(make_opening(1, images=2)), Admitted)
    assert await ledger.mark_sent(TASK, CALL, [0], 10, 1) is LedgerAnswer.HELD
    return ledger


def put(script: str, argument: str, value: str) -> list[str]:
    """The good arguments of a script, one of them replaced."""
    # A limit is one scope's: of a key or of a team.
    other = "key" if (script, argument) == ("set_limit", "team") else ""
    words = ("" if name == other else value if name == argument else good for name, good, _ in ARGUMENTS[script])
    return [str(NOW), *words]


async def is_taken(command_queue: CommandQueue, script: str, argument: str, value: str) -> bool:
    try:
        await command_queue.run(SCRIPTS[script], *put(script, argument, value))
    except ResponseError as error:
        if not str(error).startswith(f"INVALID {INNER_NAMES.get(argument, argument)}"):
            raise
        return False
    return True


@pytest.mark.parametrize(("script", "argument"), [(script, name) for script, rows in NUMBERS.items() for name in rows])
async def test_number_is_taken_up_to_its_bound(
    marked: Ledger, command_queue: CommandQueue, script: str, argument: str
) -> None:
    """The number beyond a bound is refused, and the bound itself is taken."""
    least, most = NUMBERS[script][argument]
    for bound, beyond in ((least, -1), (most, 1)):
        if bound is None:
            continue
        assert not await is_taken(command_queue, script, argument, str(bound + beyond))
        assert await is_taken(command_queue, script, argument, str(bound))


@pytest.mark.parametrize(("script", "argument"), [(script, name) for script, rows in TEXTS.items() for name in rows])
async def test_text_is_taken_up_to_its_length(
    marked: Ledger, command_queue: CommandQueue, script: str, argument: str
) -> None:
    """One more byte is refused, and the greatest length is taken."""
    longest = TEXTS[script][argument]
    assert not await is_taken(command_queue, script, argument, longest[:-1] + longest[-2:])
    assert await is_taken(command_queue, script, argument, longest)


@pytest.mark.parametrize("name", ["requests_minute", "images_minute"])
async def test_rate_is_at_most_one_a_microsecond(ledger: Ledger, command_queue: CommandQueue, name: str) -> None:
    """A rate has at least one a minute, and at most one a microsecond."""
    for value, is_good in ((0, False), (1, True), (MINUTE, True), (MINUTE + 1, False)):
        words = [str(NOW), make_id("change", value % 97 + 1), "", "", name, str(value)]
        if is_good:
            assert (await command_queue.run(SCRIPTS["set_limit"], *words))[0] != "conflict"
        else:
            with pytest.raises(ResponseError, match="INVALID value"):
                await command_queue.run(SCRIPTS["set_limit"], *words)


async def test_lists_are_cut_at_their_most(ledger: Ledger, clock: Clock) -> None:
    """A list has as many tasks as were asked for."""
    for number in range(1, 5):
        await ledger.open(make_opening(number))
        clock.now += SECOND
    for most in (1, 2, 4):
        assert len(await ledger.holds(most)) == most
    assert len(await ledger.holds(5)) == 4


async def test_left_are_closed_shortly_before_their_worker_ended(ledger: Ledger, clock: Clock) -> None:
    """A dead worker's closed tasks are found if it closed them in the last five minutes of its lease."""
    before = clock.now
    closings = {1: 0, 2: SECOND, 3: 5 * MINUTE + SECOND, 4: 5 * MINUTE + 2 * SECOND}
    for number in closings:
        worker = OTHER_WORKER if number == 4 else WORKER
        await ledger.open(make_opening(number, worker=worker))
        await ledger.mark_sent(make_id("task", number), make_id("call", number), [0], 10, 1)
    for number, after in closings.items():
        clock.now = before + after
        if number == 2:
            # A presumed call waits in another index.
            await ledger.presume(make_id("task", number), make_id("call", number), 1)
        else:
            await ledger.post(make_id("task", number), make_id("call", number), 10, 1)
        await ledger.close(make_id("task", number), 1)
    clock.now = before + 5 * MINUTE + SECOND - 15 * SECOND
    await ledger.renew(WORKER, 15 * SECOND)
    lease_end = clock.now + 15 * SECOND
    await ledger.renew(OTHER_WORKER, HOUR)
    # While its worker lives, nothing was left.
    assert await ledger.left(before) == []
    clock.now = lease_end
    assert {hold.task for hold in await ledger.left(before)} == {make_id("task", 2), make_id("task", 3)}
    assert len(await ledger.left(before, 1)) == 1
    assert {hold.task for hold in await ledger.left(lease_end - 1)} == {make_id("task", 2), make_id("task", 3)}
    assert await ledger.left(lease_end) == []


async def test_credit_expires_with_its_windows(ledger: Ledger, clock: Clock) -> None:
    """A credit for a day is taken while the day's sums are kept, 400 days, and is refused after that."""
    at = clock.now
    gone = Calendar(ZONE).name_windows(at).day.end + 400 * DAY
    clock.now = gone - 1
    assert await ledger.adjust(make_id("change", 1), Scope(), -10, "agreed", at) is LedgerAnswer.DONE
    clock.now = gone
    with pytest.raises(InvalidArgument, match="day_end"):
        await ledger.adjust(make_id("change", 2), Scope(), -10, "agreed", at)


@pytest.mark.parametrize("state", ["held", "presumed", "posted"])
@pytest.mark.parametrize(("limit", "taken", "room"), [("usd_total", 10, 15), ("images_month", 1, 2)])
async def test_each_kind_of_amount_counts(ledger: Ledger, state: str, limit: str, taken: int, room: int) -> None:
    """A limit counts held, presumed and posted amounts alike: what is left is admitted, and no more."""
    await ledger.set_limit(make_id("change", 1), Scope(), limit, taken + room)
    await ledger.open(make_opening(1))
    await ledger.mark_sent(TASK, CALL, [0], 10, 1)
    if state == "presumed":
        await ledger.presume(TASK, CALL, 1)
    elif state == "posted":
        await ledger.post(TASK, CALL, 10, 1)
    is_usd = limit.startswith("usd")
    more = {"price": room + 1, "images": 1} if is_usd else {"price": 1, "images": room + 1}
    assert isinstance(await ledger.open(make_opening(2, **more)), OverLimit)
    less = {"price": room, "images": 1} if is_usd else {"price": 1, "images": room}
    assert isinstance(await ledger.open(make_opening(3, **less)), Admitted)
    assert isinstance(await ledger.open(make_opening(4, price=1)), OverLimit)


@pytest.mark.parametrize("span", ["day", "week", "month"])
async def test_window_has_a_length(command_queue: CommandQueue, span: str) -> None:
    """A window that ends where it begins is none; one of a microsecond is."""
    names = [name for name, _, _ in ARGUMENTS["look"]]
    good = [value for _, value, _ in ARGUMENTS["look"]]
    place = names.index(f"{span}_end")
    start = int(good[place - 1])
    with pytest.raises(ResponseError, match=f"INVALID {span}_end"):
        await command_queue.run(SCRIPTS["look"], str(NOW), *good[:place], str(start), *good[place + 1 :])
    words = [*good[:place], str(start + 1), *good[place + 1 :]]
    assert (await command_queue.run(SCRIPTS["look"], str(NOW), *words))[0] == "window_moved"


async def test_sleeper_of_a_day_is_not_checked(marked: Ledger, command_queue: CommandQueue) -> None:
    """A process whose lease the store does not know shows a lost store, unless it was suspended for a day."""
    epoch = make_id("epoch", 1)
    assert (await command_queue.run(SCRIPTS["accept"], str(NOW), epoch))[0] == "accepted"
    for beat, answer in ((NOW, "lost"), (NOW - DAY + 1, "lost"), (NOW - DAY, "raised")):
        words = [str(NOW), TASK, "20", "1", epoch, WORKER, str(beat)]
        assert (await command_queue.run(SCRIPTS["raise"], *words))[0] == answer
    await command_queue.run(SCRIPTS["renew"], str(NOW), WORKER, str(HOUR), "", "", "", epoch)
    for beat, answer in ((NOW + HOUR, "raised"), (NOW + HOUR + 1, "lost")):
        words = [str(NOW), TASK, "20", "1", epoch, WORKER, str(beat)]
        assert (await command_queue.run(SCRIPTS["raise"], *words))[0] == answer


@pytest.mark.parametrize("script", ["look", "open"])
@pytest.mark.parametrize("span", ["day", "week", "month"])
async def test_window_begins_and_ends_exactly(command_queue: CommandQueue, script: str, span: str) -> None:
    """A window holds from its first microsecond to just before its end; outside of it Python names another."""
    memory = {name for name, _, _ in MEMORY}
    good = [str(NOW), *("" if name in memory else value for name, value, _ in ARGUMENTS[script])]
    names = ["now", *(name for name, _, _ in ARGUMENTS[script])]
    place = names.index(f"{span}_start")
    for start, stop, is_moved in ((NOW + 1, NOW + 2, True), (NOW - 1, NOW, True), (NOW, NOW + 1, False)):
        words = [*good[:place], str(start), str(stop), *good[place + 2 :]]
        assert ((await command_queue.run(SCRIPTS[script], *words))[0] == "window_moved") is is_moved


async def test_presumed_call_of_a_closed_task_holds_nothing(ledger: Ledger) -> None:
    """A task whose last call was presumed after its close is over, and in no list of those that hold amounts."""
    await ledger.open(make_opening(1))
    await ledger.mark_sent(TASK, CALL, [0], 10, 1)
    await ledger.close(TASK, 1)
    assert [hold.task for hold in await ledger.holds()] == [TASK]
    await ledger.presume(TASK, CALL, 1)
    assert await ledger.holds() == []


async def test_all_named_workers_are_retired(ledger: Ledger, clock: Clock) -> None:
    """The tasks of each dead worker are orphans at once."""
    for number, worker in enumerate((WORKER, OTHER_WORKER), 1):
        await ledger.renew(worker, 15 * SECOND)
        await ledger.open(make_opening(number, worker=worker))
    await ledger.retire([WORKER, OTHER_WORKER])
    assert {hold.task for hold in await ledger.orphans()} == {make_id("task", 1), make_id("task", 2)}


async def test_names_live_as_long_as_they_count(ledger: Ledger, clock: Clock, store: Store) -> None:
    """Each name that ends does not end before what it is for: measured from before it was written."""
    seconds, microseconds = store.command("TIME")
    before = int(seconds) * 1000 + int(microseconds) // 1000
    await ledger.set_limit(make_id("change", 1), Scope(), "requests_minute", 1)
    await ledger.open(make_opening(1, keep=HOUR))
    await ledger.set_limit(make_id("change", 2), Scope(), "requests_minute", None)
    await ledger.open(make_opening(3, keep=HOUR, idempotency="a" * 64))
    await ledger.mark_sent(TASK, CALL, [0], 10, 1, note="{}")
    day, hour = DAY // 1000, HOUR // 1000
    least = {
        f"claims:{make_id('key', 1)}:{FINGERPRINT}": hour + day,
        f"idempotency:{make_id('key', 1)}:{'a' * 64}": hour + day,
        f"call:{CALL}": 2 * day,
        f"change:{make_id('change', 1)}": day,
        "rate:everyone:requests_minute": MINUTE // 1000,
    }
    for name, lifetime in least.items():
        ends = int(store.command("PEXPIRETIME", f"{{igw}}:{name}"))
        assert before + lifetime <= ends < before + lifetime + hour, name


async def test_accepted_store_is_not_marked_lost(command_queue: CommandQueue, store: Store) -> None:
    """A process that missed another epoch than the store has comes too late: the store was accepted meanwhile."""
    epoch, missed = make_id("epoch", 1), make_id("epoch", 2)
    await command_queue.run(SCRIPTS["accept"], str(NOW), epoch)
    assert await command_queue.run(SCRIPTS["mark_lost"], str(NOW), missed) == ["moved"]
    assert not store.command("EXISTS", "{igw}:lost")
    assert await command_queue.run(SCRIPTS["mark_lost"], str(NOW), epoch) == ["marked"]
    assert store.command("EXISTS", "{igw}:lost")
