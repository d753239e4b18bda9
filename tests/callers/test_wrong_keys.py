"""Wrong keys are counted by address, by all workers together, and by each alone while Redis is away."""

import pytest

from gateway.callers.wrong_keys import WrongKeys
from gateway.store import names
from gateway.store.client import StoreClient, connect
from tests.conftest import Valkey

pytestmark = pytest.mark.quiet_store

HERE, THERE = "192.0.2.1", "2001:db8::/64"


async def test_limit_is_the_last_that_passes(redis: StoreClient) -> None:
    """So many wrong keys are answered as such, and the next one with the seconds to wait; another address is free."""
    wrong = WrongKeys(redis, limit=3)
    assert [await wrong.count(HERE) for _ in range(3)] == [None] * 3
    wait_s = await wrong.count(HERE)
    assert wait_s is not None
    assert 0 < wait_s <= 60
    assert await wrong.count(THERE) is None


async def test_workers_count_together(redis: StoreClient) -> None:
    """A limit holds for all workers at once, and its window ends for all at once."""
    one, other = WrongKeys(redis, limit=3), WrongKeys(redis, limit=3)
    assert [await worker.count(HERE) for worker in (one, other, one)] == [None] * 3
    assert await other.count(HERE) is not None
    assert 0 < await redis.pttl(names.WRONG_KEYS(HERE)) <= 60_000


async def test_window_ends(redis: StoreClient) -> None:
    """After its window an address is free again."""
    wrong = WrongKeys(redis, limit=1, window_s=0.05)
    assert await wrong.count(HERE) is None
    while await wrong.count(HERE) is not None:
        pass
    assert await redis.get(names.WRONG_KEYS(HERE)) == "1"


async def test_address_over_its_limit_costs_nothing(redis: StoreClient) -> None:
    """Whoever is over the limit is refused from memory."""
    wrong = WrongKeys(redis, limit=1)
    for _ in range(5):
        await wrong.count(HERE)
    assert await redis.get(names.WRONG_KEYS(HERE)) == "2"


async def test_away_redis_is_no_way_round(valkey: Valkey) -> None:
    """While Redis is away each worker counts by itself."""
    client = connect(valkey.url, deadline_s=0.1)
    wrong = WrongKeys(client, limit=3)
    with valkey.paused():
        answers = [await wrong.count(HERE) for _ in range(5)]
    await client.aclose()
    assert [answer is None for answer in answers] == [True, True, True, False, False]


@pytest.mark.parametrize("sources", [10_001])
async def test_memory_is_bounded(redis: StoreClient, sources: int) -> None:
    """Not even from a million addresses can the counts fill the memory."""
    wrong = WrongKeys(redis)
    wrong._unavailable_until = float("inf")
    for number in range(sources):
        await wrong.count(str(number))
    assert len(wrong._seen) == 10_000
