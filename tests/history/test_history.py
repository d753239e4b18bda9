"""The history: each request once, found again, and never a µ$ more or less in the sums than in the records."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from gateway.catalogue.document import Accounting
from gateway.history.history import _NOTE, History, RecordFilter
from gateway.history.record import CREDIT, CallFact, Credit, PassedBy, Record, Sums, UsageLine, record_id
from gateway.history.usage import DIMENSIONS
from gateway.store import names
from gateway.store.client import CommandQueue
from tests.conftest import Valkey
from tests.support.histories import (
    BERLIN,
    MIDNIGHT,
    NOON,
    Books,
    calls,
    make_call,
    make_record,
    open_books,
    records,
    task_of,
)
from tests.support.ledgers import DAY, HOUR, SECOND, ZONE, at, is_soak, make_id
from tests.support.lossy_proxy import lossy_proxy

pytestmark = pytest.mark.quiet_store

EVER = RecordFilter(NOON - 30 * DAY, NOON + DAY)
quick = settings(max_examples=150 if is_soak() else 25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
async def books(valkey: Valkey) -> AsyncIterator[Books]:
    """A history without a record in it, in Berlin at noon."""
    async with open_books(valkey.url) as made:
        yield made


async def all_sums(books: Books) -> dict[UsageLine, Sums]:
    """The sums of all days by line, without what is nothing."""
    report = await books.usage.sum(EVER.since, EVER.until, ("key", "team", "model", "upstream"))
    return {UsageLine(*row.group): row.sums for row in report.rows if row.sums != Sums()}


def add_up(found: list[Record]) -> dict[UsageLine, Sums]:
    """What records say that the sums are."""
    sums: dict[UsageLine, Sums] = {}
    for record in found:
        for line, amount in record.lines().items():
            sums[line] = sums.get(line, Sums()) + amount
    return {line: amount for line, amount in sums.items() if amount != Sums()}


async def find_all(books: Books, wanted: RecordFilter = EVER) -> list[Record]:
    return [record async for record in books.history.stream(wanted)]


async def test_record_comes_back_whole(books: Books) -> None:
    """What is written is found by its own id and by its task's, as it was."""
    record = make_record(
        id=record_id(make_id("task", 1)),
        task=make_id("task", 1),
        team="design",
        end_user="cliente-7 \u2028 \x00 ☃",
        operation="edit",
        calls=(make_call(1, "anyfast-c", outcome="unreachable", images=0, usd=0, state="void"), make_call(2)),
        size_asked="1024x1024",
        sizes_made=("1024x1024",),
        quality_asked="high",
        quality_sent="high",
        n_asked=2,
        n_delivered=1,
        price_held=9_007_199_254_740_991,
        status=200,
        error="upstream_failed",
        seconds=12.25,
        prompt="a cat",
        strategy="cost",
        rule="batches",
        passed_by=(PassedBy(target="apiany/main", reason="its rate limit is reached"),),
    )
    await books.history.write(record)
    assert await books.history.show(record.id) == record
    assert await books.history.show(make_id("task", 1)) == record
    assert (record.price_settled, record.upstreams, record.is_presumed) == (40_000, ("anyfast-c", "anyfast"), False)


async def test_unknown_ids_find_nothing(books: Books) -> None:
    """An id of nothing, and a text that is no id, are not found."""
    for identifier in (make_id("rec", 5), make_id("task", 5), "", "rec_", "rec_zz", "no id"):
        assert await books.history.show(identifier) is None


def test_sums_are_those_of_records(valkey: Valkey) -> None:
    """Whatever is written, in whatever order and however often, the sums are those of the records that are found."""

    @quick
    @given(st.lists(records, max_size=6, unique_by=lambda record: record.id), st.randoms(use_true_random=False))
    def check(made: list[Record], chance: random.Random) -> None:
        valkey.flush()
        asyncio.run(_write_shuffled(valkey.url, made, chance))

    check()


async def _write_shuffled(url: str, made: list[Record], chance: random.Random) -> None:
    async with open_books(url) as books:
        writes = [*made, *made[: chance.randrange(len(made) + 1)]]
        chance.shuffle(writes)
        await asyncio.gather(*(books.history.write(record) for record in writes))
        found = await find_all(books)
        assert found == sorted(made, key=lambda record: record.id, reverse=True)
        assert await all_sums(books) == add_up(made)
        for by in (DIMENSIONS, ("day",), ("upstream", "key"), ()):
            report = await books.usage.sum(EVER.since, EVER.until, by)
            assert report.total == reduce(Sums.__add__, add_up(made).values(), Sums())
        for day, amount in (await _by_day(books)).items():
            days = [record for record in made if names.USAGE(day) == names.USAGE(_day_of(record))]
            assert amount == reduce(Sums.__add__, add_up(days).values(), Sums())


async def _by_day(books: Books) -> dict[str, Sums]:
    return {row.group[0]: row.sums for row in (await books.usage.sum(EVER.since, EVER.until, ("day",))).rows}


def _day_of(record: Record) -> str:
    return next(day for day in ("2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04") if record.time < at(day) + DAY)


def test_late_news_moves_sums(valkey: Valkey) -> None:
    """Late news of calls, in any order and repeated, leave record and sums as the highest state of each has it."""

    @quick
    @given(records, st.lists(calls, max_size=5), st.randoms(use_true_random=False))
    def check(record: Record, news: list[CallFact], chance: random.Random) -> None:
        valkey.flush()
        asyncio.run(_write_news(valkey.url, record, news, chance))

    check()


async def _write_news(url: str, record: Record, news: list[CallFact], chance: random.Random) -> None:
    async with open_books(url) as books:
        await books.history.write(record)
        repeated = [*news, *chance.sample(news, len(news) // 2)]
        for fact in repeated:
            await books.history.write(_thin(record, fact))
        await books.history.write(record)
        expected = reduce(Record.with_call, news, record)
        assert await books.history.show(record.id) == expected
        assert await all_sums(books) == add_up([expected])


def _thin(record: Record, *calls: CallFact) -> Record:
    """What a process says of a request that it knows by its calls alone."""
    return Record(id=record.id, request="", key=record.key, key_name="", calls=calls, status=500)


def test_two_tellers_make_one_record(valkey: Valkey) -> None:
    """A worker and its heir may both tell of a request, in any order and repeated: one record, and sums that fit it."""

    @quick
    @given(records, st.lists(calls, max_size=3, unique_by=lambda call: call.id), st.randoms(use_true_random=False))
    def check(record: Record, news: list[CallFact], chance: random.Random) -> None:
        valkey.flush()
        asyncio.run(_tell_twice(valkey.url, record, news, chance))

    check()


async def _tell_twice(url: str, record: Record, news: list[CallFact], chance: random.Random) -> None:
    async with open_books(url) as books:
        thin = _thin(record, *news)
        tellings = chance.sample([record, thin, record, thin], chance.randrange(5))
        for told in tellings:
            await books.history.write(told)
        found = await find_all(books)
        assert await all_sums(books) == add_up(found)
        assert len(found) == min(len(tellings), 1)
        if record in tellings:
            assert found[0].model_copy(update={"calls": ()}) == record.model_copy(update={"calls": ()})
            assert {call.id for call in record.calls} <= {call.id for call in found[0].calls}


async def test_late_news_at_once_all_count(valkey: Valkey) -> None:
    """News of four calls at the same time are all taken in, once."""
    async with open_books(valkey.url) as books:
        guesses = tuple(make_call(number, state="presumed", images=0) for number in range(4))
        record = make_record(calls=guesses)
        await books.history.write(record)
        facts = [make_call(number, usd=number) for number in range(4)]
        await asyncio.gather(*(books.history.write(_thin(record, fact)) for fact in [*facts, *facts]))
        assert await find_all(books) == [record.model_copy(update={"calls": tuple(facts)})]
        assert (await books.usage.sum(NOON, NOON + 1)).total == Sums(requests=1, images=4, usd=6)


async def test_lost_answers_count_once(valkey: Valkey, tmp_path: Path) -> None:
    """When every third answer of the store is lost, no record is missing and none counts twice."""
    made = [make_record(NOON - number * HOUR, calls=(make_call(number),)) for number in range(20)]
    outside = valkey.folder / "door.sock"
    async with open_books(valkey.url) as books, lossy_proxy(valkey.socket, outside, 3) as proxy:
        command_queue = CommandQueue(f"unix://{outside}", pause_s=0.001)
        through = History(command_queue, books.redis, BERLIN)
        for record in made:
            await through.write(record)
        await command_queue.aclose()
        assert proxy.lost > 5
        assert await find_all(books) == made
        assert (await books.usage.sum(EVER.since, EVER.until)).total == Sums(requests=20, images=20, usd=800_000)


async def test_credit_is_its_own_line(books: Books) -> None:
    """An operator's correction shows in the sums of its day, beside the upstreams, once."""
    await books.history.write(make_record(team="design", calls=(make_call(),)))
    credit = Credit(id=make_id("change", 1), key=make_id("key", 1), team="design", usd=-15_000, reason="came out green")
    for _ in range(2):
        await books.history.credit(credit, NOON)
    await books.history.credit(credit.model_copy(update={"id": make_id("change", 2)}), MIDNIGHT - 1)
    report = await books.usage.sum(NOON, NOON + 1, ("team", "upstream"))
    assert {row.group: row.sums for row in report.rows} == {
        ("design", "anyfast"): Sums(requests=1, images=1, usd=40_000),
        ("design", CREDIT): Sums(usd=-15_000),
    }
    assert report.total.usd == 25_000


async def test_midnight_is_the_operators(books: Books, valkey: Valkey) -> None:
    """A request belongs to the day on which it began, in the operator's time zone, to the millisecond."""
    for instant in (MIDNIGHT - 1000, MIDNIGHT, MIDNIGHT + 1000):
        await books.history.write(make_record(instant, calls=(make_call(),)))
    assert {day: sums.requests for day, sums in (await _by_day(books)).items()} == {"2026-11-03": 1, "2026-11-04": 2}
    assert [record.time for record in await find_all(books, RecordFilter(MIDNIGHT, NOON))] == [
        MIDNIGHT + 1000,
        MIDNIGHT,
    ]
    assert [record.time for record in await find_all(books, RecordFilter(0, MIDNIGHT))] == [MIDNIGHT - 1000]
    async with open_books(valkey.url, Accounting(time_zone="America/Lima")) as far:
        await far.history.write(make_record(MIDNIGHT + HOUR))
        assert await far.redis.hlen(names.RECORDS("2026-11-03")) == 2  # type: ignore[misc]


async def test_each_kind_has_its_time(books: Books, valkey: Valkey) -> None:
    """Records go the set number of days after their day, sums and credits after theirs, whenever they are written."""
    now = at("2099-05-05T12:00:00")
    kept = Accounting(time_zone=ZONE, history_days=2, usage_days=5)
    async with open_books(valkey.url, kept, now=now) as soon:
        await soon.history.write(make_record(now, calls=(make_call(),)))
        await soon.history.credit(Credit(id=make_id("change", 1), usd=5, reason="agreed"), now)
        midnight = at("2099-05-06T00:00:00")
        for name, days in ((names.RECORDS, 2), (names.RECORD_ORDER, 2), (names.USAGE, 5), (names.CREDITS, 5)):
            goes = await soon.redis.execute_command("PEXPIRETIME", name("2099-05-05"))
            assert goes == (midnight + days * DAY) // 1000, name.stem
        assert await soon.redis.dbsize() == 4


async def test_late_repetition_is_known(valkey: Valkey) -> None:
    """What is written long after it would have gone stays a day, so that its repetition does not count again."""
    long_ago = at("2020-02-02T12:00:00")
    async with open_books(valkey.url, now=long_ago) as books:
        record = make_record(long_ago, calls=(make_call(),))
        for _ in range(3):
            await books.history.write(record)
        assert (await books.usage.sum(long_ago, long_ago + 1)).total == Sums(requests=1, images=1, usd=40_000)
        assert 0 < await books.redis.pttl(names.RECORDS("2020-02-02")) <= DAY // 1000


async def test_what_is_over_is_not_shown(valkey: Valkey) -> None:
    """What a shorter retention no longer keeps is no longer found, though Redis still has it."""
    async with open_books(valkey.url) as books:
        await books.history.write(make_record(NOON - 9 * DAY, calls=(make_call(),)))
    async with open_books(valkey.url, Accounting(time_zone=ZONE, history_days=3, usage_days=3)) as shorter:
        assert await find_all(shorter) == []
        assert (await shorter.usage.sum(0, NOON)).rows == ()


async def test_finding_by_each_trait(books: Books) -> None:
    """Each question finds the records that fit it, and no other."""
    odd = make_record(
        NOON - 30 * HOUR,
        key=make_id("key", 2),
        team="design",
        model="dall-e-3",
        status=429,
        calls=(make_call(upstream="apiany"),),
    )
    odd = odd.model_copy(update={"task": task_of(odd)})
    rest = [make_record(NOON - number * HOUR, calls=(make_call(),)) for number in range(1, 60)]
    for record in (odd, *rest):
        await books.history.write(record)
    questions = {
        "key": odd.key,
        "team": "design",
        "model": "dall-e-3",
        "upstream": "apiany",
        "status": 429,
        "task": odd.task,
        "request": odd.request,
    }
    for trait, value in questions.items():
        assert await find_all(books, RecordFilter(0, NOON, **{trait: value})) == [odd], trait
    assert len(await find_all(books, RecordFilter(0, NOON, team=""))) == 59
    assert await find_all(books, RecordFilter(NOON - 29 * HOUR, NOON, team="design")) == []
    assert await find_all(books, RecordFilter(0, NOON - 30 * HOUR, team="design")) == []


async def test_pages_hold_everything_once(books: Books) -> None:
    """Page after page shows every record once, newest first, though new ones are written meanwhile."""
    made = [make_record(NOON - number * HOUR // 20, team="ab"[number % 2]) for number in range(450)]
    await asyncio.gather(*(books.history.write(record) for record in made))
    for team, expected in ((None, made), ("a", made[::2])):
        found: list[Record] = []
        cursor = None
        while True:
            page = await books.history.find(RecordFilter(0, NOON + SECOND, team=team), 7, cursor)
            assert len(page.records) <= 7
            found += page.records
            await books.history.write(make_record(NOON + HOUR, team=team))
            if (cursor := page.cursor) is None:
                break
        assert found == expected
    with pytest.raises(ValueError, match="not an id"):
        await books.history.find(EVER, cursor="nonsense")


GOOD = ("record", "2026-11-04", make_id("rec", 1), "", "{}", "9000000000000", "9000000000000", '["k"]', "5")
BAD = {
    0: ("", "usage", "no"),
    1: ("", "today", "2026-1-4"),
    2: ("", "rec_1", "x" * 30, make_id("rec", 1) + "\n"),
    4: ("",),
    5: ("", "0", "-1", "1.5", "1e3", str(2**54), "NaN"),
    6: ("", "0", "-1", "1.5", "1e3", str(2**54), "NaN"),
    7: ("",),
    8: ("", "1.5", "1e3", " 1", "01", "-0", str(2**54), "NaN"),
}


async def test_bad_argument_writes_nothing(valkey: Valkey, books: Books) -> None:
    """What the script does not understand it refuses before its first write."""
    command_queue = CommandQueue(valkey.url)
    cases = [(*GOOD[:place], bad, *GOOD[place + 1 :]) for place, values in BAD.items() for bad in values]
    for words in [*cases, *(GOOD[:length] for length in (0, 1, 2, 3, 4, 5, 6, 8))]:
        with pytest.raises(ResponseError, match="INVALID "):
            await command_queue.run(_NOTE, *words)
        assert await books.redis.dbsize() == 0
    assert await command_queue.run(_NOTE, *GOOD) == ["done"]
    await command_queue.aclose()


async def test_all_names_share_a_slot(books: Books) -> None:
    """Every name lies in the slot of the others, so that one script may touch them on a Cluster."""
    await books.history.write(make_record(calls=(make_call(),)))
    found = [str(name) for name in await books.redis.keys("*")]
    assert len(found) == 3
    assert all(name.startswith(names.TAG) for name in found)


async def test_older_release_reads_newer_records(books: Books) -> None:
    """A field that this release does not know is passed over."""
    record = make_record()
    text = record.to_json()[:-1] + ',"joined":true}'
    await books.redis.hset(names.RECORDS("2026-11-04"), record.id, text)  # type: ignore[misc]
    assert await books.history.show(record.id) == record
