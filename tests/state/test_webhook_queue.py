"""The queue of messages: written with a task's end, claimed in turns, repeated after a crash, kept when given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from gateway.ids import new_id
from gateway.state.task_store import MOST_HOOKS, End, Hook, Promise, TaskRecord, TaskStore
from gateway.state.webhook_queue import WebhookQueue
from gateway.store import names
from gateway.store.client import CommandQueue, StoreClient
from tests.conftest import Valkey

pytestmark = pytest.mark.quiet_store

LEASE_S = 10.0
WEEK_MS = 7 * 24 * 3600 * 1000


class Rig:
    """Task records and the queue. The claims' clock runs `ahead` of the server's, by hand."""

    def __init__(self, redis: StoreClient, command_queue: CommandQueue, start: int) -> None:
        self.redis = redis
        self.now = start
        self.tasks = TaskStore(redis, command_queue, room=5)
        self.queue = WebhookQueue(command_queue, now=lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * 1000)

    async def open(self, key: str = "key_1", *urls: str) -> TaskRecord:
        """A task that runs and tells these addresses."""
        promise = Promise(key=key, operation="generation", n=1, created=1)
        record = TaskRecord(id=new_id("task"), promise=promise)
        await self.tasks.open(record, make_hook(key, urls[0]) if urls else None)
        for url in urls[1:]:
            assert await self.tasks.subscribe(record.id, make_hook(key, url))
        return record

    async def end(self, record: TaskRecord, status: str = "succeeded", *, is_guess: bool = False) -> End:
        end = End.model_validate({"status": status, "completed": 2, "is_guess": is_guess})
        stands = await self.tasks.end(record.with_end(end))
        assert stands.end is not None
        return stands.end

    async def tell(self, key: str = "key_1") -> str:
        """An ended task that has one address to tell; the message's id."""
        known = {one.id for one in await self.queue.look(100)}
        await self.end(await self.open(key, "https://a.test/"))
        (message,) = {one.id for one in await self.queue.look(100)} - known
        return message

    async def claim(self, most: int = 100, *passed: str) -> list[str]:
        return [one.id for one in (await self.queue.claim(LEASE_S, most, passed))[0]]


def make_hook(key: str, url: str) -> Hook:
    return Hook(id=new_id("msg"), key=key, url=url, base_url="https://gateway.test")


@pytest.fixture
async def rig(valkey: Valkey, redis: StoreClient) -> AsyncIterator[Rig]:
    command_queue = CommandQueue(valkey.url)
    seconds, _ = await redis.time()
    yield Rig(redis, command_queue, (seconds + 3600) * 1000)
    await command_queue.aclose()


async def test_first_end_queues_once(rig: Rig) -> None:
    """However many write a task's end, side by side and again, each address has one message, of the end that stands."""
    record = await rig.open("key_1", "https://a.test/", "https://b.test/")
    ends = await asyncio.gather(*(rig.end(record, status) for status in ("canceled", "failed", "succeeded") * 5))
    assert len({end.status for end in ends}) == 1
    found, _ = await rig.queue.claim(LEASE_S, 1, ())
    more, _ = await rig.queue.claim(LEASE_S, 1, ())
    assert {one.url for one in (*found, *more)} == {"https://a.test/", "https://b.test/"}
    assert {one.task for one in (*found, *more)} == {record.id}
    assert await rig.claim() == []


async def test_wrong_guess_is_corrected_once(rig: Rig) -> None:
    """Who was told that a task failed hears once more when its picture came after all, under an id of its own."""
    record = await rig.open("key_1", "https://a.test/")
    await rig.end(record, "failed", is_guess=True)
    (guess,) = await rig.claim()
    await rig.queue.finish(guess)
    for _ in range(3):
        assert (await rig.end(record, "succeeded")).status == "succeeded"
    (correction,) = await rig.claim()
    assert correction != guess
    # An address that is added now hears of the end alone.
    assert await rig.tasks.subscribe(record.id, make_hook("key_1", "https://b.test/"))
    assert len(await rig.claim()) == 1
    assert await rig.claim() == []


async def test_right_guess_is_told_once(rig: Rig) -> None:
    """An end that says what the guess said is no news."""
    record = await rig.open("key_1", "https://a.test/")
    await rig.end(record, "failed", is_guess=True)
    await rig.end(record, "failed")
    assert len(await rig.claim()) == 1


async def test_nothing_is_queued_before_the_end(rig: Rig) -> None:
    """A task that runs, and one that tells nobody, leave the queue empty."""
    await rig.open("key_1", "https://a.test/")
    await rig.end(await rig.open())
    assert await rig.queue.look(100) == []
    assert not [name async for name in rig.redis.scan_iter("{igw}:webhook*")]


async def test_late_address_is_told_at_once(rig: Rig) -> None:
    """An address that comes after the end is queued then; one that was told already is not told again."""
    record = await rig.open("key_1", "https://a.test/")
    await rig.end(record)
    for _ in range(2):
        for url in ("https://a.test/", "https://b.test/"):
            assert await rig.tasks.subscribe(record.id, make_hook("key_1", url))
    assert sorted(one.url for one in await rig.queue.look(100)) == ["https://a.test/", "https://b.test/"]


async def test_address_before_the_promise_is_kept(rig: Rig) -> None:
    """A request that joins a task in the moment before its record is written is told of it too."""
    promise = Promise(key="key_1", operation="generation", n=1, created=1)
    record = TaskRecord(id=new_id("task"), promise=promise)
    assert await rig.tasks.subscribe(record.id, make_hook("key_1", "https://b.test/"))
    await rig.tasks.open(record, make_hook("key_1", "https://a.test/"))
    await rig.end(record)
    assert sorted(one.url for one in await rig.queue.look(100)) == ["https://a.test/", "https://b.test/"]


async def test_addresses_are_bounded(rig: Rig) -> None:
    """One task has so many addresses, and no more; known ones are still taken."""
    record = await rig.open()
    urls = [f"https://a.test/{number}" for number in range(MOST_HOOKS + 1)]
    taken = [await rig.tasks.subscribe(record.id, make_hook("key_1", url)) for url in urls]
    assert taken == [True] * MOST_HOOKS + [False]
    assert await rig.tasks.subscribe(record.id, make_hook("key_1", urls[0]))


async def test_claim_is_alone_until_it_ends(rig: Rig) -> None:
    """Of many claims side by side one gets a message; a claimant that dies leaves it to be claimed again, once."""
    message = await rig.tell()
    rig.wait(1)
    claims = await asyncio.gather(*(rig.claim() for _ in range(20)))
    assert [one for claim in claims for one in claim] == [message]
    rig.wait(LEASE_S - 0.1)
    assert await rig.claim() == []
    rig.wait(0.1)
    (again,), _ = await rig.queue.claim(LEASE_S, 100, ())
    assert (again.id, again.tries) == (message, 2)


async def test_arrived_message_is_forgotten(rig: Rig) -> None:
    """What arrived leaves nothing behind but the task's own record."""
    message = await rig.tell()
    assert await rig.claim() == [message]
    await rig.queue.finish(message)
    assert not [name async for name in rig.redis.scan_iter("{igw}:webhook*")]


async def test_slow_report_changes_nothing(rig: Rig) -> None:
    """A claimant whose lease ended cannot bring back what another one delivered."""
    message = await rig.tell()
    await rig.claim()
    rig.wait(LEASE_S)
    assert await rig.claim() == [message]
    await rig.queue.finish(message)
    await rig.queue.postpone(message, 1, "500", "{}")
    await rig.queue.lose(message, "500", "{}")
    assert await rig.queue.look(100) == []
    assert not [name async for name in rig.redis.scan_iter("{igw}:webhook*")]


async def test_pause_is_kept_with_its_body(rig: Rig) -> None:
    """A message that was put off is due after its pause, with the body of its first try; the claim tells when."""
    message = await rig.tell()
    await rig.claim()
    await rig.queue.postpone(message, 60, "500", '{"a":"ü"}')
    found, next_s = await rig.queue.claim(LEASE_S, 100, ())
    assert (found, next_s) == ([], 60)
    rig.wait(60)
    (again,), _ = await rig.queue.claim(LEASE_S, 100, ())
    assert (again.id, again.tries, again.body) == (message, 2, '{"a":"ü"}')


async def test_keys_take_turns(rig: Rig) -> None:
    """A key with many messages gets one a claim, as every other key does, and none while it is passed by."""
    many = [await rig.tell("key_many") for _ in range(5)]
    one = await rig.tell("key_one")
    due = {message.id: message.due or 0 for message in await rig.queue.look(100)}
    assert set(await rig.claim(100, "key_many")) == {one}
    first = await rig.claim()
    second = await rig.claim()
    # Several may have been told within one millisecond, whose order is that of their ids.
    assert [*first, *second] == sorted(many, key=lambda each: (due[each], each))[:2]
    assert len(await rig.claim(1)) == 1


async def test_given_up_is_kept_for_a_week(rig: Rig) -> None:
    """A message that was given up is shown with its reason, until a week is over."""
    message = await rig.tell()
    await rig.claim()
    await rig.queue.lose(message, "503", "{}")
    (lost,) = await rig.queue.look(100)
    assert (lost.id, lost.state, lost.why, lost.tries, lost.due) == (message, "lost", "503", 1, None)
    assert 0 < await rig.redis.ttl(names.WEBHOOK(message)) <= WEEK_MS // 1000
    rig.wait(WEEK_MS / 1000 + 1)
    other = await rig.tell()
    await rig.queue.lose(other, "503", "{}")
    assert await rig.redis.zrange(names.WEBHOOKS_LOST(), 0, -1) == [other]


async def test_retry_begins_anew(rig: Rig) -> None:
    """What was given up is tried again at once, with all its tries, and does not expire; what is unknown is not."""
    message = await rig.tell()
    await rig.claim()
    await rig.queue.lose(message, "503", '{"a":1}')
    rig.wait(100)
    assert await rig.queue.retry(message)
    (again,), _ = await rig.queue.claim(LEASE_S, 100, ())
    assert (again.id, again.tries, again.body, again.created) == (message, 1, '{"a":1}', rig.now)
    assert await rig.redis.ttl(names.WEBHOOK(message)) == -1
    assert await rig.redis.zcard(names.WEBHOOKS_LOST()) == 0
    assert not await rig.queue.retry("msg_nothing")


async def test_queue_of_a_key_is_bounded(rig: Rig) -> None:
    """Where too many wait for one key the next is given up at once, seen, and other keys' are not."""
    for _ in range(5):
        await rig.tell()
    full = await rig.tell()
    lost = [one for one in await rig.queue.look(100, "key_1") if one.state == "lost"]
    assert [(one.id, one.why, one.tries) for one in lost] == [(full, "too many wait for this key", 0)]
    other = await rig.tell("key_2")
    assert [one.state for one in await rig.queue.look(100, "key_2") if one.id == other] == ["waiting"]
    assert len(await rig.queue.look(3, "key_1")) == 3 + 1


async def test_vanished_message_stops_nothing(rig: Rig) -> None:
    """A message of which only the place is left is passed over."""
    gone, kept = await rig.tell("key_1"), await rig.tell("key_2")
    await rig.redis.delete(names.WEBHOOK(gone))
    assert await rig.claim() == [kept]
    assert await rig.redis.zcard(names.WEBHOOKS_OF("key_1")) == 0


@pytest.mark.parametrize("wrong", ["", "-1", "1e3", " 1", "NaN", "9007199254740993", "1.5"])
async def test_nonsense_changes_nothing(rig: Rig, valkey: Valkey, wrong: str) -> None:
    """A number that is none is refused, and nothing was written."""
    message = await rig.tell()
    for arguments in (("claim", wrong, "1"), ("finish", message, "later", wrong, "", ""), ("look", "", wrong)):
        with pytest.raises(ResponseError, match="INVALID"):
            await rig.queue._run(*arguments)
    assert await rig.claim() == [message]
