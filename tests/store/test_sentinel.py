"""The Sentinel form: the master is found, and found again; what was spent before a fail-over is spent after it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from gateway.money.ledger import Admitted, Ledger, LedgerAnswer, OverLimit, Scope, Settled
from gateway.process.data_folder import Secrets
from gateway.server.store_checks import StoreRefused, check_store
from gateway.store.client import CommandQueue, StoreUnavailable, connect
from gateway.store.windows import Calendar
from tests.support.ledgers import ZONE, Store, is_soak, make_id, make_opening
from tests.support.redis_fleets import Sentinels, folder_for_servers

pytestmark = [pytest.mark.quiet_store, pytest.mark.slow]

SECRETS = Secrets(pepper=b"p" * 32, signing_key=b"s" * 32)
PRICE, ROOM = 7, 200

Answer = TypeVar("Answer")


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    with folder_for_servers() as folder:
        fleet = Sentinels(folder, replicas=2)
        yield fleet
        fleet.close()


@pytest.fixture(scope="module")
def calm() -> Iterator[Sentinels]:
    """A fleet whose master stays, for tests that leave it as it was."""
    with folder_for_servers() as folder:
        fleet = Sentinels(folder, replicas=1)
        yield fleet
        fleet.close()


async def insist(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer, asked for again with the same ids for as long as Redis is away."""
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(0.02)


async def test_master_is_found(calm: Sentinels) -> None:
    """The master serves though one sentinel is dead and one says nothing."""
    calm.sentinels[0].kill()
    calm.sentinels[1].process.send_signal(signal.SIGSTOP)
    await check_store(calm.url, SECRETS, wait_s=2)
    client = connect(calm.url)
    await client.set("a", "1")
    assert calm.master.ask("GET", "a") == "1"
    await client.aclose()
    calm.sentinels[1].process.send_signal(signal.SIGCONT)
    calm.sentinels[0].start()


async def test_wrong_service_is_explained(calm: Sentinels) -> None:
    """A service that no sentinel watches is refused at the start, with its name."""
    with pytest.raises(StoreRefused, match="the sentinel watches no service other"):
        await check_store(calm.url.replace("/money", "/other"), SECRETS, wait_s=0)


async def test_evicting_master_is_refused(calm: Sentinels) -> None:
    """The start looks at the master that the sentinels name, not at them."""
    calm.master.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreRefused, match="noeviction"):
        await check_store(calm.url, SECRETS, wait_s=1)
    calm.master.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def spend(ledger: Ledger, number: int) -> int:
    """One task from its opening to its close; what it cost."""
    task, call = make_id("task", number), make_id("call", number)
    opened = await insist(lambda: ledger.open(make_opening(number, price=PRICE)))
    if isinstance(opened, OverLimit):
        return 0
    assert isinstance(opened, Admitted)
    assert await insist(lambda: ledger.mark_sent(task, call, [0], PRICE, 1)) == LedgerAnswer.HELD
    assert await insist(lambda: ledger.post(task, call, PRICE, 1)) == Settled(LedgerAnswer.POSTED, PRICE, 1)
    assert await insist(lambda: ledger.close(task, 1)) == LedgerAnswer.CLOSED
    return PRICE


@pytest.mark.parametrize("time", range(5 if is_soak() else 1))
async def test_killed_master_loses_no_money(sentinels: Sentinels, time: int) -> None:
    """The master dies under load: spending goes on at another, to the limit exactly, with each call posted once."""
    command_queue = CommandQueue(sentinels.url, wait_replicas=1)
    ledger = Ledger(command_queue, Calendar(ZONE))
    # The replica may still be taking the master's whole content over.
    await insist(lambda: ledger.set_limit(make_id("change", 1), Scope(), "usd_total", PRICE * ROOM))
    numbers = iter(range(ROOM + 40))
    spent: list[int] = []

    async def spend_on() -> None:
        for number in numbers:
            spent.append(await spend(ledger, number))
            if number == ROOM // 4:
                sentinels.master.kill()

    async with asyncio.timeout(30):
        await asyncio.gather(*(spend_on() for _ in range(8)))
    await command_queue.aclose()
    assert (sum(spent), spent.count(0)) == (PRICE * ROOM, 40)
    chosen = sentinels.chosen()
    assert chosen.facts()["role"] == "master"
    store = Store(f"redis://127.0.0.1:{chosen.port}")
    assert store.window("everyone", "total") == {"usd_posted": PRICE * ROOM, "images_posted": ROOM}
    store.close()


@pytest.mark.soak
@pytest.mark.skipif(not is_soak(), reason="part of the soak profile")
async def test_demoted_master_is_left(sentinels: Sentinels) -> None:
    """An orderly change of master, which leaves the old one alive, is followed by every client."""
    client, command_queue = connect(sentinels.url), CommandQueue(sentinels.url)
    ledger = Ledger(command_queue, Calendar(ZONE))
    await client.set("before", "1")
    await asyncio.to_thread(sentinels.change_master)
    async with asyncio.timeout(10):
        assert await insist(lambda: client.set("after", "1"))
        assert await spend(ledger, 1) == PRICE
    await client.aclose()
    await command_queue.aclose()
    assert sentinels.chosen().ask("GET", "after") == "1"
