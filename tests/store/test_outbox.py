"""Writes that nobody waits for: kept while Redis is away, in order where asked, and lost only where allowed."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from gateway.store.client import StoreUnavailable
from gateway.store.outbox import Outbox


class Shelf:
    """Takes items, once it is there; `faults` are raised by items, once each."""

    def __init__(self, *, is_there: bool = True, faults: dict[str, Exception] | None = None) -> None:
        self.is_there = is_there
        self.faults = faults or {}
        self.tries: list[str] = []
        self.taken: list[str] = []
        self.now = self.most = 0

    async def take(self, item: str) -> None:
        self.tries.append(item)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        if not self.is_there:
            raise StoreUnavailable("away")
        if fault := self.faults.pop(item, None):
            raise fault
        self.taken.append(item)


async def test_order_is_kept_while_redis_is_away() -> None:
    """One at a time: what comes while an earlier item waits is written after it, whoever waits for it."""
    shelf = Shelf(is_there=False)
    outbox = Outbox("test", shelf.take, at_once=1, pause_s=0.01)
    for number in range(5):
        await outbox.write(f"key-{number}", f"{number}")
    assert await outbox.flush(0.05) == 5
    assert set(shelf.tries) == {"0"}
    shelf.is_there = True
    await outbox.write("key-5", "5")
    assert await outbox.flush(5) == 0
    assert shelf.taken == ["0", "1", "2", "3", "4", "5"]
    assert (shelf.most, outbox.lost) == (1, 0)


async def test_write_is_made_before_it_returns() -> None:
    """Where nothing waits, whoever writes finds it written."""
    shelf = Shelf()
    outbox = Outbox("test", shelf.take, at_once=1)
    await outbox.write("key", "one")
    assert (shelf.taken, outbox.waiting) == (["one"], 0)


async def test_canceled_write_is_made_nevertheless() -> None:
    """An item whose writer is canceled during its first try is written after it."""
    shelf = Shelf()
    outbox = Outbox("test", shelf.take, at_once=1)
    writer = asyncio.create_task(outbox.write("key", "one"))
    await asyncio.sleep(0)
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    assert await outbox.flush(5) == 0
    assert (shelf.tries, shelf.taken, outbox.lost) == (["one", "one"], ["one"], 0)


async def test_many_are_written_at_once() -> None:
    """Without a bound nobody waits for another's write; with one, at most so many run."""
    for bound, most in ((None, 20), (4, 4)):
        shelf = Shelf()
        outbox = Outbox("test", shelf.take, at_once=bound)
        for number in range(20):
            outbox.put(f"key-{number}", f"{number}")
        assert await outbox.flush(5) == 0
        assert (len(shelf.taken), shelf.most) == (20, most)


async def test_items_of_one_key_are_merged() -> None:
    """What waits grows; what is under way is not written twice, and what comes meanwhile follows it."""
    shelf = Shelf(is_there=False)
    outbox = Outbox("test", shelf.take, merge=str.__add__, pause_s=0.01)
    outbox.put("key", "a")
    outbox.put("key", "b")
    assert outbox.waiting == 1
    await asyncio.sleep(0)
    assert shelf.tries == ["ab"]
    outbox.put("key", "c")
    shelf.is_there = True
    assert await outbox.flush(5) == 0
    assert shelf.taken == ["ab", "c"]


async def test_failed_item_grows_in_its_place() -> None:
    """An item that Redis did not take is written with what came meanwhile, before the others."""
    shelf = Shelf(is_there=False)
    outbox = Outbox("test", shelf.take, at_once=1, merge=str.__add__, pause_s=0.01)
    outbox.put("key", "a")
    await asyncio.sleep(0)
    outbox.put("other", "x")
    outbox.put("key", "b")
    assert await outbox.flush(0.05) == 2
    shelf.is_there = True
    assert await outbox.flush(5) == 0
    assert shelf.taken == ["ab", "x"]


@pytest.mark.parametrize("fault", [ResponseError("INVALID id"), ValueError("no such id")])
async def test_refused_item_holds_nobody_up(fault: Exception) -> None:
    """An item that the store will never take is given up, and those behind it are written."""
    shelf = Shelf(faults={"1": fault})
    outbox = Outbox("test", shelf.take, at_once=1, pause_s=60)
    with capture_logs() as logs:
        for number in range(3):
            outbox.put(f"key-{number}", f"{number}")
        assert await outbox.flush(5) == 0
    assert (shelf.taken, outbox.lost) == (["0", "2"], 1)
    assert [(log["event"], log["outbox"], log["item"]) for log in logs] == [
        ("the store refused a write", "test", "key-1")
    ]


async def test_fault_of_ours_loses_nothing() -> None:
    """A write that fails for no reason that is known is made again, in its place."""
    shelf = Shelf(faults={"0": RuntimeError("who knows")})
    outbox = Outbox("test", shelf.take, at_once=1, pause_s=0.01)
    for number in range(2):
        outbox.put(f"key-{number}", f"{number}")
    assert await outbox.flush(5) == 0
    assert (shelf.taken, outbox.lost) == (["0", "1"], 0)


async def test_items_that_may_not_wait_are_lost() -> None:
    """Without a pause an item whose first try finds Redis away is lost, and the log says which."""
    shelf = Shelf(is_there=False)
    outbox = Outbox("test", shelf.take, pause_s=None)
    with capture_logs() as logs:
        outbox.put("key", "one")
        assert await outbox.flush(5) == 0
    assert (shelf.tries, outbox.lost) == (["one"], 1)
    assert [(log["event"], log["item"]) for log in logs] == [("a write is lost: Redis is away", "key")]


async def test_log_tells_of_delay_once() -> None:
    """However many items wait and however often they are tried, the log has one line of it, and one of its end."""
    shelf = Shelf(is_there=False)
    outbox = Outbox("test", shelf.take, pause_s=0.01)
    with capture_logs() as logs:
        for number in range(10):
            outbox.put(f"key-{number}", f"{number}")
        await outbox.flush(0.05)
        shelf.is_there = True
        assert await outbox.flush(5) == 0
    assert [log["event"] for log in logs] == ["writes wait: Redis is away", "writes go on: Redis is back"]


async def test_close_ends_in_time_and_tells_the_loss() -> None:
    """A close writes what it can, waits no longer than asked, and logs how much is lost; nothing is tried after it."""
    shelf = Shelf(is_there=False)
    outbox = Outbox("test", shelf.take, pause_s=0.01)
    outbox.put("key", "one")
    outbox.put("other", "two")
    with capture_logs() as logs:
        await asyncio.wait_for(outbox.aclose(0.05), 2)
    assert [(log["event"], log["items"]) for log in logs if log["log_level"] == "error"] == [
        ("writes are lost: Redis is away", 2)
    ]
    tries = len(shelf.tries)
    await asyncio.sleep(0.05)
    assert (len(shelf.tries), outbox.lost) == (tries, 2)
    await Outbox("idle", shelf.take).aclose()
