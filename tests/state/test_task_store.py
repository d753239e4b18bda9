"""Task records: what cannot be one is refused before anything is written."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from gateway.state.task_store import SCRIPTS
from gateway.store.client import CommandQueue
from tests.conftest import Valkey
from tests.support.ledgers import Store, make_id

pytestmark = pytest.mark.quiet_store

TASK = make_id("task", 1)
GOOD = {
    "open": (TASK, "60", "{}", "key", "1", "10"),
    "add": (TASK, "60", "10", "0", "{}"),
    "finish": (TASK, "60", "10", "{}", "guess", "{}", "5", "0", "{}"),
}


@pytest.mark.parametrize("name", GOOD)
async def test_bad_words_write_nothing(valkey: Valkey, store: Store, name: str) -> None:
    """A script refuses each of its words when it is empty or missing, and has written nothing by then."""
    command_queue = CommandQueue(valkey.url)
    for place in range(len(GOOD[name])):
        for words in ([*GOOD[name][:place], "", *GOOD[name][place + 1 :]], GOOD[name][:place]):
            if name != "open" and len(words) == 3 + (name == "finish") * 4:
                # No image is none too few.
                continue
            with pytest.raises(ResponseError, match="INVALID"):
                await command_queue.run(SCRIPTS[name], *words)
    assert store.command("DBSIZE") == 0
    assert await command_queue.run(SCRIPTS[name], *GOOD[name])
    await command_queue.aclose()
