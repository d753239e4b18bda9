"""A ledger on a real server, with a clock that is set by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.money.ledger import Ledger
from tests.conftest import Valkey
from tests.support.ledgers import Clock, Store, at, make_ledger


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2026-11-04T12:00:00"))


@pytest.fixture
async def ledger(valkey: Valkey, clock: Clock) -> AsyncIterator[Ledger]:
    """A ledger without a task in it, in Berlin."""
    made, command_queue = make_ledger(valkey.url, clock)
    yield made
    await command_queue.aclose()


@pytest.fixture
def store(valkey: Valkey) -> Iterator[Store]:
    """A look at all that the server holds."""
    found = Store(valkey.url)
    yield found
    found.close()
