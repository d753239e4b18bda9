"""Where requests wait: woken by what changes anywhere, and holding nothing that nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.state.task_events import GATHER_S, TaskEvents, Watch
from gateway.state.task_store import End, Promise, TaskImage, TaskRecord, TaskStore
from gateway.store.client import StoreUnavailable
from tests.conftest import Valkey
from tests.support.ledgers import Store, make_id
from tests.support.store_reader import open_tasks

pytestmark = pytest.mark.quiet_store

TASK = make_id("task", 1)
RECORD = TaskRecord(id=TASK, promise=Promise(key="key", operation="generation", n=1, created=1))
ENDED = RECORD.with_end(End(status="failed", completed=2))
MADE = TaskImage(
    slot=0,
    artifact="img",
    format="png",
    width=1,
    height=1,
    bytes=1,
    created=1,
    expires=2,
    upstream="anyfast",
    revised_prompt="a cat",
)


@pytest.fixture
async def tasks(valkey: Valkey) -> AsyncIterator[TaskStore]:
    async with open_tasks(valkey.url) as store:
        yield store


@pytest.fixture
async def task_events(valkey: Valkey, tasks: TaskStore) -> AsyncIterator[TaskEvents]:
    """A board that listens."""
    made = TaskEvents(valkey.url, tasks)
    listening = asyncio.create_task(made.listen())
    yield made
    listening.cancel()
    await asyncio.wait({listening})
    assert listening.cancelled()


async def wait(watch: Watch) -> None:
    await watch.wait(5)
    assert watch.has_news
    watch.has_news = False


async def be_heard(task_events: TaskEvents, tasks: TaskStore) -> None:
    """Announce until the board listens: what was announced before is not told."""
    with task_events.watch(make_id("task", 9)) as watch:
        async with asyncio.timeout(10):
            # The first news may be the begin of the listener, the second was read by it.
            for _ in range(2):
                watch.has_news = False
                while not watch.has_news:
                    await tasks.add(make_id("task", 9), [])
                    await asyncio.sleep(0)


async def test_change_elsewhere_wakes(task_events: TaskEvents, tasks: TaskStore) -> None:
    """Whoever watches a task hears of its images and its end, wherever it runs."""
    await tasks.open(RECORD)
    with task_events.watch(TASK) as watch:
        await be_heard(task_events, tasks)
        watch.has_news = False
        await tasks.add(TASK, [MADE])
        await wait(watch)
        found = await task_events.look(TASK)
        assert found is not None
        assert [made.slot for made in found.images] == [0]
        await tasks.end(ENDED)
        await wait(watch)
        assert (await task_events.look(TASK)) == found.with_end(ENDED.end)


async def test_change_here_needs_no_store(task_events: TaskEvents, valkey: Valkey) -> None:
    """A task that runs here is told of, end and all, while Redis is away; nothing of it stays when its watcher goes."""
    with valkey.paused():
        with task_events.watch(TASK) as watch:
            task_events.post(RECORD)
            await wait(watch)
            task_events.post(ENDED)
            await wait(watch)
            assert await task_events.look(TASK) == ENDED
        with pytest.raises(StoreUnavailable):
            await task_events.look(TASK)


async def test_listener_outlives_its_connection(task_events: TaskEvents, tasks: TaskStore, valkey: Valkey) -> None:
    """A reader whose connection was cut, or refused, listens again, and whoever waits looks meanwhile."""
    store = Store(valkey.url)
    with task_events.watch(TASK) as watch:
        await be_heard(task_events, tasks)
        watch.has_news = False
        async with asyncio.timeout(5):
            # Between two reads nothing is lost with the connection, and nobody need hear of it.
            while not watch.has_news:
                store.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await asyncio.sleep(0)
    store.close()
    await be_heard(task_events, tasks)


async def test_change_before_the_listener_is_seen(valkey: Valkey, tasks: TaskStore) -> None:
    """A task that ends elsewhere between a request's first look and the listener's first read is looked at again."""
    made = TaskEvents(valkey.url, tasks)
    with made.watch(TASK) as watch:
        await tasks.end(ENDED)
        listening = asyncio.create_task(made.listen())
        await wait(watch)
        assert await made.look(TASK) == ENDED
    listening.cancel()
    await asyncio.wait({listening})


async def test_nobody_waiting_reads_nothing(task_events: TaskEvents, tasks: TaskStore, valkey: Valkey) -> None:
    """The announcements are read neither for a task that runs here, nor after the last wait for another one."""
    store = Store(valkey.url)
    before = count_reads(store)
    task_events.post(RECORD)
    with task_events.watch(TASK):
        await tasks.end(ENDED)
        assert count_reads(store) == before
        await be_heard(task_events, tasks)
        # The listener would read again at once, but nobody waits for that any longer.
        before = count_reads(store)
        for _ in range(5):
            await tasks.add(make_id("task", 8), [])
            await asyncio.sleep(GATHER_S)
        assert count_reads(store) == before
    store.close()


def count_reads(store: Store) -> int:
    return int(store.command("INFO", "commandstats").get("cmdstat_xread", {"calls": 0})["calls"])


async def test_first_end_stands(tasks: TaskStore) -> None:
    """A task ends once: who comes later is told the end that stands."""
    canceled = RECORD.with_end(End(status="canceled", completed=3))
    assert await tasks.end(canceled) == canceled
    assert await tasks.end(ENDED) == canceled
    assert await tasks.read(TASK) == canceled


async def test_first_picture_stands(tasks: TaskStore) -> None:
    """Of two pictures for one slot the first is the task's, whoever ends it."""
    await tasks.open(RECORD)
    await tasks.add(TASK, [MADE])
    other = MADE.model_copy(update={"artifact": "img_other.png"})
    stands = await tasks.end(ENDED.with_image(other))
    assert [made.artifact for made in stands.images] == [MADE.artifact]


async def test_guess_gives_way(tasks: TaskStore) -> None:
    """An end that nobody was sure of is replaced by the real one, and never replaces it."""
    guess = RECORD.with_end(End(status="failed", completed=2, is_guess=True))
    known = RECORD.with_end(End(status="succeeded", completed=3))
    assert await tasks.end(guess) == guess
    assert await tasks.end(known) == known
    assert await tasks.end(guess) == known


@pytest.mark.parametrize("keeps_prompts", [False, True])
async def test_revised_prompt_is_a_prompt(tasks: TaskStore, valkey: Valkey, keeps_prompts: bool) -> None:
    """What a vendor made of the prompt is kept only where prompts are."""
    async with open_tasks(valkey.url, keeps_prompts=keeps_prompts) as store:
        await store.open(RECORD)
        await store.add(TASK, [MADE])
    found = await tasks.read(TASK)
    assert found is not None
    assert found.images[0].revised_prompt == ("a cat" if keeps_prompts else None)


async def test_hint_reaches_its_call(task_events: TaskEvents, tasks: TaskStore) -> None:
    """Whoever follows a paid call hears that its vendor called back, and nobody else does."""
    first, second = make_id("call", 1), make_id("call", 2)
    with (
        task_events.watch_callbacks(first) as mine,
        task_events.watch_callbacks(second) as other,
        task_events.watch(TASK) as watched,
    ):
        await be_heard(task_events, tasks)
        watched.has_news = False
        await tasks.announce_callback(first)
        async with asyncio.timeout(5):
            await mine.wait()
        assert not other.is_set()
        assert not watched.has_news
    await tasks.announce_callback(first)
    await be_heard(task_events, tasks)
