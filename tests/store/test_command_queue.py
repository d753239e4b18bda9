"""The batcher: one pipeline for what is asked together, one repetition, and never a wait without an end."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from gateway.store.client import Command, CommandQueue, StoreUnavailable
from gateway.store.lua import Script, join_scripts
from tests.conftest import Valkey
from tests.support.ledgers import Store
from tests.support.stopwatch import running_seconds

pytestmark = pytest.mark.quiet_store

ECHO, FAIL, WRITE = (
    join_scripts({"lib": "", "script": body})["script"]
    for body in (
        "return {ARGV[1]}",
        "error('INVALID thing', 0)",
        "redis.call('INCR', '{igw}:ran') return {'ran'}",
    )
)


@pytest.fixture
async def command_queue(valkey: Valkey) -> AsyncIterator[CommandQueue]:
    made = CommandQueue(valkey.url)
    yield made
    await made.aclose()


async def test_everyone_gets_his_answer(command_queue: CommandQueue) -> None:
    """A thousand at once are each told their own answer, over one connection."""
    answers = await asyncio.gather(*(command_queue.run(ECHO, str(number)) for number in range(1000)))
    assert answers == [[str(number)] for number in range(1000)]


async def test_lingering_command_goes_with_the_next(valkey: Valkey, command_queue: CommandQueue) -> None:
    """A command that may linger is sent in front of the next one, and without another one by itself."""
    lingering = Command(ECHO, ("lingers",), list, may_linger=True)
    waiting = asyncio.create_task(command_queue.run_chain(lingering))
    await asyncio.sleep(0)
    assert await command_queue.run(ECHO, "next") == ["next"]
    # Its answer came before the next one's.
    await asyncio.sleep(0)
    assert waiting.done()
    assert await waiting == [["lingers"]]
    assert await command_queue.run_chain(lingering) == [["lingers"]]


async def test_close_sends_what_lingers(valkey: Valkey) -> None:
    """A queue that is closed sends a command that lingers first."""
    command_queue = CommandQueue(valkey.url)
    waiting = asyncio.create_task(command_queue.run_chain(Command(ECHO, ("last",), list, may_linger=True)))
    await asyncio.sleep(0)
    await command_queue.aclose()
    assert await waiting == [["last"]]


async def test_failure_is_its_own(command_queue: CommandQueue) -> None:
    """A script that fails does not touch what was asked together with it."""
    good, bad = await asyncio.gather(command_queue.run(ECHO, "x"), command_queue.run(FAIL), return_exceptions=True)
    assert good == ["x"]
    assert isinstance(bad, ResponseError)


async def test_cancelled_caller_hurts_nobody(command_queue: CommandQueue) -> None:
    """A caller that leaves takes nobody's answer along."""
    leaving = asyncio.create_task(command_queue.run(ECHO, "left"))
    staying = asyncio.create_task(command_queue.run(ECHO, "stays"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == ["stays"]


async def test_restart_is_not_noticed(valkey: Valkey, command_queue: CommandQueue) -> None:
    """A server that was restarted while nothing was asked costs nobody an error."""
    assert await command_queue.run(ECHO, "before") == ["before"]
    valkey.kill()
    valkey.start()
    assert await command_queue.run(ECHO, "after") == ["after"]


async def test_silent_server_refuses_soon(valkey: Valkey, command_queue: CommandQueue) -> None:
    """While the server says nothing everybody is refused within 1.5 s, also those who ask in the middle of it."""
    await command_queue.run(ECHO, "warm")
    with valkey.paused():
        began = running_seconds()
        early = [asyncio.create_task(command_queue.run(ECHO, "x")) for _ in range(5)]
        await asyncio.wait(early, timeout=0.5)
        asked = running_seconds()
        with pytest.raises(StoreUnavailable):
            await command_queue.run(ECHO, "y")
        assert running_seconds() - asked < 1.5
        for each in early:
            with pytest.raises(StoreUnavailable):
                await each
        assert running_seconds() - began < 2.1
    assert await command_queue.run(ECHO, "again") == ["again"]


async def test_dead_server_refuses_soon(valkey: Valkey, command_queue: CommandQueue) -> None:
    """A server that is gone is reported in well under 1.5 s, and used again when it is back."""
    valkey.kill()
    began = running_seconds()
    with pytest.raises(StoreUnavailable):
        await command_queue.run(ECHO, "x")
    assert running_seconds() - began < 1.5
    valkey.start()
    assert await command_queue.run(ECHO, "x") == ["x"]


async def test_readonly_server_is_away(store: Store, command_queue: CommandQueue) -> None:
    """A replica after a fail-over, which refuses every write, counts as away."""
    store.command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(StoreUnavailable):
            await command_queue.run(WRITE)
    finally:
        store.command("REPLICAOF", "NO", "ONE")


async def test_missing_replica_counts_as_away(valkey: Valkey) -> None:
    """Where a change must reach a replica and none is there, nothing counts as done."""
    command_queue = CommandQueue(valkey.url, wait_replicas=1)
    with pytest.raises(StoreUnavailable, match="replicas"):
        await command_queue.run(ECHO, "x")
    await command_queue.aclose()


def test_versions_have_their_own_digest() -> None:
    """Two scripts that do the same under two names are known by two digests."""
    found = join_scripts({"lib": "", "one": "return 1", "two": "return 1"})
    assert found["one"].digest != found["two"].digest
    assert isinstance(found["one"], Script)


async def test_busy_loop_is_not_silence(valkey: Valkey) -> None:
    """A process that is too busy to read its answers for longer than Redis may take does not take Redis for silent."""
    command_queue = CommandQueue(valkey.url, deadline_s=0.3, pause_s=0.01)
    await command_queue.run(ECHO, "warm")
    answers = [asyncio.create_task(command_queue.run(ECHO, str(number))) for number in range(3)]
    for _ in range(4):
        await asyncio.sleep(0)
        # The loop stands still, as it does while thousands of requests arrive at one instant.
        time.sleep(0.4)
    assert await asyncio.gather(*answers) == [["0"], ["1"], ["2"]]
    await command_queue.aclose()
